"""Which networks the parameters ask for, in the sizes that the data need."""

from darkroom.config.sections import TrainUNet
from darkroom.nn.denoiser.batch_norm_unet import BatchNormUNetConfig
from darkroom.nn.denoiser.kinds import DenoiserConfig
from darkroom.nn.denoiser.layer_norm_unet import LayerNormUNetConfig
from darkroom.nn.denoiser.score_unet import ScoreUNetConfig
from darkroom.nn.denoiser.unet import UNetConfig


def denoiser(p: TrainUNet, latent: tuple[int, ...], words: int | None, classes: int) -> DenoiserConfig:
    """The denoising network.

    Args:
        latent: (channels, side, side). words: width of the text embeddings, None without text. classes: 0 without.
    """
    channels, side, u = latent[0], latent[-1], p.unet
    if u.kind == "score_unet":
        return ScoreUNetConfig(u.variant, side, channels, classes or None)
    if u.kind == "layer_norm_unet":
        return LayerNormUNetConfig(side, channels)
    if u.kind == "batch_norm_unet":
        return BatchNormUNetConfig(channels, tuple(u.widths))
    return UNetConfig(
        sample_size=side,
        in_channels=channels,
        out_channels=channels,
        down_block_types=tuple(u.down_block_types),
        up_block_types=tuple(u.up_block_types),
        block_out_channels=tuple(u.block_out_channels),
        layers_per_block=u.layers_per_block,
        cross_attention_dim=words,
        attention_head_dim=u.attention_head_dim,
        transformer_layers_per_block=u.transformer_layers_per_block,
        norm_num_groups=u.norm_num_groups,
        num_class_embeds=classes + 1 if classes else None,
    )
