"""The networks of a pipeline: of a folder of our own, of a diffusers folder, or of a Stable Diffusion 1.x file."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

import torch
from torch import Tensor

from darkroom.config.base import Precision
from darkroom.config.denoisers import DenoiserSpec
from darkroom.config.networks import IdentityConfig
from darkroom.core.artifact import CONFIG, COPY, PIPELINE, read_json
from darkroom.core.errors import DarkroomError
from darkroom.core.limits import JSON_BYTES
from darkroom.core.weights import DIFFUSERS_WEIGHTS, load_weights, outline
from darkroom.data.tokenizer import CLIPTokenizer
from darkroom.diffusion.denoiser import Condition
from darkroom.inference.adapters import read_adapters
from darkroom.inference.captured import CapturedNetwork
from darkroom.inference.folder import DIFFUSERS_KIND, PipelineInfo
from darkroom.inference.options import OnEvaluation
from darkroom.inference.packed_unet import PackedUNet
from darkroom.interop.checkpoint import check_keys, open_checkpoint
from darkroom.interop.contents import INDEX
from darkroom.interop.diffusers import (
    TEXT_ENCODER,
    TOKENIZER,
    UNET,
    VAE,
    read_text_encoder,
    read_unet,
    read_vae,
)
from darkroom.interop.lora import Adapter, LoRA, merged, read_adapter
from darkroom.interop.model import build, build_vae
from darkroom.interop.source import read_model
from darkroom.nn.autoencoder.identity import Autoencoder, IdentityAutoencoder
from darkroom.nn.autoencoder.packed_vae import quick
from darkroom.nn.denoiser.base import DenoisingNetwork, Prepared
from darkroom.nn.denoiser.base import build as build_denoiser
from darkroom.nn.denoiser.unet import UNet2DConditionModel
from darkroom.nn.layers.lora import halve
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
    """A pipeline's description and its frozen networks; text: None for a model without prompts.

    adapters: those that are part of the networks.
    """

    info: PipelineInfo
    unet: DenoisingNetwork
    vae: Autoencoder
    text: tuple[CLIPTokenizer, CLIPTextModel] | None
    adapters: tuple[Adapter, ...] = ()


def read_networks(
    path: Path,
    device: torch.device,
    precision: Precision | None,
    loras: Sequence[LoRA] = (),
    tokenizer: Path | None = None,
    config: Path | None = None,
) -> Networks:
    """Read what lies at `path`, strictly.

    Args:
        precision: of the U-Net, in place of the description's.
        loras: adapters that are added to the weights as these are read.
        tokenizer, config: see interop.source.read_model; for models of other tools.

    Raises:
        DarkroomError: nothing is there, or it is not a model, or an incomplete one.
    """
    if path.is_file() or ((path / INDEX).is_file() and not (path / PIPELINE).is_file()):
        model = read_model(path, tokenizer, config)
        info = PipelineInfo.of(model)
        adapters = tuple(read_adapter(lora, model.unet_weights, model.text_weights) for lora in loras)
        unet_weights = merged(model.unet_weights, adapters, "unet")
        text_weights = merged(model.text_weights, adapters, "text_encoder")
        return Networks(
            info,
            _for_drawing(build(model.unet, unet_weights, device, precision or info.precision), device),
            build_vae(model.vae, model.vae_weights, device),
            (model.tokenizer, build(model.text, text_weights, device)),
            adapters,
        )
    info = PipelineInfo.read(path)
    vae: Autoencoder
    if info.identity_range is not None:
        vae = IdentityAutoencoder(IdentityConfig(range=list(info.identity_range)))
    else:
        vae, _ = read_vae(path / VAE, device)
    words = CLIPTokenizer.read(path / TOKENIZER) if info.condition.of_text else None
    adapters = read_adapters(path, info, loras)
    text = None if words is None else (words, read_text_encoder(path / TEXT_ENCODER, words, device, adapters))
    unet = _read_denoiser(path / UNET, info, device, precision or info.precision, adapters)
    networks = Networks(info, unet, vae, text, adapters)
    _check_compatible(path, networks)
    return networks


def _for_drawing(unet: UNet2DConditionModel, device: torch.device) -> DenoisingNetwork:
    return PackedUNet(unet) if device.type in ("cpu", "cuda") else unet.stored()


def _read_denoiser(
    folder: Path, info: PipelineInfo, device: torch.device, precision: Precision, adapters: Sequence[Adapter]
) -> DenoisingNetwork:
    if info.network == DIFFUSERS_KIND:
        return _for_drawing(read_unet(folder, device, precision, adapters), device)
    spec = DenoiserSpec.read(read_json(folder / CONFIG, COPY, JSON_BYTES), str(folder / CONFIG), COPY)
    config, sizes = spec.network, spec.sizes
    if config.kind != info.network:
        raise DarkroomError(f"{folder / CONFIG}: kind = {config.kind!r}, but {PIPELINE} says {info.network!r}")
    file = open_checkpoint(folder / DIFFUSERS_WEIGHTS)
    wanted = outline(lambda: build_denoiser(config, sizes), folder / CONFIG, remedy=COPY).state_dict()
    check_keys(file.path, {key: tuple(value.shape) for key, value in wanted.items()}, file.shapes)
    network = load_weights(build_denoiser(config, sizes), file.path, device, remedy=COPY).stored()
    return halve(network) if device.type == "cuda" and precision == "bf16" else network


def _check_compatible(path: Path, networks: Networks) -> None:
    """Refuse networks that do not fit each other before any of them is run.

    Raises:
        DarkroomError: names the pipeline, both networks and both values.
    """
    info, unet, vae, text, _ = networks
    latents, pictures = unet.sizes.in_channels, info.channels
    pairs: list[tuple[str, int | None, str, int | None]]
    if isinstance(vae, IdentityAutoencoder):
        pairs = [("unet: in_channels", latents, f"{PIPELINE}: image.channels", pictures)]
    else:
        pairs = [
            ("unet: in_channels", latents, "vae: latent_channels", vae.config.latent_channels),
            ("vae: in_channels", vae.sizes.in_channels, f"{PIPELINE}: image.channels", pictures),
        ]
    classes = len(info.condition.classes) if info.condition.of_classes else None
    width = None if text is None else text[1].config.hidden_size
    pairs += [
        ("unet: classes", unet.sizes.num_classes, f"{PIPELINE}: condition.classes", classes),
        ("unet: cross_attention_dim", unet.sizes.cross_attention_dim, "text_encoder: hidden_size", width),
    ]
    if text is not None:
        words, encoder = text[0], text[1].config
        length, most = words.max_length, encoder.max_length
        pairs.append(("tokenizer: model_max_length", max(length, most), "text_encoder: max_position_embeddings", most))
        known = max(encoder.vocab_size, 1 + max(words.vocab.values()))
        pairs.append(("tokenizer: its largest id + 1", known, "text_encoder: vocab_size", encoder.vocab_size))
    for part, value, other, wanted in pairs:
        if value != wanted:
            raise DarkroomError(
                f"{path}: {part} = {value}, but {other} = {wanted}; they do not belong together: {COPY}"
            )
