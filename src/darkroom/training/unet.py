"""Training the denoising network on cached latents and conditions, without VAE or text encoder in memory."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict
from functools import partial
from typing import Any

import torch
from torch import Tensor

from darkroom.config.denoisers import DenoiserSizes, DenoiserSpec
from darkroom.config.sections import TrainUNet
from darkroom.config.training import Optimization
from darkroom.core.device import autocast
from darkroom.data.conditioning import ConditioningInfo
from darkroom.data.latents import LatentsInfo
from darkroom.diffusion.denoiser import Condition
from darkroom.diffusion.objective import Objective
from darkroom.diffusion.prediction import target
from darkroom.nn.denoiser.adapted import AdaptedDenoiser
from darkroom.nn.denoiser.base import DenoisingNetwork
from darkroom.training.engine.batches import Batch, Loss
from darkroom.training.engine.blank import denoised
from darkroom.training.engine.chance import Reached
from darkroom.training.engine.phase import Phase
from darkroom.training.engine.task import Task
from darkroom.training.engine.throughput import TRAINING, flops
from darkroom.training.latent_batches import LatentBatches, Samples

LEVEL_BINS = 4  # held-out loss is reported for so many equal ranges of the times


def spec_of(p: TrainUNet, latent: Sequence[int], condition: ConditioningInfo) -> DenoiserSpec:
    """The network that is trained on latents of the shape (c, h, w) under such conditions."""
    sizes = DenoiserSizes(
        in_channels=latent[0],
        sample_size=latent[-1],
        cross_attention_dim=condition.dim if condition.of_text else None,
        num_classes=len(condition.classes) or None,
    )
    return DenoiserSpec(network=p.unet, sizes=sizes)


def description(p: TrainUNet, latents: LatentsInfo, condition: ConditioningInfo) -> dict[str, Any]:
    """The config.json of a U-Net that was trained with these parameters: all that drawing with it takes."""
    return {
        **spec_of(p, latents.shape, condition).model_dump(),
        "process": p.process.model_dump(),
        "prediction_type": p.objective.prediction_type,
        "condition": asdict(condition),
        "latents": asdict(latents),
    }


def condition_of(raw: Tensor | None, device: torch.device) -> Condition:
    """Cached conditions, embeddings (N, L, D), class ids (N,) or None, on a device."""
    if raw is None:
        return Condition()
    raw = raw.to(device)
    return Condition(class_ids=raw) if raw.ndim == 1 else Condition(tokens=raw)


class UNetTask(Task[DenoisingNetwork]):
    """The denoising loss of Ho et al. 2020 (eq. 14, generalised by `Objective`) with condition dropout."""

    stage = description = "train_unet"
    best_by = "held_out/loss"
    shards = True

    def __init__(
        self, unet: DenoisingNetwork, objective: Objective, data: LatentBatches, accumulation: int = 1
    ) -> None:
        self.network, self.objective, self.data, self.accumulation = unet, objective, data, accumulation
        self.context = data.context
        self.shards = not isinstance(unet, AdaptedDenoiser)  # whose frozen weights are what would be divided
        self.loss = Loss(lambda step, rows: self.data.training_batch(step, rows, self.objective.draw_times), self._loss)

    def phases(self, config: Optimization) -> list[Phase]:
        """See `Task`."""
        return [Phase("", self.network, config, self.loss)]

    def _loss(self, batch: Batch) -> Mapping[str, Tensor]:
        return {"loss": self._losses(self.network, self.data.samples(batch)).mean()}

    def _losses(self, unet: DenoisingNetwork, samples: Samples) -> Tensor:
        device = self.context.device

        def network(x: Tensor, t: Tensor) -> Tensor:
            with autocast(device, self.context.precision):
                output: Tensor = unet(x, t, *unet.prepare(condition_of(samples.condition, device)))
            return output

        return self.objective.loss(network, samples.x0.to(device), samples.eps.to(device), samples.t.to(device))

    @torch.no_grad()
    def validate(self, network: DenoisingNetwork) -> dict[str, float]:
        """The mean loss on held-out samples, in all and by range of times; the same noise and times at every call."""
        loss, t = self._held_out(lambda samples: self._losses(network, samples))
        bins = (t * LEVEL_BINS / self.objective.process.latest).long().clamp(max=LEVEL_BINS - 1)
        values = {"held_out/loss": float(loss.mean())}
        for b in range(LEVEL_BINS):
            if bool((bins == b).any()):
                low, high = (round(100 * edge / LEVEL_BINS) for edge in (b, b + 1))
                values[f"held_out_by_time/{low:02d}_to_{high}_percent"] = float(loss[bins == b].mean())
        return values

    def reached(self, network: DenoisingNetwork, held_out: Mapping[str, float]) -> list[Reached]:
        """See `Task`."""
        by = "the best prediction that looks at nothing"
        return [Reached("held_out_loss", held_out["held_out/loss"], self.by_chance(), by)]

    @torch.no_grad()
    def by_chance(self) -> float:
        """The held-out loss, as `validate` measures it, of one prediction for everything: zero, or the mean target.

        The mean is over samples and levels, for each channel: of the noise about zero, of samples their mean colour.
        """
        objective = self.objective

        def targets(samples: Samples) -> Tensor:
            level = objective.process.levels(samples.t)
            return target(objective.prediction_type, samples.x0, samples.eps, level).mean(dim=(2, 3))

        def loss(constant: Tensor) -> float:
            def measure(samples: Samples) -> Tensor:
                return objective.loss(lambda x, t: constant.expand_as(x), samples.x0, samples.eps, samples.t)

            return float(self._held_out(measure)[0].mean())

        mean = self._held_out(targets)[0].mean(dim=0).view(-1, 1, 1)
        return min(loss(torch.zeros_like(mean)), loss(mean))

    def _held_out(self, measure: Callable[[Samples], Tensor]) -> tuple[Tensor, Tensor]:
        """`measure` of the held-out samples, and their times: (n,) each, on the CPU."""
        found = []
        for batch in self.data.held_out_batches(self.objective.draw_times):
            found.append((measure(self.data.samples(batch)).cpu(), batch["t"]))
        values, times = zip(*found, strict=True)
        return torch.cat(values), torch.cat(times)

    def flops(self) -> float:
        """See `Task`."""
        null = self.data.conditioning.null
        words = None if null is None else tuple(null.shape)
        network, tables = self.network, self.data.train_parts
        frozen = network.without if isinstance(network, AdaptedDenoiser) else None
        total = 0.0
        for table in tables:
            forward = partial(denoised, network, 1, table.latents.shape, words)
            passes = TRAINING * flops(network, forward)
            if frozen is not None:
                with frozen():  # what is frozen has no gradients of weights
                    passes -= flops(network, forward, with_weights=True)
            total += len(table) * passes
        return total / sum(map(len, tables))
