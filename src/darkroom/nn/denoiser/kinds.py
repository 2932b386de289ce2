"""The kinds of denoising networks: which configuration makes which, and how a config.json tells them apart."""

import reprlib
from collections.abc import Callable
from dataclasses import asdict, fields
from pathlib import Path
from typing import Any

from darkroom.config.choices import NetworkKind
from darkroom.core.errors import DarkroomError
from darkroom.core.limits import check_network
from darkroom.core.outside import typed
from darkroom.nn.denoiser.base import DenoisingNetwork
from darkroom.nn.denoiser.batch_norm_unet import BatchNormUNet, BatchNormUNetConfig
from darkroom.nn.denoiser.layer_norm_unet import LayerNormUNet, LayerNormUNetConfig
from darkroom.nn.denoiser.score_unet import ScoreUNet, ScoreUNetConfig
from darkroom.nn.denoiser.unet import UNet2DConditionModel, UNetConfig

DenoiserConfig = UNetConfig | ScoreUNetConfig | LayerNormUNetConfig | BatchNormUNetConfig

KINDS: dict[NetworkKind, tuple[type[DenoiserConfig], Callable[[Any], DenoisingNetwork]]] = {
    "unet_2d_condition": (UNetConfig, UNet2DConditionModel),
    "score_unet": (ScoreUNetConfig, ScoreUNet),
    "layer_norm_unet": (LayerNormUNetConfig, LayerNormUNet),
    "batch_norm_unet": (BatchNormUNetConfig, BatchNormUNet),
}
AGAIN = "make it again"
KIND = "kind"  # the key beside a configuration's own


def kind_of(config: DenoiserConfig) -> NetworkKind:
    """The kind of network that a configuration describes."""
    return next(kind for kind, (known, _) in KINDS.items() if known is type(config))


def build(config: DenoiserConfig) -> DenoisingNetwork:
    """The network of a configuration; initial weights come from PyTorch's global generator."""
    return KINDS[kind_of(config)][1](config)


def to_json(config: DenoiserConfig) -> dict[str, Any]:
    """What a config.json says of a network: its kind, and every key of its configuration."""
    return {KIND: kind_of(config), **asdict(config)}


def from_json(values: Any, file: Path) -> DenoiserConfig:
    """The configuration that `to_json` wrote into `file`.

    Raises:
        DarkroomError: an unknown kind, other keys than this kind has, or values that no network can have.
    """
    kind = values.get(KIND) if isinstance(values, dict) else None
    if not isinstance(kind, str) or kind not in KINDS:
        raise DarkroomError(
            f"{file}: kind = {reprlib.repr(kind)} is no network's; there are {', '.join(KINDS)}: {AGAIN}"
        )
    config, _ = KINDS[kind]
    given = {key: value for key, value in values.items() if key != KIND}
    if strange := given.keys() ^ {field.name for field in fields(config)}:
        raise DarkroomError(
            f"{file}: {reprlib.repr(sorted(strange)[0])[1:-1]} is missing or unknown for kind {kind}; {AGAIN}"
        )
    check_network(given, str(file), AGAIN)
    return typed(config, given, str(file), AGAIN)
