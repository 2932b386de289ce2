"""Training the denoising U-Net on cached latents and cached conditions; neither VAE nor text encoder is in memory."""

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor, nn

from darkroom.core.choices import Precision
from darkroom.core.device import autocast
from darkroom.core.rng import batch_indices, generator
from darkroom.data.conditioning import Conditioning
from darkroom.data.latents import Latents
from darkroom.diffusion.guidance import drop_condition, dropout_mask
from darkroom.diffusion.objective import Objective
from darkroom.nn.unet import UNet2DConditionModel

LEVEL_BINS = 4  # held-out loss is reported for so many equal ranges of the training times


def predict(unet: nn.Module, x: Tensor, t: Tensor, given: Tensor | None) -> Tensor:
    """The U-Net's answer for raw conditions: embeddings (N, L, D), class ids (N,) or None."""
    assert isinstance(unet, UNet2DConditionModel)
    if given is None:
        output: Tensor = unet(x, t)
    elif given.ndim == 1:
        output = unet(x, t, class_labels=given)
    else:
        output = unet(x, t, context=unet.prepare_context(given))
    return output


class UNetTask:
    """The denoising loss of Ho et al. 2020 (eq. 14, generalised by `Objective`) with condition dropout.

    Everything random about sample i of step k (which sample, posterior noise, time, noise, dropout) is a pure function
    of (seed, purpose, k, i).

    Args:
        condition_dropout: the probability that a sample sees the null condition.
        batch_size: of a whole step, over all its parts.
        max_held_out: how many held-out samples the validation loss is measured on.
    """

    def __init__(
        self,
        unet: UNet2DConditionModel,
        objective: Objective,
        train: Latents,
        held_out: Latents,
        conditioning: Conditioning,
        *,
        condition_dropout: float,
        batch_size: int,
        max_held_out: int,
        seed: int,
        precision: Precision,
        device: torch.device,
    ) -> None:
        self.unet, self.objective = unet, objective
        self.train, self.held_out, self.conditioning = train, held_out, conditioning
        self.condition_dropout, self.batch_size = condition_dropout, batch_size
        self.max_held_out, self.seed = max_held_out, seed
        self.precision, self.device = precision, device

    def loss(self, step: int, rows: slice) -> Mapping[str, Tensor]:
        """The loss of `rows` of step `step`'s batch."""
        n, shape = self.batch_size, (self.batch_size, *self.train.shape)
        samples = batch_indices(len(self.train), n, step, self.seed)[rows]
        posterior = torch.randn(shape, generator=generator(self.seed, "posterior", step))[rows]
        eps = torch.randn(shape, generator=generator(self.seed, "noise", step))[rows]
        t = self.objective.draw_times(n, generator(self.seed, "time", step))[rows]
        given = self.conditioning.given("train", samples)
        if given is not None:
            mask = dropout_mask(n, self.condition_dropout, generator(self.seed, "dropout", step))[rows]
            assert self.conditioning.null is not None
            given = drop_condition(given, self.conditioning.null, mask)
        return {"loss": self._losses(self.unet, self.train.sample(samples, posterior), eps, t, given).mean()}

    def _losses(self, unet: nn.Module, x0: Tensor, eps: Tensor, t: Tensor, given: Tensor | None) -> Tensor:
        def network(x: Tensor, t: Tensor, condition: Any) -> Tensor:
            with autocast(self.device, self.precision):
                return predict(unet, x, t, condition)

        x0, eps, t = x0.to(self.device), eps.to(self.device), t.to(self.device)
        given = None if given is None else given.to(self.device)
        return self.objective.loss(network, x0, eps, t, given)

    @torch.no_grad()
    def validate(self, unet: nn.Module) -> dict[str, float]:
        """The mean loss on held-out samples, in all and by range of times; the same noise and times at every call."""
        n = min(len(self.held_out), self.max_held_out)
        shape = (n, *self.held_out.shape)
        posterior = torch.randn(shape, generator=generator(self.seed, "held-out posterior"))
        eps = torch.randn(shape, generator=generator(self.seed, "held-out noise"))
        t = self.objective.draw_times(n, generator(self.seed, "held-out time"))
        losses = []
        for rows in torch.arange(n).split(self.batch_size):
            given = self.conditioning.given("validation", rows)
            x0 = self.held_out.sample(rows, posterior[rows])
            losses.append(self._losses(unet, x0, eps[rows], t[rows], given).cpu())
        loss = torch.cat(losses)
        bins = t * LEVEL_BINS // self.objective.schedule.num_train_timesteps
        values = {"held_out/loss": float(loss.mean())}
        for b in range(LEVEL_BINS):
            if bool((bins == b).any()):
                low, high = (round(100 * edge / LEVEL_BINS) for edge in (b, b + 1))
                values[f"held_out_by_time/{low:02d}-{high}%"] = float(loss[bins == b].mean())
        return values
