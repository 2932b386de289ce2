"""Tiny random artifacts, written as the stages write them, and pipelines assembled of them."""

from dataclasses import asdict
from pathlib import Path
from typing import Any

import torch

from darkroom.config.base import Precision
from darkroom.config.denoisers import DenoiserSpec
from darkroom.config.sampling import Sampling
from darkroom.core.artifact import CONFIG, save_tensors, write_json
from darkroom.core.rng import seeded
from darkroom.core.weights import DIFFUSERS_WEIGHTS, WEIGHTS, write_network
from darkroom.data.conditioning import ConditioningInfo
from darkroom.data.latents import LatentsInfo
from darkroom.data.tokenizer import CLIPTokenizer
from darkroom.inference.folder import Trained, assemble
from darkroom.inference.words import Words
from darkroom.nn.denoiser.score_unet import ScoreUNet
from tests.support import networks
from tests.support.diffusion import make_sampling, vp_config

CAPTIONS = [
    f"a {size} {color} {shape}"
    for size in ("small", "large")
    for color in ("red", "green", "blue")
    for shape in ("circle", "square")
]
CLASSES = ["zero", "one", "two"]
SIZE, MAX_LENGTH, WIDTH = 16, 12, 32
SAMPLING = make_sampling("ddim", 4, 3.0, "trailing")
COSINE = vp_config("cosine").model_dump()


def assembled(
    folder: Path,
    channels: int = 3,
    precision: Precision = "fp32",
    sampling: Sampling = SAMPLING,
    size: int = SIZE,
    **how: Any,
) -> Path:
    """A pipeline of random networks, none of whose layers is silent; how: as `write_parts` takes it."""
    latents = write_parts(folder, channels=channels, size=size, **how)
    words = Words.of(CAPTIONS) if how.get("kind", "text") == "text" else None
    trained = Trained(folder / "unet", folder / "vae", folder / "text_encoder", latents, channels, size, words)
    assemble(folder / "pipeline", trained, sampling, precision, {"inputs": {}})
    return folder / "pipeline"


def write_parts(
    folder: Path,
    kind: str = "text",
    null: str = "empty_prompt",
    prediction_type: str = "v_prediction",
    process: dict[str, Any] = COSINE,
    channels: int = 3,
    autoencoder: str = "kl",
    identity_range: tuple[float, float] = (-1.0, 1.0),
    size: int = SIZE,
    network: DenoiserSpec | None = None,
) -> LatentsInfo:
    """vae, text_encoder and unet in `folder`, and the description of the latents they share.

    network: a denoiser of another kind, in the place of a UNet2DConditionModel that suits the rest.
    """
    condition, encoder = _text_encoder(folder / "text_encoder", kind, null)
    if autoencoder == "identity":
        latent = (channels, size, size)
        (folder / "vae").mkdir(parents=True)
        write_json(
            folder / "vae" / CONFIG,
            {"kind": "identity", "network": {"range": list(identity_range)}, "scaling_factor": None},
        )
    else:
        _vae(folder / "vae", channels)
        latent = (4, size // 2, size // 2)
    latents = LatentsInfo(0.7, "measured", latent, autoencoder == "identity", {"train": 1})
    words, classes = WIDTH if kind == "text" else None, len(CLASSES) if kind == "class" else None
    spec: Any = network or networks.unet(
        widths=(16, 32), groups=8, channels=latent[0], side=latent[-1], words=words, classes=classes
    )
    config = {
        **spec.model_dump(),
        "process": process if isinstance(process, dict) else process.model_dump(),
        "prediction_type": prediction_type,
        "condition": asdict(condition),
        "latents": asdict(latents),
    }
    with seeded(0, "unet"):
        unet = networks.built(spec)
        if isinstance(unet, ScoreUNet):  # starts with zeros, and would hide what feeds them
            unet.conv_out.reset_parameters()
    write_network(folder / "unet", DIFFUSERS_WEIGHTS, awake(unet) if network is None else unet, config, {"inputs": {}})
    write_json(folder / "text_encoder" / CONFIG, {**asdict(condition), **encoder})
    return latents


def awake(network: Any) -> Any:
    """Zero-initialised layers would hide what feeds them: all weights random, of a size that keeps activations mild."""
    with seeded(0, "awake"), torch.no_grad():
        for name, p in network.named_parameters():
            if p.ndim > 1:
                p.normal_(std=(1.0 if "conv_out" in name else 0.7) / p[0].numel() ** 0.5)
            elif name.endswith("bias"):
                p.normal_(std=0.1)
    return network


def _vae(folder: Path, channels: int) -> None:
    spec = networks.kl(channels=channels)
    config = {"kind": "kl", **spec.model_dump(), "scaling_factor": None}
    write_network(folder, DIFFUSERS_WEIGHTS, awake(networks.built(spec)), config, {"inputs": {}})


def _text_encoder(folder: Path, kind: Any, null: Any) -> tuple[ConditioningInfo, dict[str, Any]]:
    folder.mkdir(parents=True)
    if kind != "text":
        return ConditioningInfo(kind, None, 0, 0, CLASSES if kind == "class" else []), {}
    tokenizer = CLIPTokenizer.train(CAPTIONS, 600, MAX_LENGTH)
    tokenizer.write(folder / "tokenizer")
    spec = networks.text(len(tokenizer.vocab), WIDTH, 64, layers=2, length=MAX_LENGTH, special=tokenizer.sizes)
    with seeded(0, "text"):
        encoder = networks.built(spec)
    save_tensors(folder / WEIGHTS, encoder.state_dict())
    return ConditioningInfo("text", null, MAX_LENGTH, WIDTH, []), spec.model_dump()
