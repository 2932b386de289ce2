"""U-Nets of every shape, small, and batches for them."""

from typing import Any

import torch
from torch import Tensor

from darkroom.config.denoisers import UNetSpec
from tests.support.networks import CROSS_DOWN, CROSS_UP, DOWN, UP, unet

TINY = unet(words=10)
UNEQUAL = unet(  # other numbers of heads, blocks and channels everywhere; latents of odd sides
    down=(DOWN, CROSS_DOWN, CROSS_DOWN),
    up=(CROSS_UP, UP, CROSS_UP),
    widths=(6, 12, 18),
    layers=2,
    heads=(1, 2, 3),
    depths=(1, 3, 2),
    groups=3,
    linear=True,
    channels=3,
    side=7,
    words=5,
)
CLASSES = unet(  # no text: the transformers attend to the picture
    down=(DOWN, CROSS_DOWN), up=(CROSS_UP, UP), widths=(8, 24), heads=4, classes=10
)
STABLE = unet(  # Stable Diffusion 1.x, narrower
    down=(*[CROSS_DOWN] * 3, DOWN),
    up=(UP, *[CROSS_UP] * 3),
    widths=(32, 32, 64, 64),
    layers=2,
    heads=8,
    groups=32,
    side=64,
    words=24,
)
ONE_LEVEL = unet(  # nothing to halve; many blocks
    down=(CROSS_DOWN,), up=(CROSS_UP,), widths=(14,), layers=3, heads=7, groups=7, channels=5, side=5, words=3
)
CONFIGS = [TINY, UNEQUAL, CLASSES, STABLE, ONE_LEVEL]
IDS = ["tiny", "unequal", "classes", "stable", "one level"]


def inputs(spec: UNetSpec, n: int = 3) -> dict[str, Any]:
    """Arguments of `predict` for a batch of n <= 3."""
    of = spec.sizes
    side = of.sample_size if of.sample_size < 16 else 8
    return {
        "sample": torch.randn(n, of.in_channels, side, side + 2),
        "timestep": torch.tensor([0.0, 421.5, 999.0])[:n],
        "words": None if of.cross_attention_dim is None else torch.randn(n, 6, of.cross_attention_dim),
        "class_labels": None if of.num_classes is None else torch.tensor([0, 3, 10])[:n],
    }


def predict(
    network: Any, sample: Tensor, timestep: Tensor, words: Tensor | None, class_labels: Tensor | None
) -> Tensor:
    """What a U-Net, trained or packed, makes of a batch."""
    context = None if words is None else network.prepare_context(words)
    out: Tensor = network(sample, timestep, context, class_labels)
    return out


def halved(network: Any) -> Any:
    """As pipelines hold a network in bfloat16: convolutions and linear layers."""
    for module in network.modules():
        if isinstance(module, torch.nn.Conv2d | torch.nn.Linear):
            module.to(torch.bfloat16)
    return network
