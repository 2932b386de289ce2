"""The words of the training captions, and the check of every prompt."""

import difflib
import logging
import re
import unicodedata
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from darkroom.core.artifact import COPY, read_json, write_json
from darkroom.core.errors import DarkroomError
from darkroom.core.limits import JSON_BYTES, LETTERS
from darkroom.core.text import check_text, printable

FILE = "words.json"  # in a pipeline's folder
MARK = "\ufeff"  # a byte order mark, which files that were joined have in their middle, and no terminal shows
UNSPACED = "\u0e00-\u0eff\u1000-\u109f\u1780-\u17ff\u3040-\u30ff\u3400-\u4dbf\u4e00-\u9fff\uf900-\ufaff"  # scripts
WORD = re.compile(rf"[{UNSPACED}]|[^\W_{UNSPACED}]+(?:['’][^\W_{UNSPACED}]+)*")
MOST_WORDS = 100_000  # that travel with a model
LONGEST = 1000  # letters of a word
LISTED, COMMONEST = 48, 12  # a model's words are all named up to so many, else so many of them
NAMED = 8  # unknown words that a remark names
COMPARED = 5000  # words among which a mistyped one is looked for
ALIKE = 0.75  # from which ratio of difflib on a word is offered in another's place
log = logging.getLogger("darkroom")


def check_prompt(text: object, what: str = "prompt") -> str:
    """A prompt as it is, if it is a text that a file can hold and a person can see.

    White space of any kind is one space to the tokenizer, and NFD is NFC to it; what is left of control characters, and
    byte order marks, would silently draw another picture.

    Args:
        what: which text it is, as messages say.

    Raises:
        DarkroomError: it is not; names the character.
    """
    if not isinstance(text, str):
        raise DarkroomError(f"{what} = {text!r}: give a text")
    LETTERS.check(f"{what}: number of letters", len(text), "write a shorter one")
    check_text(text, what)
    for i, letter in enumerate(text, 1):
        if letter == MARK or (unicodedata.category(letter) == "Cc" and not letter.isspace()):
            raise DarkroomError(
                f"{what} {printable(text)!r}: character {i} is U+{ord(letter):04X}, which is invisible; remove it"
            )
    return text


def check_prompts(prompts: Iterable[object], negatives: Iterable[object]) -> None:
    """See `check_prompt`."""
    for what, texts in (("prompt", prompts), ("negative_prompt", negatives)):
        for text in texts:
            check_prompt(text, what)


def without_marks(text: str) -> str:
    """A text that a file or a shell handed over, without byte order marks and white space around it."""
    return text.replace(MARK, "").strip()


def same_name(text: str) -> str:
    """Names that look the same, in NFC and NFD, as one."""
    return unicodedata.normalize("NFC", text)


def words_of(text: str) -> list[str]:
    """The words of a text: in lower case, NFC, without punctuation; in scripts without spaces, each letter is one."""
    return WORD.findall(same_name(text).lower())


@dataclass(frozen=True)
class Words:
    """The words of the training captions.

    words: the commonest first. distinct: how many there were; more than `words` where not all travel.
    """

    words: tuple[str, ...]
    distinct: int

    @classmethod
    def of(cls, captions: Iterable[str]) -> "Words":
        """The words of these captions, the commonest first, then in alphabetical order."""
        counts = Counter(word[:LONGEST] for caption in captions for word in words_of(caption))
        ordered = sorted(counts, key=lambda word: (-counts[word], word))
        return cls(tuple(ordered[:MOST_WORDS]), len(ordered))

    @classmethod
    def read(cls, folder: Path) -> "Words | None":
        """The words in a pipeline's folder; None where it has none.

        Raises:
            DarkroomError: the file is torn or not one of these.
        """
        path = folder / FILE
        if not path.is_file():
            return None
        value: Any = read_json(path, COPY, JSON_BYTES)
        try:
            words, distinct = value["words"], value["distinct"]
            if not isinstance(words, list) or not isinstance(distinct, int):
                raise TypeError("words and their number are wanted")
            for word in words:
                if not isinstance(word, str) or not word.isprintable() or len(word) > LONGEST:
                    raise TypeError(f"{printable(repr(word))} is not a word")
        except (KeyError, TypeError) as error:
            raise DarkroomError(f"{path}: is not a list of words ({error}); {COPY}") from None
        return cls(tuple(words), distinct)

    def write(self, folder: Path) -> None:
        """Write words.json into `folder`."""
        write_json(folder / FILE, {"words": list(self.words), "distinct": self.distinct})

    def unknown(self, texts: Iterable[str]) -> list[str]:
        """The words of these texts that no training caption holds, each once, in order."""
        known = set(self.words)
        return [word for word in dict.fromkeys(w for text in texts for w in words_of(text)) if word not in known]

    def remark(self, unknown: Sequence[str]) -> str:
        """A message on unknown words: which they are, similar known ones, and what the model knows."""
        listed = ", ".join(map(self._with_suggestion, unknown[:NAMED]))
        more = f" and {len(unknown) - NAMED} more" if len(unknown) > NAMED else ""
        whose = "the training captions" if len(self.words) == self.distinct else "the commonest of its training words"
        if len(self.words) <= LISTED:
            known = f"it knows {', '.join(sorted(self.words))}"
        else:
            known = f"it knows {self.distinct:,}, such as {', '.join(self.words[:COMMONEST])}; {FILE} lists them"
        return f"words that the model never saw: {listed}{more} are not among {whose}; {known}"

    def _with_suggestion(self, word: str) -> str:
        alike = difflib.get_close_matches(word, self.words[:COMPARED], 1, ALIKE)
        return f"{printable(word)} ({alike[0]}?)" if alike else printable(word)


class Remarks:
    """Messages on prompts and sizes that training never showed, each once.

    Args:
        side: pixels of a side of the training pictures. words: of their captions; None: not known.
        sizes: (height, width) of the training pictures, where they were not all squares of that side.
    """

    def __init__(self, side: int, words: Words | None, sizes: Sequence[Sequence[int]] = ()) -> None:
        self.side, self.words = side, words
        self._known = {(height, width) for height, width in sizes} or {(side, side)}
        self._mentioned: set[object] = set()

    def new(self, texts: Iterable[str], size: Sequence[int]) -> list[str]:
        """Remarks, a line each, on prompts and on pictures of a size (height, width) in pixels."""
        said, (height, width) = [], size
        if (height, width) not in self._known | self._mentioned:
            self._mentioned.add((height, width))
            known = " and ".join(f"{width} x {height}" for height, width in sorted(self._known))
            said.append(f"{width} x {height} pixels: the model was trained on {known} and may fail at others")
        unknown = self.words.unknown(texts) if self.words else []
        if self.words and (new := [word for word in unknown if word not in self._mentioned]):
            self._mentioned.update(new)
            said.append(self.words.remark(new))
        return said

    def warn(self, texts: Iterable[str], size: Sequence[int]) -> None:
        """Log what is new."""
        for remark in self.new(texts, size):
            log.warning("%s", remark)
