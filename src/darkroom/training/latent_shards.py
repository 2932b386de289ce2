"""The shards of the latent cache: pictures read and encoded, some thousand at a time, by anybody."""

from collections.abc import Iterator
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import torch
from torch import Tensor

from darkroom.config.base import Precision
from darkroom.core import device as devices
from darkroom.core.output_shards import Shard
from darkroom.core.progress import Progress
from darkroom.core.tasks import Kept
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


class Pictures:
    """The pictures of a split, and behind them, where they are `mirrored`, all once more from the other side."""

    def __init__(self, prepared: Path, split: str, n: int, mirrored: bool) -> None:
        self.split, self.n, self.mirrored = split, n, mirrored
        self._kept = Kept(partial(_split, prepared, split))

    def __len__(self) -> int:
        return self.n * (2 if self.mirrored else 1)

    def __call__(self, rows: Tensor) -> Tensor:
        """uint8 (n, C, H, W); rows: (n,) int64, all mirrored or none."""
        pictures = self._kept().images(rows % self.n)
        return pictures.flip(3) if int(rows[0]) >= self.n else pictures

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
        """Those of a split: each encodes its own rows in batches of its own, so that it does not matter who does it."""
        return [
            Shard(shard_name(pictures.split, number), partial(self.write, pictures, rows), len(rows))
            for number, rows in enumerate(shard_rows(len(pictures)))
        ]

    def write(self, pictures: Pictures, rows: range, path: Path) -> None:
        """Read, encode and write the rows of a shard."""
        vae = self.vae()
        with Progress(len(pictures), f"cache_latents {pictures.split}", "image") as bar:
            bar.start_at(rows.start)
            chosen = pictures.batches(rows, self.batch_size)
            moments = encode_batches(vae, pictures, chosen, self.precision, devices.current(), bar)
        write_shard(path, moments, isinstance(vae, IdentityAutoencoder))
