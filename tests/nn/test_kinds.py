"""Every kind of network: rebuilt from its config.json, its weights taken strictly."""

import json
from pathlib import Path
from typing import Any, get_args

import pytest
import torch

from darkroom.config.choices import NetworkKind
from darkroom.core.errors import DarkroomError
from darkroom.nn.denoiser.batch_norm_unet import BatchNormUNetConfig
from darkroom.nn.denoiser.kinds import KINDS, DenoiserConfig, build, from_json, kind_of, to_json
from darkroom.nn.denoiser.layer_norm_unet import LayerNormUNetConfig
from darkroom.nn.denoiser.score_unet import ScoreUNetConfig
from darkroom.nn.denoiser.unet import UNetConfig

FILE = Path("unet/config.json")
CONFIGS: dict[str, DenoiserConfig] = {
    "unet_2d_condition": UNetConfig(8, 4, 4, ("DownBlock2D",), ("UpBlock2D",), (16,), 1, None, 2, norm_num_groups=4),
    "score_unet": ScoreUNetConfig("transformer", num_classes=3),
    "layer_norm_unet": LayerNormUNetConfig(sample_size=12, in_channels=2),
    "batch_norm_unet": BatchNormUNetConfig(widths=(8, 16)),
}


def test_every_kind_is_known() -> None:
    assert CONFIGS.keys() == KINDS.keys() == set(get_args(NetworkKind))


@pytest.mark.parametrize("kind", KINDS)
def test_a_network_is_rebuilt_from_its_config_json(kind: str) -> None:
    config = CONFIGS[kind]
    assert kind_of(config) == kind
    read = from_json(json.loads(json.dumps(to_json(config))), FILE)
    assert read == config
    first, second = build(config), build(read)
    second.load_state_dict(first.state_dict())
    assert all(torch.equal(a, b) for a, b in zip(first.parameters(), second.parameters(), strict=True))
    assert second.config.in_channels == config.in_channels


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"kind": "resnet"}, "kind = 'resnet' is no network's; there are unet_2d_condition, score_unet"),
        ({"depth": 3}, "depth is missing or unknown for kind batch_norm_unet"),
        ({"widths": 64}, "widths: Input should be a valid array, not 64"),
        ({"widths": [64]}, r"widths = \[64\]: give at least two"),
    ],
)
def test_another_config_json_is_refused_by_name(change: dict[str, Any], message: str) -> None:
    with pytest.raises(DarkroomError, match=rf"unet/config\.json: {message}"):
        from_json({**to_json(CONFIGS["batch_norm_unet"]), **change}, FILE)
    with pytest.raises(DarkroomError, match="kind = None"):
        from_json([], FILE)
