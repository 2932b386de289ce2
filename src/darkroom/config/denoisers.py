"""The kinds of denoisers: what is chosen of each, in params.yaml, in its config.json, for its constructor.

A new kind is a file and a line in DENOISERS. The file holds the config class, which names its network, and may hold the
network too; those here stand apart from theirs so that parameters are read without PyTorch.
"""

from typing import Annotated, ClassVar, Literal, Self

from pydantic import Field, model_validator

from darkroom.config.base import Channels, Count, Section, check_multiple_of
from darkroom.config.kinds import Kinds
from darkroom.config.networks import Heads, NetworkSpec

ConditionKind = Literal["none", "class", "text"]
DownBlock = Literal["DownBlock2D", "CrossAttnDownBlock2D"]
UpBlock = Literal["UpBlock2D", "CrossAttnUpBlock2D"]


class DenoiserSizes(Section):
    """What a denoiser takes from latents and conditions."""

    in_channels: Annotated[int, Field(ge=1, le=1024)]
    """Channels of the latents, and of the prediction."""

    sample_size: Annotated[int, Field(ge=1, le=65536)]
    """Side of the latents that it is made for."""

    cross_attention_dim: Channels | None
    """Width of the text embeddings; null: no text."""

    num_classes: Count | None
    """Classes, without the null class, whose id follows the last one's; null: no classes."""

    @property
    def condition(self) -> ConditionKind:
        """What its predictions depend on besides latents and times."""
        return "text" if self.cross_attention_dim is not None else "class" if self.num_classes is not None else "none"


class DenoiserConfig(Section):
    """What is chosen of a denoiser, and what it takes."""

    network: ClassVar[str]
    """Its network, "module:Class", a `nn.denoiser.base.DenoisingNetwork`, which is built of a config and sizes."""

    fixed_side: ClassVar[bool] = False
    """Whether it takes latents of no other side than the one it is made for."""

    times: ClassVar[int | None] = None
    """Discrete times that it knows; None: any number."""

    kind: str
    """Which denoiser, one of DENOISERS."""

    @property
    def conditions(self) -> tuple[ConditionKind, ...]:
        """The kinds of condition that it takes, "none" among them where it needs no other."""
        return ("none",)

    @property
    def multiple(self) -> int:
        """Sides of latents must be divisible by this."""
        return 1

    def check_side(self, side: int) -> None:
        """Refuse latents of a side that it does not take.

        Raises:
            ValueError: the key and what it asks of sides.
        """
        if side % self.multiple:
            raise ValueError(f"kind = {self.kind!r} of this depth takes sides divisible by {self.multiple}, not {side}")

    def check_condition(self, condition: ConditionKind) -> None:
        """Refuse a kind of condition that it does not take.

        Raises:
            ValueError: the key and what it takes.
        """
        if condition not in self.conditions:
            taken = " or ".join(repr(kind) for kind in self.conditions)
            raise ValueError(f"kind = {self.kind!r} of this variant takes the condition {taken}, not {condition!r}")

    def check_sizes(self, sizes: DenoiserSizes) -> None:
        """Refuse sizes that go with no such network.

        Raises:
            ValueError: the key and what it takes.
        """
        if self.fixed_side:
            self.check_side(sizes.sample_size)
        self.check_condition(sizes.condition)


class UNet2DConditionConfig(DenoiserConfig):
    """The conditional U-Net of Stable Diffusion (Rombach et al. 2022, arXiv:2112.10752)."""

    network: ClassVar[str] = "darkroom.nn.denoiser.unet:UNet2DConditionModel"

    kind: Literal["unet_2d_condition"]
    """diffusers' UNet2DConditionModel."""

    down_block_types: list[DownBlock]
    """Of each level from the first to the lowest, whether transformers follow its ResNet blocks (CrossAttn)."""

    up_block_types: list[UpBlock]
    """Likewise of each level on the way up, from the lowest to the first."""

    block_out_channels: Annotated[list[Channels], Field(min_length=1, max_length=8)]
    """Channels of each level. Every level but the last halves the sides."""

    layers_per_block: Annotated[int, Field(ge=1, le=8)]
    """ResNet blocks of a level on the way down; on the way up there is one more."""

    transformer_layers_per_block: list[Annotated[int, Field(ge=1, le=16)]]
    """Transformer blocks behind each ResNet block of a CrossAttn level, for each level."""

    num_attention_heads: list[Heads]
    """Attention heads of each level (diffusers' attention_head_dim); divides the channels of a level that attends."""

    use_linear_projection: bool
    """Linear layers into and out of transformers (Stable Diffusion 2) in place of 1x1 convolutions (1.x)."""

    norm_num_groups: Count
    """Groups of every group norm; divides the channels of every level."""

    @model_validator(mode="after")
    def _check(self) -> Self:
        levels = len(self.block_out_channels)
        for key in ("down_block_types", "up_block_types", "transformer_layers_per_block", "num_attention_heads"):
            if len(getattr(self, key)) != levels:
                raise ValueError(f"{key} has not {levels} entries, one per level as block_out_channels; give so many")
        for i, channels in enumerate(self.block_out_channels):
            check_multiple_of(f"block_out_channels.{i}", channels, self.norm_num_groups, "norm_num_groups")
            # The middle, as wide as the last level, attends too.
            if i == levels - 1 or "CrossAttn" in self.down_block_types[i] + self.up_block_types[-1 - i]:
                check_multiple_of(
                    f"block_out_channels.{i}", channels, self.num_attention_heads[i], f"num_attention_heads.{i}"
                )
        return self

    @property
    def conditions(self) -> tuple[ConditionKind, ...]:
        """All; without text the transformers attend to the picture twice."""
        return ("none", "class", "text")

    @property
    def multiple(self) -> int:
        """Every level but the last halves the sides."""
        return int(2 ** (len(self.block_out_channels) - 1))


class _OddSides(DenoiserConfig):
    """Networks that give back the side they were given only if it is 8 n + 4."""

    fixed_side: ClassVar[bool] = True
    least_side: ClassVar[int]

    def check_side(self, side: int) -> None:
        if side % 8 != 4 or side < self.least_side:
            raise ValueError(f"kind = {self.kind!r} takes sides of 8 n + 4 from {self.least_side} on, not {side}")


class ScoreUNetConfig(_OddSides):
    """The small score network for pictures (Song et al. 2021, arXiv:2011.13456)."""

    network: ClassVar[str] = "darkroom.nn.denoiser.score_unet:ScoreUNet"
    least_side: ClassVar[int] = 20

    kind: Literal["score_unet"]
    """For pictures of 28 pixels."""

    variant: Literal["concat", "residual", "transformer"]
    """concat, residual: skips stand beside what comes from below, or are added to it. transformer: they are added, and
    the two lowest levels attend to the picture and to its class."""

    @property
    def conditions(self) -> tuple[ConditionKind, ...]:
        """Classes for the variant that attends to them, and nothing for the others."""
        return ("class",) if self.variant == "transformer" else ("none",)


class LayerNormUNetConfig(_OddSides):
    """The small U-Net whose norms see the whole feature map."""

    network: ClassVar[str] = "darkroom.nn.denoiser.layer_norm_unet:LayerNormUNet"
    least_side: ClassVar[int] = 12
    times: ClassVar[int | None] = 1000

    kind: Literal["layer_norm_unet"]
    """For pictures of 28 pixels."""


class BatchNormUNetConfig(DenoiserConfig):
    """The large plain U-Net with batch norms."""

    network: ClassVar[str] = "darkroom.nn.denoiser.batch_norm_unet:BatchNormUNet"

    kind: Literal["batch_norm_unet"]
    """For photographs of 64 pixels."""

    widths: Annotated[list[Channels], Field(min_length=2, max_length=8)]
    """Channels of the first layer and after each halving of the sides."""

    @property
    def multiple(self) -> int:
        """Every width but the first comes with a halving."""
        return int(2 ** (len(self.widths) - 1))


DENOISERS: Kinds[DenoiserConfig] = Kinds(
    "denoiser",
    {
        "unet_2d_condition": "darkroom.config.denoisers:UNet2DConditionConfig",
        "score_unet": "darkroom.config.denoisers:ScoreUNetConfig",
        "layer_norm_unet": "darkroom.config.denoisers:LayerNormUNetConfig",
        "batch_norm_unet": "darkroom.config.denoisers:BatchNormUNetConfig",
    },
)
AnyDenoiserConfig = Annotated[DenoiserConfig, DENOISERS]


class DenoiserSpec(NetworkSpec[AnyDenoiserConfig, DenoiserSizes]):
    """All that a denoiser is built from."""

    @model_validator(mode="after")
    def _check(self) -> Self:
        try:
            self.network.check_sizes(self.sizes)
        except ValueError as error:
            raise ValueError(f"network.{error}") from None
        return self


UNetSpec = NetworkSpec[UNet2DConditionConfig, DenoiserSizes]
