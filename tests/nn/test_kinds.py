"""Every kind of denoiser: rebuilt from its config.json, its weights taken strictly, whatever file it lies in."""

import json
from typing import Any

import pytest
import torch

from darkroom.config.denoisers import DENOISERS, DenoiserSpec
from darkroom.core.errors import DarkroomError
from darkroom.nn.denoiser.base import DenoisingNetwork
from tests.support.networks import DOWN, UP, batch_norm, built, layer_norm, score, unet

FILE = "unet/config.json"
SPECS: dict[str, Any] = {
    "unet_2d_condition": unet((DOWN,), (UP,), (16,)),
    "score_unet": score("transformer", classes=3),
    "layer_norm_unet": layer_norm(side=12, channels=2),
    "batch_norm_unet": batch_norm(),
}


def test_every_kind_is_known() -> None:
    assert SPECS.keys() == DENOISERS.classes.keys()


@pytest.mark.parametrize("kind", DENOISERS.classes)
def test_a_network_is_rebuilt_from_its_config_json(kind: str) -> None:
    """Fails if a key is lost on the way, or if a config names a network that is not its own."""
    spec = SPECS[kind]
    assert spec.network.kind == kind
    read = DenoiserSpec.read(json.loads(json.dumps(spec.model_dump())), FILE, "make it again")
    assert (read.network, read.sizes) == (spec.network, spec.sizes)
    first, second = built(spec), built(read)
    assert isinstance(first, DenoisingNetwork)
    second.load_state_dict(first.state_dict())
    assert all(torch.equal(a, b) for a, b in zip(first.parameters(), second.parameters(), strict=True))
    assert second.config == spec.network


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"kind": "resnet"}, "kind = 'resnet': give unet_2d_condition or score_unet"),
        ({"depth": 3}, "depth = 3 is an unknown key"),
        ({"widths": 64}, "widths = 64: give a list"),
        ({"widths": [64]}, r"widths = \[64\]: give a list of 2 to 8"),
        ({"widths": [8, 10**9]}, "widths = 1,000,000,000: more than 1,000,000"),
    ],
)
def test_another_config_json_is_refused_by_name(change: dict[str, Any], message: str) -> None:
    values = SPECS["batch_norm_unet"].model_dump()
    with pytest.raises(DarkroomError, match=rf"^unet/config\.json: (network\.)?{message}.*; make it again$"):
        DenoiserSpec.read({**values, "network": values["network"] | change}, FILE, "make it again")
    with pytest.raises(DarkroomError, match=r"^unet/config\.json: network is missing"):
        DenoiserSpec.read([], FILE, "make it again")
