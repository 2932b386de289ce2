"""Official splits, told from the names of folders, shards or files: the one place that knows how people name them.

A name says a split if one of its words does: train, `val2017`, Test-Images, cc3m-train-0000. Names that all say one,
and agree in what else they say, are splits. Names that say none are none. Anything between is refused, for whichever
way it were taken, pictures would land in a split, or become a class, that they do not belong to.
"""

import posixpath
import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from darkroom.core.errors import DarkroomError
from darkroom.core.text import printable
from darkroom.data.sources.base import SPLIT_ORDER

WORDS = {
    "train": "train",
    "training": "train",
    "val": "validation",
    "valid": "validation",
    "validation": "validation",
    "dev": "validation",
    "test": "test",
    "testing": "test",
    "eval": "test",
    "evaluation": "test",
    "novel": "novel",
}
# Words that stand beside a split's and say nothing.
FILLERS = (
    *("set", "sets", "data", "dataset", "datasets", "split", "splits", "subset", "raw", "full", "all", "final", "new"),
    *("part", "parts", "shard", "shards", "chunk", "batch", "batches", "folder", "folders", "dir", "file", "files"),
    *("image", "images", "img", "imgs", "picture", "pictures", "pic", "pics", "photo", "photos", "sample", "samples"),
    *("the", "of", "for", "and", "ver", "version", "tar", "jpg", "jpeg", "png", "webp"),
)
_ANY = "|".join(sorted(WORDS, key=len, reverse=True))
_GLUED = re.compile(rf"({_ANY})({'|'.join(sorted(FILLERS, key=len, reverse=True))})?")  # trainset, testimages
_SEVERAL = re.compile(rf"(?:{_ANY}){{2,}}")  # trainval
_PIECES = re.compile(r"[^\W\d_]+|\d+")
_CAMEL = re.compile(r"(?<=[a-z])(?=[A-Z])")
SHOWN = 4  # names of each group in a refusal
STRAY = "lies outside the folders of the splits"


@dataclass(frozen=True)
class SplitName:
    """What a name says. split: None where it says none. rest: its other words, without numbers and words that say
    nothing. numbered: it has a number. several: it says more than one split."""

    split: str | None
    rest: str = ""
    numbered: bool = False
    several: bool = False


def read_name(name: str) -> SplitName:
    """Read one part of a path, without its suffix."""
    splits: list[str] = []
    rest: list[str] = []
    numbered = several = False
    for piece in _PIECES.findall(_CAMEL.sub(" ", name)):
        word = piece.lower()
        glued = _GLUED.fullmatch(word)
        if glued:
            splits.append(WORDS[glued[1]])
        elif _SEVERAL.fullmatch(word):
            several = True
        elif word.isdigit():
            numbered = True
        elif word not in FILLERS and len(word) > 1:
            rest.append(word)
    several = several or len(set(splits)) > 1
    return SplitName(splits[0] if splits and not several else None, " ".join(sorted(rest)), numbered, several)


def of_pictures(root: str, pictures: Iterable[str], classes: bool) -> tuple[dict[str, str | None], int | None]:
    """(picture -> its split, held-out ones first; at which depth the folder lies that says so, or None).

    root: for messages. classes: do folders name classes, so that a lone `training_shoes` may be one?

    All are None without official splits. Pictures that lie outside the folders of two splits or more are left out of
    the result: a preview forgotten among them does not make test pictures training pictures.

    Raises:
        DarkroomError: some names say a split and others none, or one says several; or nothing is left to train on.
    """
    paths = [name.split("/") for name in pictures]
    for depth in range(max(map(len, paths), default=1) - 1):
        found = _at_depth(paths, depth, classes)
        if found is not None and (len(set(found.values())) > 1 or not _splits_below(paths, depth, classes)):
            return _ordered(root, {"/".join(p): found[p[depth]] for p in paths if len(p) > depth + 1}), depth
    _refuse_mixed(root, paths)
    return _of_file_names(root, ["/".join(path) for path in paths]), None


def of_shards(root: str, shards: Sequence[str]) -> dict[str, str | None]:
    """Shard -> its split, held-out ones first, by its own name and those of its folders.

    Raises:
        DarkroomError: as of_pictures.
    """
    found: dict[str, SplitName] = {}
    several: list[str] = []
    for shard in shards:
        words = [read_name(part) for part in posixpath.splitext(shard)[0].split("/")]
        said = [part for part in words if part.split]
        if len({part.split for part in said}) > 1 or any(part.several for part in words):
            several.append(shard)
        found[shard] = said[-1] if said else SplitName(None)
    _refuse_several(root, several, "shard")
    splits = {shard: name.split for shard, name in found.items()}
    none = [shard for shard, split in splits.items() if split is None]
    if len(none) == len(shards):
        return splits
    if none or (len(set(splits.values())) > 1 and not _agree(list(found.values()), False)):
        _refuse(root, [shard for shard in shards if splits[shard]], none, "shard")
    return _ordered(root, splits)


def check_members(shard: str, split: str | None, members: Iterable[str]) -> None:
    """Refuse a shard whose pictures' names say splits that it cannot have: it has one, or by its name none.

    Raises:
        DarkroomError: some do.
    """
    examples: dict[tuple[str, SplitName], str] = {}
    for member in members:
        folder, base = posixpath.split(member)
        said = read_name(posixpath.splitext(base)[0])
        examples.setdefault((folder, said if said.split else SplitName(None)), member)
    if split is None:
        by_name = {official for official in of_pictures(shard, examples.values(), False)[0].values() if official}
        wrong = sorted(by_name) if len(by_name) > 1 else []
    else:
        read = map(read_name, {part for folder, _ in examples for part in folder.split("/")})
        wrong = sorted({name.split for name in read if name.split and name.split != split and not name.rest})
    if wrong:
        raise DarkroomError(
            f"{shard}: its pictures are of several splits ({', '.join(wrong)}); pack a shard for "
            "each, and begin its name with train-, validation-, test- or novel-"
        )


def _at_depth(paths: list[list[str]], depth: int, classes: bool) -> dict[str, str] | None:
    """Folder at this depth -> its split, where each says one and they agree in the rest of their words."""
    there = {path[depth] for path in paths if len(path) > depth + 1}
    loose = any(len(path) <= depth + 1 for path in paths)
    names = {folder: read_name(folder) for folder in there}
    if not names or not _agree(list(names.values()), classes):
        return None
    splits = {folder: name.split for folder, name in names.items() if name.split}
    return None if loose and len(set(splits.values())) < 2 else splits


def _agree(names: list[SplitName], classes: bool) -> bool:
    """Does each say a split, and is what else they say no more than which data set it is of?

    `coco_train` beside `coco_val` is; `test tube` beside `training shoes` is not.
    """
    if any(name.split is None for name in names):
        return False
    splits = {name.split for name in names}
    if len(splits) == 1:
        return len({name.rest for name in names}) == 1 and not (classes and names[0].rest)
    trained = {name.rest for name in names if name.split == "train"} or {names[0].rest}
    return all(name.rest in trained for name in names)


def _splits_below(paths: list[list[str]], depth: int, classes: bool) -> bool:
    """Do folders below say two splits or more, as in test_data/train and test_data/val?"""
    return any(
        len(set((_at_depth(paths, below, classes) or {}).values())) > 1
        for below in range(depth + 1, max(map(len, paths)) - 1)
    )


def _of_file_names(root: str, pictures: list[str]) -> dict[str, str | None]:
    """Of pictures whose folders say nothing. A name is a split's if it holds nothing else but a number, for
    `steam train.jpg` may say what it shows."""
    names = {picture: read_name(posixpath.splitext(posixpath.basename(picture))[0]) for picture in pictures}
    if len({name.split for name in names.values()}) > 1 and _agree(list(names.values()), False):
        return _ordered(root, {picture: name.split for picture, name in names.items()})
    series = [picture for picture, name in names.items() if name.split and not name.rest and name.numbered]
    others = [picture for picture in pictures if picture not in set(series)]
    if series and (others or {names[picture].split for picture in series} != {"train"}):
        _refuse(root, series, others, "file")
    return dict.fromkeys(pictures)


def _ordered(root: str, splits: dict[str, str | None]) -> dict[str, str | None]:
    """Held-out splits first."""
    there = sorted({split for split in splits.values() if split})
    if "train" not in there:
        raise DarkroomError(
            f"{root}: by their names all pictures belong to {' and '.join(there)}, and none is left to train on; name "
            "a folder train, or, if these names are not splits, move all of it into one folder called train"
        )
    return dict(sorted(splits.items(), key=lambda item: SPLIT_ORDER.index(item[1] or "train")))


def _refuse_mixed(root: str, paths: list[list[str]]) -> None:
    """Where some folder says a split."""
    read = {folder: read_name(folder) for folder in sorted({folder for path in paths for folder in path[:-1]})}
    _refuse_several(root, [folder for folder, said in read.items() if said.several], "folder")
    splits = [folder for folder, said in read.items() if said.split]
    if splits:
        outside = ["/".join(path) for path in paths if not any(read[folder].split for folder in path[:-1])]
        _refuse(root, splits, [folder for folder in read if folder not in splits] or outside, "folder")


def _refuse_several(root: str, names: list[str], what: str) -> None:
    if names:
        raise DarkroomError(f"{root}: {_some(names)}: more than one split in the name of a {what}; {_remedy(what)}")


def _refuse(root: str, splits: list[str], others: list[str], what: str) -> None:
    beside = f", but others do not: {_some(others)}" if others else ", but also something else, as a class's might"
    raise DarkroomError(f"{root}: some {what} names say a split: {_some(splits)}{beside}; {_remedy(what)}")


def _remedy(what: str) -> str:
    if what == "shard":
        return "begin the name of each shard with train-, validation-, test- or novel-, or that of none"
    return (
        "name each split's folder train, validation, test or novel; or, if these words are not splits here, move all "
        "of it into one folder called train"
    )


def _some(names: list[str]) -> str:
    more = f" and {len(names) - SHOWN} more" if len(names) > SHOWN else ""
    return printable(", ".join(names[:SHOWN])) + more
