"""The latent cache: what the VAE makes of every picture, as posterior moments, never as one frozen sample.

data/latents/: {split}-00000.safetensors with `mean` and (unless the autoencoder is deterministic) `logvar`, fp16
(n, c, h, w) of SHARD_ROWS rows, whose height and width each shard has for itself; preview.safetensors, the linear map
to RGB; config.json, a `LatentsInfo`; provenance.json.
"""

import copy
import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from darkroom.core.artifact import CONFIG, load_tensors, read_json, save_tensors, write_json
from darkroom.core.errors import DarkroomError
from darkroom.core.tensors import psnr
from darkroom.data.rows import Rows

SHARD_ROWS = 4096  # of all shards of a split but the last


@dataclass(frozen=True)
class LatentsInfo:
    """What a cache holds.

    scaling_factor: the one scalar latents are multiplied with before diffusion and divided by before decoding.
    scaling: how it came about: "measured" (1 / standard deviation over the training split), "imported" or "none" (1).
    shape: (channels, height, width) of a latent; with buckets, of that of a square picture of image_size.
    deterministic: the moments are a mean alone (identity autoencoder).
    splits: {name: number of latents}. variants: latents of each training picture; latent i is of picture i modulo the
    number of pictures, as it is first and then mirrored.
    """

    scaling_factor: float
    scaling: str
    shape: tuple[int, int, int]
    deterministic: bool
    splits: dict[str, int]
    variants: int = 1


class PreviewMap:
    """A linear map from scaled latents to RGB, for live previews without the decoder.

    Fitted by least squares on latents and their pictures, averaged down to the latents' size. The latents have to be
    samples of the posteriors, as the denoiser draws them: a channel that holds nothing but the posterior's noise
    varies little in the means, and would be given a large weight, with which the noise of samples covers the picture.
    """

    def __init__(self, weight: Tensor, bias: Tensor) -> None:
        self.weight, self.bias = weight, bias

    def __call__(self, latents: Tensor) -> Tensor:
        """Scaled latents (N, c, h, w) -> pictures (N, C, h, w) in about [-1, 1]."""
        return torch.einsum("oc,nchw->nohw", self.weight, latents.float()) + self.bias.view(1, -1, 1, 1)

    @staticmethod
    def fit(latents: Tensor, images: Tensor) -> "PreviewMap":
        """Fit to scaled latents (N, c, h, w) and pictures (N, C, H, W) in [-1, 1]."""
        return PreviewMap.fit_all([(latents, images)])

    @staticmethod
    def fit_all(pairs: Sequence[tuple[Tensor, Tensor]]) -> "PreviewMap":
        """The same, to those of several sizes."""
        small = [(latents, _averaged(images, latents)) for latents, images in pairs]
        x, y = (torch.cat([of[i].movedim(1, -1).flatten(0, -2) for of in small]).double() for i in (0, 1))
        x = torch.cat([x, torch.ones_like(x[:, :1])], dim=1)
        gram = x.T @ x + 1e-6 * len(x) * torch.eye(x.shape[1], dtype=x.dtype)
        solution = torch.linalg.solve(gram, x.T @ y).float()
        return PreviewMap(solution[:-1].T.contiguous(), solution[-1])

    def psnr(self, latents: Tensor, images: Tensor) -> float:
        """How like the pictures (N, C, H, W), averaged down to the latents' size, the map is: dB, peak 2."""
        return self.psnr_of_all([(latents, images)])

    def psnr_of_all(self, pairs: Sequence[tuple[Tensor, Tensor]]) -> float:
        """The same, of latents and pictures of several sizes."""
        squares = [(self(latents).clamp(-1, 1) - _averaged(images, latents)).square() for latents, images in pairs]
        mean = squares[0].mean() if len(squares) == 1 else torch.cat([of.flatten() for of in squares]).mean()
        return psnr(float(mean))


def _averaged(images: Tensor, latents: Tensor) -> Tensor:
    """Pictures (N, C, H, W) in the size of latents (N, c, h, w)."""
    return torch.nn.functional.adaptive_avg_pool2d(images, (latents.shape[-2], latents.shape[-1]))


Moments = tuple[Tensor, Tensor]  # mean and logvar, each (N, c, h, w)


def measured_scaling_factor(moments: Moments) -> float:
    """1 / the standard deviation of samples from the posteriors, over all their elements."""
    mean, logvar = (m.float() for m in moments)
    variance = float(mean.var()) + float(logvar.exp().mean())
    return 1 / math.sqrt(max(variance, 1e-12))


def shard_rows(rows: int) -> list[range]:
    """The rows of each shard of a split that has so many, in order."""
    return [range(start, min(start + SHARD_ROWS, rows)) for start in range(0, rows, SHARD_ROWS)]


def shard_name(split: str, number: int) -> str:
    """The file of a split's shard, from 0."""
    return f"{split}-{number:05d}.safetensors"


def write_shard(path: Path, moments: Moments, deterministic: bool) -> None:
    """Write the moments (n, c, h, w) each of one shard's rows, which say by themselves how high and wide they are."""
    mean, logvar = moments
    save_tensors(path, {"mean": mean.half()} if deterministic else {"mean": mean.half(), "logvar": logvar.half()})


def write_description(folder: Path, info: LatentsInfo, preview: PreviewMap) -> None:
    """Write to a cache's folder what is not its shards."""
    save_tensors(folder / "preview.safetensors", {"weight": preview.weight, "bias": preview.bias})
    write_json(folder / CONFIG, asdict(info))


def write_latents(folder: Path, moments: Mapping[str, Moments], info: LatentsInfo, preview: PreviewMap) -> None:
    """Write a cache to `folder` (which the caller makes appear whole). moments: {split: (mean, logvar)}."""
    folder.mkdir(parents=True)
    for split, (mean, logvar) in moments.items():
        for number, rows in enumerate(shard_rows(info.splits[split])):
            part = slice(rows.start, rows.stop)
            write_shard(folder / shard_name(split, number), (mean[part], logvar[part]), info.deterministic)
    write_description(folder, info, preview)


def read_info(folder: Path | str) -> LatentsInfo:
    """The cache's config.json."""
    values: dict[str, Any] = read_json(Path(folder) / CONFIG)
    return LatentsInfo(**{**values, "shape": tuple(values["shape"])})


def read_preview(folder: Path | str) -> PreviewMap:
    """The cache's linear map to RGB."""
    tensors = load_tensors(Path(folder) / "preview.safetensors")
    return PreviewMap(tensors["weight"], tensors["bias"])


def _std(logvar: Tensor) -> Tensor:
    return (0.5 * logvar.float()).exp().half()


class Latents:
    """One split of a latent cache: posterior moments in fp16, of which only the rows asked for are read."""

    def __init__(
        self, mean: Tensor | Rows, logvar: Tensor | Rows | None, scaling_factor: float, variants: int = 1
    ) -> None:
        self.mean, self.scaling_factor, self.variants = Rows.of(mean), scaling_factor, variants
        self.std = None if logvar is None else Rows.of(logvar).then(_std)

    def __len__(self) -> int:
        return len(self.mean)

    def pictures(self, indices: Tensor) -> Tensor:
        """The pictures (n,) that latents `indices` (n,) are of."""
        return indices % (len(self) // self.variants)

    def by_shape(self) -> "list[tuple[Tensor, Latents]]":
        """The numbers (n,) int64 of the latents of each shape, and those by themselves, in the order in which shapes
        first come."""
        found, means = [], self.mean.by_shape()
        stds = [None] * len(means) if self.std is None else [std for _, std in self.std.by_shape()]
        for (numbers, mean), std in zip(means, stds, strict=True):
            part = copy.copy(self)
            part.mean, part.std = mean, std
            found.append((numbers, part))
        return found

    @property
    def shape(self) -> tuple[int, ...]:
        """(channels, height, width).

        Raises:
            DarkroomError: the shards differ in it.
        """
        return self.mean.shape

    @classmethod
    def read(cls, folder: Path | str, split: str) -> "Latents":
        """Map a split of the cache at `folder`.

        Raises:
            DarkroomError: the cache has no such split, or a shard of it is torn.
        """
        info = read_info(folder)
        shards = sorted(Path(folder).glob(f"{split}-*.safetensors"))
        if not shards:
            raise DarkroomError(f"{folder}: no split {split!r}, only {', '.join(info.splits)}; rerun cache_latents")
        mean = Rows.mapped(shards, "mean")
        logvar = None if info.deterministic else Rows.mapped(shards, "logvar")
        return cls(mean, logvar, info.scaling_factor, info.variants if split == "train" else 1)

    def resident(self, device: torch.device) -> "Latents":
        """The same, with those of its tables that are not too large for that on `device`."""
        other = copy.copy(self)
        other.mean = self.mean.resident(device).at_random()
        other.std = None if self.std is None else self.std.resident(device).at_random()
        return other

    def sample(self, indices: Tensor, noise: Tensor) -> Tensor:
        """Draw from the posteriors of samples `indices` (n,): scaled latents (n, c, h, w), float32.

        Args:
            noise: Gaussian, (n, c, h, w); not used by a deterministic cache.
        """
        latents = self.mean[indices].float()
        if self.std is not None:
            latents = latents + self.std[indices].float() * noise
        return latents * self.scaling_factor
