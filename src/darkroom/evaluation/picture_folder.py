"""A folder of pictures that anything drew, in the form of the data: each is read, or counted as one that was not."""

from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from darkroom.core.errors import DarkroomError
from darkroom.core.progress import track
from darkroom.core.rng import generator
from darkroom.core.text import plural, printable
from darkroom.data.images import SUFFIXES, Pixels, UnusablePictureError, conform, decode
from darkroom.data.manifest import Files
from darkroom.data.prepared import Info
from darkroom.data.sources.base import Sample, Skipped
from darkroom.data.sources.captioned_folder import CaptionedFolder, CaptionedFolderSource
from darkroom.data.sources.layout import picture_file, pictures_among
from darkroom.evaluation.caveats import Caveat, listed

GREY = ("1", "L", "LA", "La", "F")  # modes of pictures without colours, besides those of whole numbers: I;16, …


@dataclass(frozen=True)
class FolderPictures:
    """N pictures of a folder.

    names: relative, POSIX. pictures: uint8 (N, C, H, W), C and H = W as in the data.
    captions: of each, "" where it has none.
    caveats: what was left out or changed, and why.
    """

    names: list[str]
    pictures: Tensor
    captions: list[str]
    caveats: list[Caveat]


class _Captioned(CaptionedFolder):
    """All pictures, whichever split their names or tables say: none of them is trained on."""

    @cached_property
    def _by_folder(self) -> dict[str, str | None]:
        return dict.fromkeys(pictures_among(self.files))

    @cached_property
    def _names_splits(self) -> bool:
        return False


@dataclass
class _Looked:
    """What became of the pictures that were decoded."""

    names: list[str]
    pixels: list[Pixels]
    sizes: Counter[tuple[int, int]]
    grey: int
    unread: list[Skipped]


def has_pictures(folder: Path) -> bool:
    """Does a picture lie in this folder or below it?"""
    return any(name.lower().endswith(SUFFIXES) for name in _files(folder).names)


def read_folder(folder: Path, data: Info, most: int, seed: int, resize: str) -> FolderPictures:
    """At most so many pictures of a folder, chosen at random by `seed`, and the captions beside them.

    Args:
        data: whose size and channels they get. resize: see `images.conform`.

    Raises:
        DarkroomError: the folder cannot be read, or holds no picture that can.
    """
    reader = _Captioned(str(folder.resolve()))
    names = pictures_among(reader.files)
    captions, refused, strays = _captions(reader)
    order = torch.randperm(len(names), generator=generator(seed, "folder")).tolist()
    looked = _look(reader.files, [names[i] for i in order], most, data, resize)
    if not looked.names:
        reasons = listed(f"{one.file}: {one.reason}" for one in looked.unread)
        raise DarkroomError(f"{printable(folder)}: none of its {plural(len(names), 'picture')} can be read ({reasons})")
    chosen = sorted(range(len(looked.names)), key=lambda i: looked.names[i])
    found = [looked.names[i] for i in chosen]
    pixels = torch.from_numpy(np.stack([looked.pixels[i] for i in chosen]))
    pictures = pixels[:, None] if pixels.ndim == 3 else pixels.permute(0, 3, 1, 2).contiguous()
    caveats = _caveats(looked, len(names), pictures, data, resize)
    if captions:
        caveats += _of_captions(found, captions, refused, strays)
    return FolderPictures(found, pictures, [captions.get(name, "") for name in found], caveats)


def _files(folder: Path) -> Files:
    return Files(str(folder.resolve()), None, CaptionedFolderSource.suffixes)


def _captions(reader: CaptionedFolder) -> tuple[dict[str, str], dict[str, str], list[Skipped]]:
    """The first caption of each picture; why pictures have none; captions and records that no picture has."""
    captions: dict[str, str] = {}
    refused: dict[str, str] = {}
    strays: list[Skipped] = []
    for item in reader:
        if isinstance(item, Sample):
            captions[item.path] = item.caption
        elif item.picture:
            refused[item.file] = item.reason
        else:
            strays.append(item)
    return captions, refused, strays


def _look(files: Files, names: list[str], most: int, data: Info, resize: str) -> _Looked:
    """Decode pictures in this order until there are `most`."""
    looked = _Looked([], [], Counter(), 0, [])
    for name in track(names, min(len(names), most), "read", "picture"):
        if len(looked.names) == most:
            break
        file = picture_file(files, name)
        if isinstance(file, Skipped):
            looked.unread.append(file)
            continue
        try:
            image = decode(file.read())
            pixels = conform(image, data.image_size, data.channels, resize)
        except UnusablePictureError as error:
            looked.unread.append(Skipped(name, str(error)))
            continue
        looked.names.append(name)
        looked.pixels.append(pixels)
        looked.sizes[image.size] += 1
        looked.grey += _is_grey(image)
    return looked


def _is_grey(image: Image.Image) -> bool:
    return image.mode in GREY or image.mode.startswith("I")


def _caveats(looked: _Looked, there: int, pictures: Tensor, data: Info, resize: str) -> list[Caveat]:
    n, side = len(looked.names), data.image_size
    found = []
    if looked.unread:
        reasons = listed(f"{printable(one.file)}: {one.reason}" for one in looked.unread)
        found.append(
            Caveat("files", f"{plural(len(looked.unread), 'picture')} that cannot be read, left out: {reasons}")
        )
    if rest := there - n - len(looked.unread):
        found.append(Caveat("pictures", f"{plural(rest, 'picture')} of the folder left out, as {n} are judged"))
    found += of_sizes(looked.sizes, side, resize)
    colourless = int((pictures == pictures[:, :1]).flatten(1).all(dim=1).sum())
    if data.channels == 3 and colourless:
        said = f"{colourless} of {plural(n, 'picture')} have no colours, where the data have three channels"
        found.append(Caveat("colours", said))
    elif data.channels == 1 and looked.grey < n:
        said = f"{n - looked.grey} of {plural(n, 'picture')} are coloured; the data are grey, so their luma is judged"
        found.append(Caveat("colours", said))
    return found


def of_sizes(sizes: Counter[tuple[int, int]], side: int, resize: str) -> list[Caveat]:
    """What was done to pictures of these sizes (width, height), and how many there are of each, to be `side` square."""
    others = {size: count for size, count in sizes.items() if size != (side, side)}
    if not others:
        return []
    n, changed = sum(sizes.values()), sum(others.values())
    which = listed(f"{width} x {height}: {count}" for (width, height), count in sorted(others.items()))
    done = {"crop": "their centred square was", "pad": "on black, they were", "squash": "they were"}[resize]
    small = sum(count for size, count in others.items() if min(size) < side)
    enlarged = f"; {small} were smaller and so are blurred, which distances show" if small and resize != "pad" else ""
    return [
        Caveat(
            "size",
            f"{changed} of {plural(n, 'picture')} are not {side} x {side} as the data ({which}): {done} resized to that"
            f"{enlarged}",
        )
    ]


def _of_captions(
    names: Iterable[str], captions: dict[str, str], refused: dict[str, str], strays: list[Skipped]
) -> list[Caveat]:
    found = []
    without = [name for name in names if name not in captions]
    if without:
        reasons = listed(f"{printable(name)}: {refused[name]}" for name in without)
        found.append(
            Caveat("captions", f"{plural(len(without), 'picture')} without one, judged by distances alone: {reasons}")
        )
    if strays:
        reasons = listed(f"{printable(one.file)}: {one.reason}" for one in strays)
        found.append(
            Caveat("captions", f"{plural(len(strays), 'record')} or text that belongs to no picture: {reasons}")
        )
    return found
