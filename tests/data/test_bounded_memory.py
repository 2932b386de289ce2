"""What is remembered of every picture: at most 128 bytes each in memory, whatever lies on disk."""

import hashlib
import subprocess
import sys
import tracemalloc
from collections.abc import Iterator
from pathlib import Path
from typing import cast

import numpy as np
import pytest
import torch

from darkroom.core.rng import batch_indices
from darkroom.data.buckets import Cropped
from darkroom.data.decoded import Decoded
from darkroom.data.halves import halves
from darkroom.data.near_duplicates import NearDuplicates
from darkroom.data.prepare import _Books
from darkroom.data.prepared import PreparedSplit
from darkroom.data.prepared_writer import Row
from darkroom.data.repeats import Firsts
from tests.support.memory import STATUS, anonymous_bytes
from tests.support.settings import preparation

MOST = 128  # bytes a picture
ROOT = Path(__file__).parents[2]
HELD_OUT, ALIKE = 100, 1000  # of so many pictures one is held out, and one is like another
LONG = (100_000, 200_000), pytest.mark.slow
CASES = [
    pytest.param((5_000, 20_000), "RssAnon", id="20k"),
    pytest.param(LONG[0], "RssAnon", marks=LONG[1], id="200k"),
    pytest.param(LONG[0], "tracemalloc", marks=LONG[1], id="200k objects"),
]


@pytest.mark.parametrize(("sizes", "measured"), CASES)
def test_memory_of_a_picture(sizes: tuple[int, int], measured: str) -> None:
    """Fails if repeats, captions, near-duplicates or the order of a training keep Python objects of every picture:
    digests, splits and names took 400 bytes each, thumbnails 192, and the tree of those held out 1.5 kB of each."""
    if not STATUS.is_file():
        pytest.skip("only Linux tells a file's memory from a process's own")
    few, many = (in_a_process_of_its_own(pictures, measured) for pictures in sizes)
    assert (many - few) / (sizes[1] - sizes[0]) <= MOST


def test_telling_the_halves_keeps_no_picture() -> None:
    """Fails if small results are kept between the pictures of each batch: the allocator then gives none of them back,
    which took all pictures' 3 kB each, three times in four."""
    if not STATUS.is_file():
        pytest.skip("only Linux tells a file's memory from a process's own")
    few, many = (in_a_process_of_its_own(pictures, call="halved") for pictures in (5_000, 40_000))
    assert (many - few) / 35_000 <= 512  # a sixth of a picture; its half takes 8, the rest is the allocator's


def test_what_is_booked_of_a_picture() -> None:
    """Fails if the account keeps Python objects of every picture: the number of each, where captions may come later,
    took 230 bytes."""
    if not STATUS.is_file():
        pytest.skip("only Linux tells a file's memory from a process's own")
    few, many = (in_a_process_of_its_own(pictures, call="booked") for pictures in (5_000, 40_000))
    assert (many - few) / 35_000 <= MOST


def in_a_process_of_its_own(pictures: int, *more: str, call: str = "remember") -> int:
    code = f"from tests.data.test_bounded_memory import {call}; print({call}(*{(pictures, *more)!r}))"
    done = subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, text=True, cwd=ROOT)
    return int(done.stdout)


class Noise:
    """Answers as a split does."""

    def __init__(self, pictures: int) -> None:
        self._pictures = pictures

    def __len__(self) -> int:
        return self._pictures

    def by_size(self, rows: torch.Tensor) -> Iterator[tuple[torch.Tensor, torch.Tensor]]:
        """Of one size, others each time."""
        yield torch.arange(len(rows)), torch.randint(0, 256, (len(rows), 3, 32, 32), dtype=torch.uint8)


def halved(pictures: int) -> int:
    """Bytes that are kept of so many pictures once their halves are known."""
    before = anonymous_bytes()
    half = halves(cast(PreparedSplit, Noise(pictures)))
    assert 0 < int(half.sum()) < pictures
    return anonymous_bytes() - before


def booked(pictures: int) -> int:
    """Bytes that are kept of so many pictures once they are entered, each twice with another caption."""
    before = anonymous_bytes()
    books = _Books(preparation(repeats="merge_captions"), lambda split, row: None, Firsts(), Cropped())
    for number in range(2 * pictures):
        i = number % pictures
        row = Row(np.zeros((1, 1, 3), np.uint8), f"{number:08d}.jpg", str(number), (), ())
        books.enter(Decoded(None, [row], None, hashlib.blake2b(str(i).encode(), digest_size=16).digest()))
    assert books.account.kept == books.account.repeats_within_splits == pictures
    return anonymous_bytes() - before


def remember(pictures: int, measured: str) -> int:
    """Bytes at the peak of taking note of so many pictures, and of looking for near-duplicates among them."""
    if measured == "tracemalloc":
        tracemalloc.start()
    before, most = anonymous_bytes(), 0
    firsts, near = Firsts(), NearDuplicates()
    noise = np.random.default_rng(0).integers(0, 256, (16_384, 8, 8, 3), dtype=np.uint8)
    before_it = noise[0]
    for i in range(pictures):
        split = "test" if i % HELD_OUT == 0 else "train"
        of = hashlib.blake2b(str(i).encode(), digest_size=16).digest()
        firsts.split_of(of)
        firsts.note(of, split, f"pictures/of/a/folder/{i:08d}.jpg")
        firsts.is_new(of, f"a caption of picture {i}")
        pixels = noise[i % len(noise)] ^ np.uint8(i // len(noise) * 16)  # each its own, 16 grey levels and more apart
        if i % ALIKE == 1:
            pixels = before_it ^ np.uint8(1)
        before_it = pixels
        near.add(split, Row(pixels, f"pictures/of/a/folder/{i:08d}.jpg", "", (), ()))
    for step in (0, pictures // 64):  # the orders of two epochs
        batch_indices(pictures, 64, step, seed=0)
    found = 0
    for _ in near.found():
        found += 1
        most = max(most, anonymous_bytes())
    assert found == pictures // ALIKE
    return tracemalloc.get_traced_memory()[1] if measured == "tracemalloc" else most - before
