"""U-Nets of every shape, small, and batches for them."""

from typing import Any

import torch
from torch import Tensor

from darkroom.nn.denoiser.unet import UNetConfig

TINY = UNetConfig(
    sample_size=8,
    in_channels=4,
    out_channels=4,
    down_block_types=("CrossAttnDownBlock2D", "DownBlock2D"),
    up_block_types=("UpBlock2D", "CrossAttnUpBlock2D"),
    block_out_channels=(8, 16),
    layers_per_block=1,
    cross_attention_dim=10,
    attention_head_dim=2,
    norm_num_groups=4,
)
UNEQUAL = UNetConfig(  # other numbers of heads, blocks and channels everywhere; latents of odd sides
    sample_size=7,
    in_channels=3,
    out_channels=6,
    down_block_types=("DownBlock2D", "CrossAttnDownBlock2D", "CrossAttnDownBlock2D"),
    up_block_types=("CrossAttnUpBlock2D", "UpBlock2D", "CrossAttnUpBlock2D"),
    block_out_channels=(6, 12, 18),
    layers_per_block=2,
    cross_attention_dim=5,
    attention_head_dim=(1, 2, 3),
    transformer_layers_per_block=(1, 3, 2),
    norm_num_groups=3,
    norm_eps=1e-6,
    flip_sin_to_cos=False,
    freq_shift=1,
    use_linear_projection=True,
)
CLASSES = UNetConfig(  # no text: the transformers attend to the picture
    sample_size=8,
    in_channels=4,
    out_channels=4,
    down_block_types=("DownBlock2D", "CrossAttnDownBlock2D"),
    up_block_types=("CrossAttnUpBlock2D", "UpBlock2D"),
    block_out_channels=(8, 24),
    layers_per_block=1,
    cross_attention_dim=None,
    attention_head_dim=4,
    norm_num_groups=4,
    num_class_embeds=11,
)
STABLE = UNetConfig(block_out_channels=(32, 32, 64, 64), cross_attention_dim=24)  # Stable Diffusion 1.x, narrower
ONE_LEVEL = UNetConfig(  # nothing to halve; many blocks, more channels in than out
    sample_size=5,
    in_channels=5,
    out_channels=1,
    down_block_types=("CrossAttnDownBlock2D",),
    up_block_types=("CrossAttnUpBlock2D",),
    block_out_channels=(14,),
    layers_per_block=3,
    cross_attention_dim=3,
    attention_head_dim=7,
    norm_num_groups=7,
)
CONFIGS = [TINY, UNEQUAL, CLASSES, STABLE, ONE_LEVEL]
IDS = ["tiny", "unequal", "classes", "stable", "one level"]


def inputs(config: UNetConfig, n: int = 3) -> dict[str, Any]:
    """Arguments of `predict` for a batch of n <= 3."""
    side = config.sample_size if config.sample_size < 16 else 8
    return {
        "sample": torch.randn(n, config.in_channels, side, side + 2),
        "timestep": torch.tensor([0.0, 421.5, 999.0])[:n],
        "words": None if config.cross_attention_dim is None else torch.randn(n, 6, config.cross_attention_dim),
        "class_labels": None if config.num_class_embeds is None else torch.tensor([0, 3, 10])[:n],
    }


def predict(unet: Any, sample: Tensor, timestep: Tensor, words: Tensor | None, class_labels: Tensor | None) -> Tensor:
    """What a U-Net, trained or frozen, makes of a batch."""
    context = None if words is None else unet.prepare_context(words)
    return unet(sample, timestep, context, class_labels)


def halved(unet: Any) -> Any:
    """As pipelines hold a network in bfloat16: convolutions and linear layers."""
    for module in unet.modules():
        if isinstance(module, torch.nn.Conv2d | torch.nn.Linear):
            module.to(torch.bfloat16)
    return unet
