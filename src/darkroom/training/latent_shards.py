"""The shards of the latent cache: pictures read and encoded, some thousand at a time, by anybody."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from itertools import pairwise
from pathlib import Path

import torch
from torch import Tensor

from darkroom.config.base import Precision
from darkroom.core import device as devices
from darkroom.core.output_shards import Shard
from darkroom.core.progress import Progress
from darkroom.core.tasks import Kept
from darkroom.core.tensors import shares
from darkroom.data.latents import shard_name, shard_rows, write_shard
from darkroom.data.prepared import Prepared, PreparedSplit
from darkroom.nn.autoencoder.identity import Autoencoder, IdentityAutoencoder
from darkroom.training.autoencoder import encode_batches
from darkroom.training.trained import read_autoencoder


def kept_autoencoder(folder: Path) -> Kept[Autoencoder]:
    """artifacts/vae, on the device of the process that needs it."""
    return Kept(partial(_autoencoder, folder))


def _autoencoder(folder: Path) -> Autoencoder:
    return read_autoencoder(folder, devices.current())


def _split(prepared: Path, name: str) -> PreparedSplit:
    return Prepared.open(prepared).split(name, in_memory=False)


class _Source:
    """A split, and the first row (N,) int64 of each of its pictures."""

    def __init__(self, split: PreparedSplit) -> None:
        self.split, self.first = split, split.first_rows


def _source(prepared: Path, name: str) -> _Source:
    return _Source(_split(prepared, name))


class Pictures:
    """The pictures of a split, each once, whatever the number of its captions; and behind them, where they are
    `mirrored`, all once more from the other side.

    Args:
        n: how many there are. ends: where those of each size end; none where they are of one size.
    """

    def __init__(self, prepared: Path, split: str, n: int, mirrored: bool, ends: Sequence[int] = ()) -> None:
        self.split, self.n, self.mirrored = split, n, mirrored
        self.ends = [*ends] if len(ends) > 1 else [n * (2 if mirrored else 1)]
        if len(ends) > 1 and mirrored:
            self.ends += [n + end for end in ends]
        self._kept = Kept(partial(_source, prepared, split))

    @classmethod
    def of(cls, prepared: Path, name: str, mirrored: bool) -> "Pictures":
        """Those of a split of the prepared data."""
        split = _split(prepared, name)
        first = split.first_rows
        ends = [int((first < run.stop).sum()) for run in split.runs]
        return cls(prepared, name, len(first), mirrored, ends)

    def __len__(self) -> int:
        return self.n * (2 if self.mirrored else 1)

    def __call__(self, rows: Tensor) -> Tensor:
        """uint8 (n, C, H, W); rows: (n,) int64, all mirrored or none, and of one size."""
        pictures = self._kept().split.images(self.prepared_rows(rows))
        return pictures.flip(3) if int(rows[0]) >= self.n else pictures

    def prepared_rows(self, rows: Tensor) -> Tensor:
        """The rows (n,) of the split that pictures `rows` (n,) first stand in."""
        return self._kept().first[rows % self.n]

    @property
    def runs(self) -> list[range]:
        """The rows that are of one size."""
        return [range(start, end) for start, end in pairwise([0, *self.ends]) if end > start]

    def spread(self, n: int) -> list[Tensor]:
        """Of each size its share of n pictures, the first ones, none mirrored: rows (m,) int64 each."""
        runs = [range(run.start, min(run.stop, self.n)) for run in self.runs if run.start < self.n]
        pairs = zip(runs, shares([*map(len, runs)], n), strict=True)
        return [torch.arange(run.start, run.start + count) for run, count in pairs if count]

    def batches(self, rows: range, size: int) -> Iterator[Tensor]:
        """Rows in order, int64, `size` at a time from the first on, and from the first mirrored one on."""
        ends = sorted({rows.stop, min(max(self.n, rows.start), rows.stop)})
        start = rows.start
        for end in ends:
            for first in range(start, end, size):
                yield torch.arange(first, min(first + size, end))
            start = end


@dataclass(frozen=True)
class Encoding:
    """How pictures are encoded: see `training.autoencoder.encode`."""

    vae: Kept[Autoencoder]
    batch_size: int
    precision: Precision

    def shards(self, pictures: Pictures) -> list[Shard]:
        """Those of a split: each encodes its own rows, which are of one size, in batches of its own, so that it does
        not matter who does it."""
        all_rows = [
            range(run.start + rows.start, run.start + rows.stop)
            for run in pictures.runs
            for rows in shard_rows(len(run))
        ]
        return [
            Shard(shard_name(pictures.split, number), partial(self.write, pictures, rows), len(rows))
            for number, rows in enumerate(all_rows)
        ]

    def write(self, pictures: Pictures, rows: range, path: Path) -> None:
        """Read, encode and write the rows of a shard."""
        vae = self.vae()
        with Progress(len(pictures), f"cache_latents {pictures.split}", "image") as bar:
            bar.start_at(rows.start)
            chosen = pictures.batches(rows, self.batch_size)
            moments = encode_batches(vae, pictures, chosen, self.precision, devices.current(), bar)
        write_shard(path, moments, isinstance(vae, IdentityAutoencoder))
