"""Batches for a denoiser, from rows of cached latents and conditions: the one place where samples are put together.

Everything random about sample i of step k (which sample, posterior noise, time, noise, dropout, flip) is a pure
function of (seed, purpose, k, i) and the batch size. Noise is drawn for the rows asked for alone; what is one number a
sample is drawn for the whole batch.
"""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import NamedTuple

import torch
from torch import Tensor

from darkroom.core.rng import batch_indices, generator, randn_rows
from darkroom.core.tensors import batches
from darkroom.data.conditioning import Conditioning
from darkroom.data.latents import Latents
from darkroom.data.rows import Rows
from darkroom.diffusion.guidance import drop_condition, dropout_mask
from darkroom.training.engine.batches import Batch
from darkroom.training.engine.context import TrainingContext

FLIPPED = 0.5  # share of the samples, where samples are mirrored at all
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
    """

    train: Latents
    held_out: Latents
    conditioning: Conditioning
    context: TrainingContext
    condition_dropout: float
    horizontal_flip: bool
    max_held_out: int

    def __post_init__(self) -> None:
        self.train = self.train.resident(self.context.device)
        self.conditioning = self.conditioning.resident(self.context.device)

    @property
    def n_held_out(self) -> int:
        """How many held-out samples are measured."""
        return min(len(self.held_out), self.max_held_out)

    def training_batch(self, step: int, rows: slice, draw_times: DrawTimes) -> Batch:
        """The batch for `rows` of a step: eps, t, posterior noise, dropped, mirrored.

        `mean`, `std` and `condition` hold row numbers where their table is on the device, else the rows themselves.
        """
        n, seed = self.context.batch_size, self.context.seed
        shape = self.train.shape
        indices = batch_indices(len(self.train), n, step, seed)[rows]
        tensors = {
            "eps": randn_rows(rows, shape, seed, "noise", step),
            "t": draw_times(n, generator(seed, "time", step))[rows],
        }
        if self.train.std is not None:
            tensors["posterior_noise"] = randn_rows(rows, shape, seed, "posterior", step)
        if self.conditioning.null is not None:
            dropped = dropout_mask(n, self.condition_dropout, generator(seed, "dropout", step))
            tensors["dropped"] = dropped[rows]
        if self.horizontal_flip:
            tensors["mirrored"] = torch.rand(n, generator=generator(seed, "flip", step))[rows] < FLIPPED
        condition = self.conditioning.rows("train", self.train.pictures(indices))
        return Batch(tensors | self._contents(self.train, indices, condition, self.context.device))

    def held_out_batches(self, draw_times: DrawTimes) -> Iterator[Batch]:
        """The held-out samples in order, with the same noise and times at every call; on the CPU."""
        n, seed = self.n_held_out, self.context.seed
        shape = (n, *self.held_out.shape)
        tensors = {
            "posterior_noise": torch.randn(shape, generator=generator(seed, "held-out posterior")),
            "eps": torch.randn(shape, generator=generator(seed, "held-out noise")),
            "t": draw_times(n, generator(seed, "held-out time")),
        }
        for rows in batches(n, self.context.batch_size):
            condition = self.conditioning.rows("validation", rows)
            contents = self._contents(self.held_out, rows, condition, rows.device)
            yield Batch({name: x[rows] for name, x in tensors.items()} | contents)

    def samples(self, batch: Batch, latents: Latents) -> Samples:
        """Clean latents, noise, times and conditions of a batch of `latents`, on the batch's device."""

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

    def _contents(
        self, latents: Latents, indices: Tensor, condition: Tensor | None, device: torch.device
    ) -> dict[str, Tensor]:
        """Row numbers for tables on `device`, rows themselves for others; `samples` undoes it."""
        contents = {"mean": _row_or_content(latents.mean, indices, device)}
        if latents.std is not None:
            contents["std"] = _row_or_content(latents.std, indices, device)
        if condition is not None:
            table = self.conditioning.table
            contents["condition"] = condition if table is None else _row_or_content(table, condition, device)
        return contents


def _row_or_content(table: Rows, rows: Tensor, device: torch.device) -> Tensor:
    return rows if table.device.type == device.type else table[rows]
