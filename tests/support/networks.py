"""Small networks of every kind, by the few numbers that a test is about."""

from collections.abc import Sequence
from typing import Any

from darkroom.config.denoisers import (
    BatchNormUNetConfig,
    DenoiserConfig,
    DenoiserSizes,
    DenoiserSpec,
    LayerNormUNetConfig,
    ScoreUNetConfig,
    UNet2DConditionConfig,
    UNetSpec,
)
from darkroom.config.networks import (
    AutoencoderKLConfig,
    AutoencoderSpec,
    ClassifierSizes,
    ClassifierSpec,
    CLIPTextConfig,
    ConvTowerConfig,
    IdentityConfig,
    PatchDiscriminatorConfig,
    PictureSizes,
    SelfSupervisedSpec,
    TextSpec,
    TokenSizes,
    TowersConfig,
    TowersSizes,
    TowersSpec,
    TrainedTextConfig,
)
from darkroom.nn.autoencoder.discriminator import PatchDiscriminator
from darkroom.nn.autoencoder.identity import IdentityAutoencoder
from darkroom.nn.autoencoder.vae import AutoencoderKL
from darkroom.nn.denoiser.base import build
from darkroom.nn.judge.classifier import Classifier, SelfSupervised
from darkroom.nn.judge.towers import Towers
from darkroom.nn.text.clip import CLIPTextModel

DOWN, CROSS_DOWN, UP, CROSS_UP = "DownBlock2D", "CrossAttnDownBlock2D", "UpBlock2D", "CrossAttnUpBlock2D"
CLASSES: dict[type, Any] = {
    AutoencoderSpec: AutoencoderKL,
    TextSpec: CLIPTextModel,
    ClassifierSpec: Classifier,
    SelfSupervisedSpec: SelfSupervised,
    TowersSpec: Towers,
}


def built(spec: Any) -> Any:
    """The network of a spec."""
    return CLASSES.get(type(spec), build)(spec.network, spec.sizes)


def sizes(channels: int = 4, side: int = 8, words: int | None = None, classes: int | None = None) -> DenoiserSizes:
    """A denoiser's sizes; words: width of the text embeddings."""
    return DenoiserSizes(in_channels=channels, sample_size=side, cross_attention_dim=words, num_classes=classes)


def unet(
    down: Sequence[str] = (CROSS_DOWN, DOWN),
    up: Sequence[str] = (UP, CROSS_UP),
    widths: Sequence[int] = (8, 16),
    layers: int = 1,
    heads: int | Sequence[int] = 2,
    depths: int | Sequence[int] = 1,
    groups: int = 4,
    linear: bool = False,
    **of: int | None,
) -> UNetSpec:
    """A UNet2DConditionModel; of: as `sizes` takes it."""
    heads, depths = ([n] * len(widths) if isinstance(n, int) else list(n) for n in (heads, depths))
    config = UNet2DConditionConfig(
        kind="unet_2d_condition",
        down_block_types=list(down),  # type: ignore[arg-type]
        up_block_types=list(up),  # type: ignore[arg-type]
        block_out_channels=list(widths),
        layers_per_block=layers,
        transformer_layers_per_block=depths,
        num_attention_heads=heads,
        use_linear_projection=linear,
        norm_num_groups=groups,
    )
    return UNetSpec(network=config, sizes=sizes(**of))  # type: ignore[arg-type]


def denoiser(config: DenoiserConfig, channels: int, side: int, classes: int | None = None) -> DenoiserSpec:
    """A denoiser without text."""
    return DenoiserSpec(network=config, sizes=sizes(channels, side, None, classes))


def score(variant: Any, side: int = 28, channels: int = 1, classes: int | None = None) -> DenoiserSpec:
    """A ScoreUNet."""
    return denoiser(ScoreUNetConfig(kind="score_unet", variant=variant), channels, side, classes)


def layer_norm(side: int = 28, channels: int = 1) -> DenoiserSpec:
    """A LayerNormUNet."""
    return denoiser(LayerNormUNetConfig(kind="layer_norm_unet"), channels, side)


def batch_norm(widths: Sequence[int] = (8, 16), channels: int = 1, side: int = 16) -> DenoiserSpec:
    """A BatchNormUNet."""
    return denoiser(BatchNormUNetConfig(kind="batch_norm_unet", widths=list(widths)), channels, side)


def kl(
    widths: Sequence[int] = (8, 16), layers: int = 1, groups: int = 4, latent: int = 4, channels: int = 3
) -> AutoencoderSpec:
    """An AutoencoderKL."""
    config = AutoencoderKLConfig(
        latent_channels=latent, block_out_channels=list(widths), layers_per_block=layers, norm_num_groups=groups
    )
    return AutoencoderSpec(network=config, sizes=PictureSizes(in_channels=channels))


def identity(black: float, white: float) -> IdentityAutoencoder:
    """No autoencoder."""
    return IdentityAutoencoder(IdentityConfig(range=[black, white]))


def discriminator(width: int = 16, layers: int = 1, channels: int = 3) -> PatchDiscriminator:
    """A PatchDiscriminator."""
    return PatchDiscriminator(PatchDiscriminatorConfig(channels=width, n_layers=layers), channels)


def tokens(bos: int, eos: int, pad: int | None = None) -> TokenSizes:
    """Special tokens; padding is the end unless given."""
    return TokenSizes(bos_token_id=bos, eos_token_id=eos, pad_token_id=eos if pad is None else pad)


def text(
    vocabulary: int,
    width: int = 16,
    inner: int = 32,
    layers: int = 1,
    heads: int = 2,
    length: int = 8,
    act: Any = "quick_gelu",
    special: TokenSizes | None = None,
) -> TextSpec:
    """A CLIPTextModel; its special tokens are the last two unless given."""
    config = CLIPTextConfig(
        vocab_size=vocabulary,
        max_length=length,
        hidden_size=width,
        num_hidden_layers=layers,
        num_attention_heads=heads,
        hidden_act=act,
        intermediate_size=inner,
    )
    return TextSpec(network=config, sizes=special or tokens(vocabulary - 2, vocabulary - 1))


def tower(width: int = 16, depth: int = 1) -> ConvTowerConfig:
    """A ConvTower's shape."""
    return ConvTowerConfig(width=width, depth=depth)


def classifier(
    classes: Sequence[int],
    channels: int = 3,
    absent: Sequence[bool] | None = None,
    image: ConvTowerConfig | None = None,
) -> ClassifierSpec:
    """A Classifier."""
    lacking = [False] * len(classes) if absent is None else list(absent)
    data = ClassifierSizes(in_channels=channels, classes=list(classes), absent=lacking)
    return ClassifierSpec(network=image or tower(), sizes=data)


def selfsupervised(channels: int = 3, image: ConvTowerConfig | None = None) -> SelfSupervisedSpec:
    """A SelfSupervised judge."""
    return SelfSupervisedSpec(network=image or tower(), sizes=PictureSizes(in_channels=channels))


def towers(captions: TextSpec, channels: int = 3, image: ConvTowerConfig | None = None) -> TowersSpec:
    """Towers, whose text tower is that of a spec."""
    config = TowersConfig(image=image or tower(), text=captions.network)
    return TowersSpec(network=config, sizes=TowersSizes(in_channels=channels, tokens=captions.sizes))


def captions(vocabulary: int = 530) -> TrainedTextConfig:
    """A text tower's shape, whose tokenizer is still to be trained."""
    return TrainedTextConfig(**text(vocabulary, 32, 64).network.model_dump())
