"""Shapes of networks. Of each, one class holds what is chosen: in params.yaml, in its config.json, for its constructor.

What follows from the data (channels, special tokens, classes) is nobody's choice: it stands beside, as the network's
sizes. Denoisers, of which there are several kinds, are in `config.denoisers`.
"""

from typing import Annotated, Any, Generic, Literal, Self, TypeVar

from pydantic import Field, ValidationError, model_validator

from darkroom.config.base import CHANNELS_PER_GROUP, Channels, Count, Section, check_multiple_of
from darkroom.config.faults import explain
from darkroom.core.errors import DarkroomError
from darkroom.core.limits import check_network

GROUPED = "the channels per group of its norms"
Layers = Annotated[int, Field(ge=1, le=64)]
Heads = Annotated[int, Field(ge=1, le=128)]
Id = Annotated[int, Field(ge=0, lt=1_000_000)]


class AutoencoderKLConfig(Section):
    """The KL autoencoder of latent diffusion (Rombach et al. 2022, arXiv:2112.10752)."""

    latent_channels: Annotated[int, Field(ge=1, le=64)]
    """Channels of the latents; Stable Diffusion has 4."""

    block_out_channels: Annotated[list[Channels], Field(min_length=1, max_length=8)]
    """Channels of each level, from the picture inwards. Every level but the last halves the sides."""

    layers_per_block: Annotated[int, Field(ge=1, le=8)]
    """ResNet blocks of a level of the encoder; the decoder's levels have one more."""

    norm_num_groups: Count
    """Groups of every group norm; divides the channels of every level."""

    @model_validator(mode="after")
    def _check(self) -> Self:
        for i, channels in enumerate(self.block_out_channels):
            check_multiple_of(f"block_out_channels.{i}", channels, self.norm_num_groups, "norm_num_groups")
        return self

    @property
    def downscale(self) -> int:
        """Pixels per latent position, along one side."""
        return int(2 ** (len(self.block_out_channels) - 1))


class IdentityConfig(Section):
    """No autoencoder: latents are the pictures themselves."""

    range: Annotated[list[Annotated[float, Field(ge=-100, le=100)]], Field(min_length=2, max_length=2)]
    """What black and white become; all between lies between."""

    @model_validator(mode="after")
    def _check(self) -> Self:
        if self.range[0] >= self.range[1]:
            raise ValueError(f"range = {self.range} does not rise; give black, then white")
        return self


class PatchDiscriminatorConfig(Section):
    """The critic of the autoencoder's pictures: a PatchGAN (Isola et al. 2017, arXiv:1611.07004, section 3.2.2)."""

    channels: Channels
    """Of the first layer, a multiple of 16; each layer doubles them up to eightfold."""

    n_layers: Annotated[int, Field(ge=1, le=6)]
    """How often the picture is halved: 3 suits 256 pixels, 2 suits 32."""

    @model_validator(mode="after")
    def _check(self) -> Self:
        check_multiple_of("channels", self.channels, CHANNELS_PER_GROUP, GROUPED)
        return self


class CLIPTextConfig(Section):
    """The text encoder of CLIP (Radford et al. 2021, arXiv:2103.00020)."""

    vocab_size: Annotated[int, Field(ge=1, le=1_000_000)]
    """Tokens that it knows."""

    max_length: Annotated[int, Field(ge=4, le=1024)]
    """Tokens of a text, its beginning and end among them; longer texts are cut."""

    hidden_size: Channels
    """Length of the vector of a token; num_attention_heads divides it."""

    num_hidden_layers: Layers
    """Transformer layers."""

    num_attention_heads: Heads
    """Attention heads of a layer."""

    hidden_act: Literal["quick_gelu", "gelu"]
    """Activation of the feed-forward layers: quick_gelu as in OpenAI's CLIP, gelu as in OpenCLIP's."""

    intermediate_size: Count
    """Width of the feed-forward layers; usually four times hidden_size."""

    @model_validator(mode="after")
    def _check(self) -> Self:
        check_multiple_of("hidden_size", self.hidden_size, self.num_attention_heads, "num_attention_heads")
        return self


class TrainedTextConfig(CLIPTextConfig):
    """A text encoder whose tokenizer is trained before it."""

    vocab_size: Annotated[int, Field(ge=514, le=1_000_000)]
    """Tokens that byte-pair encoding may learn from the captions, the 514 that are always there among them."""

    def learnt(self, tokens: int) -> CLIPTextConfig:
        """The encoder for a tokenizer that has learnt so many."""
        return CLIPTextConfig(**{**self.model_dump(), "vocab_size": tokens})


class ConvTowerConfig(Section):
    """The convolutional network that a text encoder and the judges look at pictures with."""

    width: Channels
    """Channels of the first level, a multiple of 16; the second and third have two and four times as many."""

    depth: Annotated[int, Field(ge=1, le=6)]
    """Residual blocks of a level."""

    @model_validator(mode="after")
    def _check(self) -> Self:
        check_multiple_of("width", self.width, CHANNELS_PER_GROUP, GROUPED)
        return self


class TowersConfig(Section):
    """An image tower and a text tower that meet in one space (CLIP)."""

    image: ConvTowerConfig
    """The tower of pictures."""

    text: CLIPTextConfig
    """The tower of captions."""


class PictureSizes(Section):
    """What a network that sees or makes pictures takes from them."""

    in_channels: Annotated[int, Field(ge=1, le=1024)]
    """Channels of the pictures."""


class TokenSizes(Section):
    """The special tokens of a text encoder's tokenizer."""

    bos_token_id: Id
    """Of the beginning of a text; unknown to the network, which exports state it for."""

    eos_token_id: Id
    """Of the end of a text, at which the encoder pools. Not 2: there transformers pools at the largest id (a legacy
    rule of its CLIP)."""

    pad_token_id: Id
    """Of what fills a text up; unknown to the network, as bos_token_id."""

    @model_validator(mode="after")
    def _check(self) -> Self:
        if self.eos_token_id == 2:
            raise ValueError(
                "eos_token_id = 2 makes transformers pool at the largest token id instead of the end of the text "
                "(a legacy rule of its CLIP); number the special tokens otherwise"
            )
        return self


class TowersSizes(PictureSizes):
    """What towers take from pictures and captions."""

    tokens: TokenSizes
    """The special tokens of the captions."""


class ClassifierSizes(PictureSizes):
    """What a classifier takes from labelled pictures."""

    classes: Annotated[list[Annotated[int, Field(ge=2)]], Field(min_length=1)]
    """Classes of each attribute."""

    absent: list[bool]
    """Whether pictures may lack it, for each attribute; its head then has one class more, so that a thing too many is
    read as well as one too few."""

    @model_validator(mode="after")
    def _check(self) -> Self:
        if len(self.absent) != len(self.classes):
            raise ValueError(f"absent = {self.absent}: state it for each of {len(self.classes)} attributes")
        return self


Config = TypeVar("Config", bound=Section)
Sizes = TypeVar("Sizes", bound=Section)
Some = TypeVar("Some", bound=Section)


class NetworkSpec(Section, Generic[Config, Sizes]):
    """All that a network is built from, as its config.json states it."""

    network: Config
    """What was chosen."""

    sizes: Sizes
    """What follows from the data."""

    @classmethod
    def read(cls, values: Any, source: str, remedy: str) -> Self:
        """The spec in what a config.json holds, which may hold other keys besides.

        Raises:
            DarkroomError: see `read_section`.
        """
        stated = values if isinstance(values, dict) else {}
        fragment = {key: value for key, value in stated.items() if key in cls.model_fields}
        return read_section(cls, fragment, source, remedy)


def read_section(section: type[Some], values: Any, source: str, remedy: str) -> Some:
    """What a file states, checked strictly, and its numbers against the limits of `core.limits` first.

    Args:
        source: the file, and the key where it is not all that the file states.

    Raises:
        DarkroomError: the place, the key, its value and the remedy, in one line.
    """
    _check_numbers(values, source, remedy)
    try:
        return section.model_validate(values)
    except ValidationError as error:
        raise DarkroomError(f"{source}: {next(explain(error, values, section))}; {remedy}") from None


def _check_numbers(values: Any, source: str, remedy: str) -> None:
    if isinstance(values, dict):
        check_network(values, source, remedy)
        for inner in values.values():
            _check_numbers(inner, source, remedy)


AutoencoderSpec = NetworkSpec[AutoencoderKLConfig, PictureSizes]
ClassifierSpec = NetworkSpec[ConvTowerConfig, ClassifierSizes]
SelfSupervisedSpec = NetworkSpec[ConvTowerConfig, PictureSizes]
TowersSpec = NetworkSpec[TowersConfig, TowersSizes]


class TextSpec(NetworkSpec[CLIPTextConfig, TokenSizes]):
    """All that a CLIP text encoder is built from."""

    @model_validator(mode="after")
    def _check(self) -> Self:
        end, tokens = self.sizes.eos_token_id, self.network.vocab_size
        if end >= tokens:
            raise ValueError(f"sizes.eos_token_id = {end} is not below network.vocab_size = {tokens}; give its own")
        return self
