"""Small worlds to train in: a few latents, a few captions, networks built in milliseconds."""

from dataclasses import dataclass

import torch
from torch import Tensor, nn

from darkroom.core.rng import generator, seeded
from darkroom.data.conditioning import Conditioning, ConditioningInfo
from darkroom.data.latents import Latents
from darkroom.nn.denoiser.unet import UNet2DConditionModel
from darkroom.training.engine.context import TrainingContext
from darkroom.training.latent_batches import LatentBatches
from darkroom.training.unet import UNetTask
from tests.support.diffusion import make_objective, make_vp
from tests.support.networks import built, unet

N, LENGTH, WIDTH, CAPTIONS, CLASSES = 24, 4, 16, 5, 3
SHAPE = (4, 8, 8)


def randomise(network: nn.Module) -> None:
    """Fill every weight, those that start at zero included, so that everything reaches the output."""
    noise = generator(0, "weights")
    for weight in network.parameters():
        weight.data = torch.randn(weight.shape, generator=noise) * (weight[0].numel() ** -0.5 if weight.ndim > 1 else 1)


@dataclass
class World:
    """What a U-Net is trained on; kind: "text", "class" or "none"."""

    kind: str
    context: TrainingContext

    def latents(self, purpose: str = "train") -> Latents:
        draw = generator(0, "latents", purpose)
        mean = torch.randn(N, *SHAPE, generator=draw).half()
        return Latents(mean, torch.full_like(mean, -2.0), scaling_factor=0.8)

    def conditioning(self) -> Conditioning:
        draw = generator(0, "conditioning")
        classes = [f"class {i}" for i in range(CLASSES)] if self.kind == "class" else []
        null = "empty_prompt" if self.kind == "text" else None
        info = ConditioningInfo(self.kind, null, LENGTH, WIDTH, classes)  # type: ignore[arg-type]
        index = {s: torch.randint(CLASSES, (N,), generator=draw) for s in ("train", "validation")}
        if self.kind != "text":
            return Conditioning(info, index, None, None)
        embeddings = torch.randn(CAPTIONS, LENGTH, WIDTH, generator=draw).half()
        return Conditioning(info, index, embeddings, torch.randn(LENGTH, WIDTH, generator=draw))

    def unet(self) -> UNet2DConditionModel:
        words = WIDTH if self.kind == "text" else None
        classes = CLASSES if self.kind == "class" else None
        spec = unet(widths=(16, 16), groups=1, side=SHAPE[-1], words=words, classes=classes)
        with seeded(0, "unet"):
            network: UNet2DConditionModel = built(spec)
        return network

    def task(
        self, unet: UNet2DConditionModel | None = None, condition_dropout: float = 0.1, horizontal_flip: bool = False
    ) -> UNetTask:
        """A task; without a network, on one with random weights throughout."""
        if unet is None:
            unet = self.unet()
            randomise(unet)
        latents, conditioning = (self.latents(), self.latents("validation")), self.conditioning()
        data = LatentBatches(*latents, conditioning, self.context, condition_dropout, horizontal_flip, max_held_out=20)
        objective = make_objective(make_vp("cosine", 0.0001, 0.02, 1000), "v_prediction", "min_snr", "l2", "mean")
        return UNetTask(unet, objective, data)


def flat(network: nn.Module) -> Tensor:
    """All weights in one row."""
    return torch.cat([p.detach().flatten() for p in network.parameters()])
