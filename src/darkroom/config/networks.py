"""What may stand in train_unet.unet: one strict model per kind of denoising network."""

from typing import Annotated, Literal, Self

from pydantic import Field, model_validator

from darkroom.config.base import Channels, Count, Section, divides
from darkroom.config.choices import NetworkKind, ScoreVariant

TABLE_ROWS = 1000  # of a layer_norm_unet's table of times
DownBlock = Literal["DownBlock2D", "CrossAttnDownBlock2D"]
UpBlock = Literal["UpBlock2D", "CrossAttnUpBlock2D"]


class UNet2DCondition(Section):
    """diffusers' UNet2DConditionModel; attention_head_dim is, as there, the number of heads."""

    kind: Literal["unet_2d_condition"]
    down_block_types: list[DownBlock]
    up_block_types: list[UpBlock]
    block_out_channels: Annotated[list[Channels], Field(min_length=1, max_length=8)]
    layers_per_block: Annotated[int, Field(ge=1, le=8)]
    transformer_layers_per_block: Annotated[int, Field(ge=1, le=16)]
    attention_head_dim: Annotated[int, Field(ge=1, le=128)]
    norm_num_groups: Count

    @model_validator(mode="after")
    def _check(self) -> Self:
        levels = len(self.block_out_channels)
        for key in ("down_block_types", "up_block_types"):
            if len(getattr(self, key)) != levels:
                raise ValueError(f"{key} has not {levels} entries, one per level as block_out_channels; give so many")
        for i, channels in enumerate(self.block_out_channels):
            divides(f"block_out_channels.{i}", channels, self.norm_num_groups, "norm_num_groups")
            blocks = self.down_block_types[i] + self.up_block_types[-1 - i]
            if i == levels - 1 or "CrossAttn" in blocks:  # the middle, as wide as the last level, attends too
                divides(f"block_out_channels.{i}", channels, self.attention_head_dim, "attention_head_dim")
        return self

    def check_side(self, side: int) -> None:
        """Refuse latents of a side that this network does not take."""
        _halved("block_out_channels", len(self.block_out_channels), side)

    def check_mode(self, mode: str) -> None:
        """It takes every condition."""


class ScoreUNet(Section):
    """The score network for small pictures; see nn.score_unet."""

    kind: Literal["score_unet"]
    variant: ScoreVariant

    def check_side(self, side: int) -> None:
        """Refuse latents of a side that this network does not take."""
        _eight_and_four(self.kind, 20, side)

    def check_mode(self, mode: str) -> None:
        """Refuse a setup_text_encoder.kind whose conditions this network does not take."""
        _needs_mode("variant", self.variant, "class" if self.variant == "transformer" else "none", mode)


class LayerNormUNet(Section):
    """The network with norms over whole feature maps; see nn.layer_norm_unet."""

    kind: Literal["layer_norm_unet"]

    def check_side(self, side: int) -> None:
        """Refuse latents of a side that this network does not take."""
        _eight_and_four(self.kind, 12, side)

    def check_mode(self, mode: str) -> None:
        """Refuse a setup_text_encoder.kind whose conditions this network does not take."""
        _needs_mode("kind", self.kind, "none", mode)


class BatchNormUNet(Section):
    """The plain network with batch norms; widths: of the first layer and after each halving."""

    kind: Literal["batch_norm_unet"]
    widths: Annotated[list[Channels], Field(min_length=2, max_length=8)]

    def check_side(self, side: int) -> None:
        """Refuse latents of a side that this network does not take."""
        _halved("widths", len(self.widths), side)

    def check_mode(self, mode: str) -> None:
        """Refuse a setup_text_encoder.kind whose conditions this network does not take."""
        _needs_mode("kind", self.kind, "none", mode)


UNet = Annotated[UNet2DCondition | ScoreUNet | LayerNormUNet | BatchNormUNet, Field(discriminator="kind")]


def _halved(key: str, levels: int, side: int) -> None:
    if side % 2 ** (levels - 1):
        raise ValueError(
            f"train_unet.unet.{key} has {levels} entries, but the latents' side of {side} cannot be "
            f"halved {levels - 1} times; give fewer, or another prepare_data.image_size"
        )


def _eight_and_four(kind: NetworkKind, least: int, side: int) -> None:
    if side % 8 != 4 or side < least:
        raise ValueError(
            f"train_unet.unet.kind = {kind!r} takes sides of 8 n + 4 from {least} on, but the latents' side is {side}; "
            "give another prepare_data.image_size, such as 28"
        )


def _needs_mode(key: str, value: str, wanted: str, mode: str) -> None:
    if mode != wanted:
        raise ValueError(
            f"train_unet.unet.{key} = {value!r} needs setup_text_encoder.kind = {wanted!r}, not {mode!r}; "
            "use that, or another network"
        )
