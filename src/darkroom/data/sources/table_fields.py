"""What tables say of pictures besides captions: their split, and classes of attributes, which become heads."""

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from darkroom.core.errors import DarkroomError
from darkroom.core.text import printable
from darkroom.data.head import Head
from darkroom.data.sources.captions import of_record
from darkroom.data.sources.splits import WORDS

SPLIT_KEY = "split"
KEY = "prepare_data.source.labels"
MAX_CLASSES = 10_000
SHOWN = 40  # letters of a value in a message


class UnusableFieldError(Exception):
    """A picture's split or class cannot be told; the message is the reason."""


@dataclass(slots=True)
class Fields:
    """What the records of one picture say: each different value of its split, and of each column of classes."""

    splits: dict[str, None] = field(default_factory=dict)
    classes: dict[str, dict[str, None]] = field(default_factory=dict)
    unusable: str = ""

    def add(self, record: Any, labels: Sequence[str]) -> None:
        """Take in a record. The reason why one is of no use is kept, for the picture is lost with it."""
        split = of_record(record, SPLIT_KEY)
        if split is not None and split != "":
            self.splits[str(split).strip()] = None
        for label in labels:
            try:
                value = _class(label, of_record(record, label))
            except UnusableFieldError as error:
                self.unusable = self.unusable or str(error)
                continue
            if value:
                self.classes.setdefault(label, {})[value] = None

    def split(self) -> str:
        """One of `base.SPLIT_ORDER`. Raises UnusableFieldError."""
        if not self.splits:
            raise UnusableFieldError(f"no {SPLIT_KEY} in its record, though others have one")
        known = {WORDS.get(split.lower()) for split in self.splits}
        if None in known:
            unknown = next(split for split in self.splits if split.lower() not in WORDS)
            raise UnusableFieldError(f"{SPLIT_KEY} {_quoted(unknown)} is none of train, validation, test and novel")
        if len(known) > 1:
            raise UnusableFieldError(f"its records name several splits: {', '.join(map(printable, self.splits))}")
        return str(known.pop())

    def labels(self, names: Sequence[str]) -> tuple[str, ...]:
        """Its class in each of these columns. Raises UnusableFieldError."""
        if self.unusable:
            raise UnusableFieldError(self.unusable)
        for name in names:
            found = list(self.classes.get(name, ()))
            if not found:
                raise UnusableFieldError(f"no label {name} in its record")
            if len(found) > 1:
                raise UnusableFieldError(f"its records differ in the label {name}: {', '.join(map(_quoted, found))}")
        return tuple(next(iter(self.classes[name])) for name in names)


def _class(name: str, value: Any) -> str:
    """The name of a class; "" where none is given. Words and whole numbers are classes, and nothing else is."""
    if value is None:
        return ""
    if isinstance(value, bool) or not isinstance(value, str | int):
        raise UnusableFieldError(f"label {name} is neither a word nor a whole number: {_quoted(value)}")
    return " ".join(str(value).replace("\0", " ").split())


def _quoted(value: object) -> str:
    text = printable(repr(value))
    return text if len(text) <= SHOWN else f"{text[:SHOWN]}…"


def check_columns(root: str, labels: Sequence[str], columns: Iterable[str]) -> None:
    """Refuse columns that no record has.

    Args:
        root: for messages. columns: all that records have.

    Raises:
        DarkroomError: there is such a one.
    """
    there = {column.strip().lower(): column for column in columns}
    for label in labels:
        if label.lower() not in there:
            has = f"they have {printable(', '.join(there.values()))}" if there else "there is none"
            raise DarkroomError(
                f"{KEY} names {label!r}, but no record of a metadata table in {root} has it ({has}); "
                "name columns that are there, or leave it out"
            )


def heads_of(labels: Sequence[str], pictures: Mapping[str, tuple[str, ...]]) -> tuple[Head, ...]:
    """A head for each column, with its classes sorted.

    Args:
        pictures: picture -> its class in each column.

    Raises:
        DarkroomError: a column has no two classes, or so many that no network learns what they are.
    """
    heads = []
    for i, name in enumerate(labels):
        found = Counter(classes[i] for classes in pictures.values())
        n, remedy = len(found), f"leave it out of {KEY}"
        if pictures and n < 2:
            only = _quoted(next(iter(found)))
            all_pictures = f"in all {len(pictures)} pictures"
            raise DarkroomError(f"{KEY}: {name} is {only} {all_pictures}, so nothing is told by it; {remedy}")
        if n > MAX_CLASSES or 2 * n > len(pictures) > 2:
            raise DarkroomError(
                f"{KEY}: {name} has {n} classes in {len(pictures)} pictures; a class is what several pictures show, "
                f"two at least on average, and a label has {MAX_CLASSES} classes at most; {remedy}"
            )
        heads.append(Head(name, tuple(sorted(found))))
    return tuple(heads)
