"""The networks of a pipeline: of a folder of our own, of a diffusers folder, or of a Stable Diffusion 1.x file."""

from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

import torch
from torch import Tensor, nn

from darkroom.config.base import Precision
from darkroom.core.artifact import CONFIG, COPY, PIPELINE, read_json
from darkroom.core.errors import DarkroomError
from darkroom.core.limits import JSON_BYTES
from darkroom.core.weights import DIFFUSERS_WEIGHTS, load_weights, outline
from darkroom.data.tokenizer import CLIPTokenizer
from darkroom.diffusion.denoiser import Condition
from darkroom.inference.captured import CapturedNetwork
from darkroom.inference.folder import DIFFUSERS_KIND, PipelineInfo
from darkroom.inference.options import OnEvaluation
from darkroom.inference.packed_unet import FrozenUNet
from darkroom.interop.checkpoint import check_keys, open_checkpoint
from darkroom.interop.contents import INDEX
from darkroom.interop.diffusers import TEXT_ENCODER, TOKENIZER, UNET, VAE, read_text_encoder, read_unet, read_vae
from darkroom.interop.model import build, build_vae
from darkroom.interop.source import read_model
from darkroom.nn.autoencoder.identity import Autoencoder, IdentityAutoencoder
from darkroom.nn.autoencoder.packed_vae import quick
from darkroom.nn.denoiser.base import DenoisingNetwork, Prepared
from darkroom.nn.denoiser.kinds import KIND, from_json, kind_of
from darkroom.nn.denoiser.kinds import build as build_denoiser
from darkroom.nn.denoiser.score_unet import ScoreUNetConfig
from darkroom.nn.denoiser.unet import UNet2DConditionModel, UNetConfig
from darkroom.nn.text.clip import CLIPTextModel


class Drawing:
    """The networks as pictures are drawn with them, in `precision`.

    decoder: the autoencoder in the form that is quickest to decode with.
    """

    def __init__(self, unet: DenoisingNetwork, vae: Autoencoder, device: torch.device, precision: Precision) -> None:
        self._network = CapturedNetwork(unet, device, precision)
        self.decoder = quick(vae, device, precision)

    def network(self, on_evaluation: OnEvaluation) -> "WatchedNetwork":
        """The denoising network; `on_evaluation` is called before each of its evaluations."""
        return WatchedNetwork(self._network, on_evaluation)


@dataclass(frozen=True)
class WatchedNetwork:
    """A `diffusion.denoiser.Network`; `on_evaluation` is called before each evaluation."""

    captured: CapturedNetwork
    on_evaluation: OnEvaluation

    def prepare(self, *conditions: Condition) -> Prepared:
        """In the precision of the network."""
        return self.captured.prepare(*conditions)

    def __call__(self, x: Tensor, t: Tensor, prepared: Prepared) -> Tensor:
        """The network's output."""
        self.on_evaluation()
        return self.captured(x, t, *prepared)


class Networks(NamedTuple):
    """A pipeline's description and its frozen networks; text: None for a model without prompts."""

    info: PipelineInfo
    unet: DenoisingNetwork
    vae: Autoencoder
    text: tuple[CLIPTokenizer, CLIPTextModel] | None


def read_networks(
    path: Path, device: torch.device, precision: Precision | None, tokenizer: Path | None, config: Path | None
) -> Networks:
    """Read what lies at `path`, strictly.

    Args:
        precision: of the U-Net, in place of the description's.
        tokenizer, config: see interop.source.read_model; for models of other tools.

    Raises:
        DarkroomError: nothing is there, or it is not a model, or an incomplete one.
    """
    if path.is_file() or ((path / INDEX).is_file() and not (path / PIPELINE).is_file()):
        model = read_model(path, tokenizer, config)
        info = PipelineInfo.of(model)
        return Networks(
            info,
            _for_drawing(build(model.unet, model.unet_weights, device, precision or info.precision), device),
            build_vae(model.vae, model.vae_weights, device),
            (model.tokenizer, build(model.text, model.text_weights, device)),
        )
    info = PipelineInfo.read(path)
    vae: Autoencoder
    if info.identity_range is not None:
        vae = IdentityAutoencoder(*info.identity_range)
    else:
        vae, _ = read_vae(path / VAE, device)
    text = None
    if info.condition.of_text:
        words = CLIPTokenizer.read(path / TOKENIZER)
        text = words, read_text_encoder(path / TEXT_ENCODER, words, device)
    networks = Networks(info, _read_denoiser(path / UNET, info, device, precision or info.precision), vae, text)
    _check_compatible(path, networks)
    return networks


def _for_drawing(unet: UNet2DConditionModel, device: torch.device) -> DenoisingNetwork:
    return FrozenUNet(unet) if device.type in ("cpu", "cuda") else unet.stored()


def halved(network: DenoisingNetwork) -> DenoisingNetwork:
    """Itself, its products' weights in bfloat16, as autocast would round them anew at every call."""
    for module in network.modules():
        if isinstance(module, nn.Conv2d | nn.ConvTranspose2d | nn.Linear):
            module.to(torch.bfloat16)
    return network


def _read_denoiser(folder: Path, info: PipelineInfo, device: torch.device, precision: Precision) -> DenoisingNetwork:
    if info.network == DIFFUSERS_KIND:
        return _for_drawing(read_unet(folder, device, precision), device)
    config = from_json(read_json(folder / CONFIG, COPY, JSON_BYTES), folder / CONFIG)
    if kind_of(config) != info.network:
        raise DarkroomError(f"{folder / CONFIG}: {KIND} = {kind_of(config)!r}, but {PIPELINE} says {info.network!r}")
    file = open_checkpoint(folder / DIFFUSERS_WEIGHTS)
    wanted = outline(lambda: build_denoiser(config), folder / CONFIG, remedy=COPY).state_dict()
    check_keys(file.path, {key: tuple(value.shape) for key, value in wanted.items()}, file.shapes)
    network = load_weights(build_denoiser(config), file.path, device, remedy=COPY).stored()
    return halved(network) if device.type == "cuda" and precision == "bf16" else network


def _check_compatible(path: Path, networks: Networks) -> None:
    """Refuse networks that do not fit each other before any of them is run.

    Raises:
        DarkroomError: names the pipeline, both networks and both values.
    """
    info, unet, vae, text = networks
    latents, pictures = unet.config.in_channels, info.channels
    pairs: list[tuple[str, int | None, str, int | None]]
    if isinstance(vae, IdentityAutoencoder):
        pairs = [("unet: in_channels", latents, f"{PIPELINE}: image.channels", pictures)]
    else:
        pairs = [
            ("unet: in_channels", latents, "vae: latent_channels", vae.config.latent_channels),
            ("vae: in_channels", vae.config.in_channels, f"{PIPELINE}: image.channels", pictures),
            ("vae: out_channels", vae.config.out_channels, f"{PIPELINE}: image.channels", pictures),
        ]
    classes = len(info.condition.classes) if info.condition.of_classes else None
    if isinstance(unet.config, UNetConfig):
        config, width = unet.config, text[1].config.hidden_size if text else None
        with_null, what = None if classes is None else classes + 1, f"{PIPELINE}: condition.classes, with none,"
        pairs += [
            ("unet: out_channels", config.out_channels, "in_channels", latents),
            ("unet: num_class_embeds", config.num_class_embeds, what, with_null),
            ("unet: cross_attention_dim", config.cross_attention_dim, "text_encoder: hidden_size", width),
        ]
    if isinstance(unet.config, ScoreUNetConfig):
        pairs.append(("unet: num_classes", unet.config.num_classes, f"{PIPELINE}: condition.classes", classes))
    if text is not None:
        words, encoder = text[0], text[1].config
        length, most = words.max_length, encoder.max_position_embeddings
        pairs.append(("tokenizer: model_max_length", max(length, most), "text_encoder: max_position_embeddings", most))
        known = max(encoder.vocab_size, 1 + max(words.vocab.values()))
        pairs.append(("tokenizer: its largest id + 1", known, "text_encoder: vocab_size", encoder.vocab_size))
    for part, value, other, wanted in pairs:
        if value != wanted:
            raise DarkroomError(
                f"{path}: {part} = {value}, but {other} = {wanted}; they do not belong together: {COPY}"
            )
