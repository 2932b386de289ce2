"""Training the denoising network on cached latents and conditions, without VAE or text encoder in memory."""

from collections.abc import Callable, Mapping

import torch
from torch import Tensor

from darkroom.core.device import autocast
from darkroom.core.rng import batch_indices, generator
from darkroom.core.tensors import batches
from darkroom.data.conditioning import Conditioning
from darkroom.data.latents import Latents
from darkroom.diffusion.denoiser import Condition
from darkroom.diffusion.guidance import drop_condition, dropout_mask
from darkroom.diffusion.objective import Objective
from darkroom.diffusion.prediction import target
from darkroom.nn.denoiser.base import DenoisingNetwork
from darkroom.training.engine.batches import Batch, PreparedLoss
from darkroom.training.engine.context import TrainingContext

FLIPPED = 0.5  # share of the samples, where samples are mirrored at all
LEVEL_BINS = 4  # held-out loss is reported for so many equal ranges of the times


def condition_of(given: Tensor | None, device: torch.device) -> Condition:
    """Cached conditions, embeddings (N, L, D), class ids (N,) or None, on a device."""
    if given is None:
        return Condition()
    given = given.to(device)
    return Condition(class_ids=given) if given.ndim == 1 else Condition(tokens=given)


class UNetTask:
    """The denoising loss of Ho et al. 2020 (eq. 14, generalised by `Objective`) with condition dropout.

    Everything random about sample i of step k (which sample, posterior noise, time, noise, dropout, flip) is a pure
    function of (seed, purpose, k, i).

    Args:
        condition_dropout: the probability that a sample sees the null condition.
        horizontal_flip: half of the training samples, at random, are mirrored left to right. Only for latents that are
            pictures: those of an autoencoder are not those of the mirrored picture.
        max_held_out: how many held-out samples the validation loss is measured on.
    """

    def __init__(
        self,
        unet: DenoisingNetwork,
        objective: Objective,
        train: Latents,
        held_out: Latents,
        conditioning: Conditioning,
        *,
        condition_dropout: float,
        horizontal_flip: bool,
        max_held_out: int,
        setting: TrainingContext,
    ) -> None:
        self.unet, self.objective = unet, objective
        self.train, self.held_out = train.resident(setting.device), held_out
        self.conditioning = conditioning.resident(setting.device)
        self.condition_dropout, self.horizontal_flip = condition_dropout, horizontal_flip
        self.max_held_out, self.setting = max_held_out, setting
        self.loss = PreparedLoss(self._inputs, self._loss, setting.device)

    def _inputs(self, step: int, rows: slice) -> Batch:
        """What `rows` of step `step`'s batch are made of: row numbers of tables on the device, or their contents."""
        n, seed = self.setting.batch_size, self.setting.seed
        shape = (n, *self.train.shape)
        samples = batch_indices(len(self.train), n, step, seed)[rows]
        eps = torch.randn(shape, generator=generator(seed, "noise", step))[rows]
        made = {"eps": eps, "t": self.objective.draw_times(n, generator(seed, "time", step))[rows]}
        made["mean"] = self._row_or_content(self.train.mean, samples)
        if self.train.std is not None:
            made["std"] = self._row_or_content(self.train.std, samples)
            made["posterior"] = torch.randn(shape, generator=generator(seed, "posterior", step))[rows]
        condition = self.conditioning.rows("train", self.train.pictures(samples))
        if condition is not None:
            table = self.conditioning.embeddings
            made["condition"] = condition if table is None else self._row_or_content(table, condition)
            made["dropped"] = dropout_mask(n, self.condition_dropout, generator(seed, "dropout", step))[rows]
        if self.horizontal_flip:
            made["mirrored"] = torch.rand(n, generator=generator(seed, "flip", step))[rows] < FLIPPED
        return Batch(made)

    def _row_or_content(self, table: Tensor, rows: Tensor) -> Tensor:
        return rows if self._is_there(table) else table[rows]

    def _is_there(self, table: Tensor) -> bool:
        return table.device.type == self.setting.device.type

    def _loss(self, batch: Batch) -> Mapping[str, Tensor]:
        def found(table: Tensor, name: str) -> Tensor:
            return (table[batch[name]] if self._is_there(table) else batch[name]).float()

        x0 = found(self.train.mean, "mean")
        if self.train.std is not None:
            x0 = x0 + found(self.train.std, "std") * batch["posterior"]
        x0 = x0 * self.train.scaling_factor
        given, c = None, self.conditioning
        if c.null is not None:
            given = batch["condition"] if c.embeddings is None else found(c.embeddings, "condition")
            given = drop_condition(given, c.null, batch["dropped"])
        if self.horizontal_flip:
            x0 = torch.where(batch["mirrored"].view(-1, 1, 1, 1), x0.flip(3), x0)
        return {"loss": self._losses(self.unet, x0, batch["eps"], batch["t"], given).mean()}

    def _losses(self, unet: DenoisingNetwork, x0: Tensor, eps: Tensor, t: Tensor, given: Tensor | None) -> Tensor:
        device = self.setting.device

        def network(x: Tensor, t: Tensor) -> Tensor:
            with autocast(device, self.setting.precision):
                output: Tensor = unet(x, t, *unet.prepare(condition_of(given, device)))
            return output

        return self.objective.loss(network, x0.to(device), eps.to(device), t.to(device))

    @torch.no_grad()
    def validate(self, unet: DenoisingNetwork) -> dict[str, float]:
        """The mean loss on held-out samples, in all and by range of times; the same noise and times at every call."""
        loss, t = self._held_out(lambda *sample: self._losses(unet, *sample))
        bins = (t * LEVEL_BINS / self.objective.schedule.latest).long().clamp(max=LEVEL_BINS - 1)
        values = {"held_out/loss": float(loss.mean())}
        for b in range(LEVEL_BINS):
            if bool((bins == b).any()):
                low, high = (round(100 * edge / LEVEL_BINS) for edge in (b, b + 1))
                values[f"held_out_by_time/{low:02d}_to_{high}_percent"] = float(loss[bins == b].mean())
        return values

    @torch.no_grad()
    def by_chance(self) -> float:
        """The held-out loss, as `validate` measures it, of one prediction for everything: zero, or the mean target.

        The mean is over samples and levels, for each channel: of the noise about zero, of samples their mean colour.
        """
        objective = self.objective

        def targets(x0: Tensor, eps: Tensor, t: Tensor, given: Tensor | None) -> Tensor:
            return target(objective.prediction_type, x0, eps, objective.schedule.levels(t)).mean(dim=(2, 3))

        def loss(constant: Tensor) -> float:
            def measure(x0: Tensor, eps: Tensor, t: Tensor, given: Tensor | None) -> Tensor:
                return objective.loss(lambda x, t: constant.expand_as(x), x0, eps, t)

            return float(self._held_out(measure)[0].mean())

        mean = self._held_out(targets)[0].mean(dim=0).view(-1, 1, 1)
        return min(loss(torch.zeros_like(mean)), loss(mean))

    def _held_out(self, measure: Callable[[Tensor, Tensor, Tensor, Tensor | None], Tensor]) -> tuple[Tensor, Tensor]:
        """measure(x0, eps, t, raw condition) of the held-out samples, and their times: (n,) each, on the CPU."""
        n, seed = min(len(self.held_out), self.max_held_out), self.setting.seed
        shape = (n, *self.held_out.shape)
        posterior = torch.randn(shape, generator=generator(seed, "held-out posterior"))
        eps = torch.randn(shape, generator=generator(seed, "held-out noise"))
        t = self.objective.draw_times(n, generator(seed, "held-out time"))
        losses = []
        for rows in batches(n, self.setting.batch_size):
            given = self.conditioning.given("validation", rows)
            x0 = self.held_out.sample(rows, posterior[rows])
            losses.append(measure(x0, eps[rows], t[rows], given).cpu())
        return torch.cat(losses), t
