"""Batches for a denoiser, from rows of cached latents and conditions: the one place where samples are put together.

Everything random about sample i of step k (which sample, which of its captions, posterior noise, time, noise, dropout,
flip) is a pure function of (seed, purpose, k, i) and the batch size. Noise is drawn for the rows asked for alone; what
is one number a sample is drawn for the whole batch. The samples of a batch are of one size.
"""

from collections.abc import Callable, Hashable, Iterator
from dataclasses import dataclass
from functools import cached_property
from typing import NamedTuple

import torch
from torch import Tensor

from darkroom.config.sections import CaptionChoice
from darkroom.core.rng import generator, randn_rows
from darkroom.core.tensors import batches, shares
from darkroom.data.conditioning import Conditioning, one_variant
from darkroom.data.latents import Latents
from darkroom.data.rows import Rows
from darkroom.diffusion.guidance import drop_condition, dropout_mask
from darkroom.training.engine.batches import Batch
from darkroom.training.engine.context import TrainingContext
from darkroom.training.order import BatchOrder
from darkroom.training.samples import Part, parts_of

FLIPPED = 0.5  # share of the samples, where samples are mirrored at all
TRAIN, HELD_OUT = "train", "validation"
DrawTimes = Callable[[int, torch.Generator], Tensor]  # n, generator -> times (n,); see `Objective.draw_times`


class Samples(NamedTuple):
    """What a denoising loss is computed from.

    x0, eps: clean scaled latents and noise, (N, c, h, w) float32. t: times (N,).
    condition: raw, states (N, L, D) or class ids (N,); None without conditions.
    """

    x0: Tensor
    eps: Tensor
    t: Tensor
    condition: Tensor | None


@dataclass
class LatentBatches:
    """Training and held-out batches of one data set.

    condition_dropout: the probability that a training sample sees the null condition.
    horizontal_flip: half of the training samples, at random, are mirrored left to right. Only for latents that are
        pictures: those of an autoencoder are not those of the mirrored picture.
    max_held_out: how many held-out samples there are at most.
    captions: which caption of a picture with several is shown.
    """

    train: Latents
    held_out: Latents
    conditioning: Conditioning
    context: TrainingContext
    condition_dropout: float
    horizontal_flip: bool
    max_held_out: int
    captions: CaptionChoice = "each"

    def __post_init__(self) -> None:
        self.conditioning = self.conditioning.resident(self.context.device)

    @cached_property
    def train_parts(self) -> list[Part]:
        """The training samples of each size."""
        found = parts_of(self.train, self.conditioning.captions(TRAIN), self.captions == "each")
        return [part.resident(self.context.device) for part in found]

    @cached_property
    def held_out_parts(self) -> list[Part]:
        """The held-out samples of each size."""
        return parts_of(self.held_out, self.conditioning.captions(HELD_OUT), self.captions == "each")

    @cached_property
    def order(self) -> BatchOrder:
        """Which training samples each step takes."""
        return BatchOrder([len(part) for part in self.train_parts], self.context.batch_size, self.context.seed)

    @property
    def n_held_out(self) -> int:
        """How many held-out samples are measured."""
        return sum(self._measured)

    @property
    def _measured(self) -> list[int]:
        """How many of each size: its share of them."""
        return shares([len(part) for part in self.held_out_parts], self.max_held_out)

    def training_batch(self, step: int, rows: slice, draw_times: DrawTimes) -> Batch:
        """The batch for `rows` of a step: eps, t, posterior noise, dropped, mirrored.

        `mean`, `std` and `condition` hold row numbers where their table is on the device, else the rows themselves.
        """
        n, seed = self.context.batch_size, self.context.seed
        bucket, chosen = self.order.at(step)
        part, chosen = self.train_parts[bucket], chosen[rows]
        shape = part.latents.shape
        tensors = {
            "eps": randn_rows(rows, shape, seed, "noise", step),
            "t": draw_times(n, generator(seed, "time", step))[rows],
        }
        if part.latents.std is not None:
            tensors["posterior_noise"] = randn_rows(rows, shape, seed, "posterior", step)
        if self.conditioning.null is not None:
            dropped = dropout_mask(n, self.condition_dropout, generator(seed, "dropout", step))
            tensors["dropped"] = dropped[rows]
        if self.horizontal_flip:
            tensors["mirrored"] = torch.rand(n, generator=generator(seed, "flip", step))[rows] < FLIPPED

        def draw(purpose: str) -> Tensor:
            return torch.rand(n, generator=generator(seed, purpose, step))[rows]

        said = self._said(part, chosen, TRAIN, draw)
        return self._batch(tensors, (TRAIN, bucket), chosen, said, self.context.device)

    def held_out_batches(self, draw_times: DrawTimes) -> Iterator[Batch]:
        """The held-out samples in order, with the same noise, times and captions at every call; on the CPU."""
        seed = self.context.seed
        for bucket, (part, n) in enumerate(zip(self.held_out_parts, self._measured, strict=True)):
            key = (bucket,) if len(self.held_out_parts) > 1 else ()
            shape = (n, *part.latents.shape)
            tensors = {
                "posterior_noise": torch.randn(shape, generator=generator(seed, "held-out posterior", *key)),
                "eps": torch.randn(shape, generator=generator(seed, "held-out noise", *key)),
                "t": draw_times(n, generator(seed, "held-out time", *key)),
            }
            said = self.held_out_captions(bucket, torch.arange(n))
            for rows in batches(n, self.context.batch_size):
                mine = {name: x[rows] for name, x in tensors.items()}
                yield self._batch(mine, (HELD_OUT, bucket), rows, None if said is None else said[rows], rows.device)

    def held_out_captions(self, bucket: int, chosen: Tensor) -> Tensor | None:
        """What held-out samples (n,) of a size are asked to show: see `Conditioning.rows`."""
        part, seed = self.held_out_parts[bucket], self.context.seed

        def draw(purpose: str) -> Tensor:
            return torch.rand(len(part), generator=generator(seed, f"held-out {purpose}", bucket))[chosen]

        return self._said(part, chosen, HELD_OUT, draw)

    def to_show(self, n: int) -> list[tuple[int, int]]:
        """n held-out samples to look at, fewer where there are no more: (size, which of its samples), of all sizes in
        turn."""
        turns = sorted((i, bucket) for bucket, part in enumerate(self.held_out_parts) for i in range(min(n, len(part))))
        return [(bucket, i) for i, bucket in turns[:n]]

    def samples(self, batch: Batch) -> Samples:
        """Clean latents, noise, times and conditions of a batch, on the batch's device."""
        latents = self._part(batch.variant).latents

        def content(table: Rows, name: str) -> Tensor:
            numbered = table.device.type == batch["eps"].device.type
            return table[batch[name]] if numbered else batch[name]

        x0 = content(latents.mean, "mean").float()
        if latents.std is not None:
            x0 = x0 + content(latents.std, "std").float() * batch["posterior_noise"]
        x0 = x0 * latents.scaling_factor
        if "mirrored" in batch:
            x0 = torch.where(batch["mirrored"].view(-1, 1, 1, 1), x0.flip(3), x0)
        condition, of = None, self.conditioning
        if "condition" in batch:
            condition = batch["condition"] if of.table is None else of.states(content(of.table, "condition"))
        if condition is not None and of.null is not None and "dropped" in batch:
            condition = drop_condition(condition, of.null, batch["dropped"])
        return Samples(x0, batch["eps"], batch["t"], condition)

    def _part(self, variant: Hashable) -> Part:
        """The samples of a split and size, which is what tells batches apart."""
        assert isinstance(variant, tuple)
        split, bucket = variant
        return (self.train_parts if split == TRAIN else self.held_out_parts)[bucket]

    def _said(self, part: Part, chosen: Tensor, split: str, draw: Callable[[str], Tensor]) -> Tensor | None:
        """What samples (n,) of a size are asked to show; draw: purpose -> uniform numbers (n,)."""
        rows = self.conditioning.rows(split, part.caption_rows(chosen, self.captions, draw))
        return None if rows is None else one_variant(rows, draw)

    def _batch(
        self,
        tensors: dict[str, Tensor],
        variant: tuple[str, int],
        chosen: Tensor,
        said: Tensor | None,
        device: torch.device,
    ) -> Batch:
        """Samples (n,) of a split and size with what they are asked to show, see `Conditioning.rows`.

        With row numbers for tables on `device`, rows themselves for others; `samples` undoes it."""
        part = self._part(variant)
        numbers = part.latent_rows(chosen)
        contents = {"mean": _row_or_content(part.latents.mean, numbers, device)}
        if part.latents.std is not None:
            contents["std"] = _row_or_content(part.latents.std, numbers, device)
        if said is not None:
            table = self.conditioning.table
            contents["condition"] = said if table is None else _row_or_content(table, said, device)
        return Batch(tensors | contents, variant)


def _row_or_content(table: Rows, rows: Tensor, device: torch.device) -> Tensor:
    return rows if table.device.type == device.type else table[rows]
