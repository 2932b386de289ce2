"""Networks on disk: rebuilt exactly, or refused by name."""

from pathlib import Path

import pytest
import torch
from torch import nn

from darkroom.core.artifact import content_hash, read_json
from darkroom.core.errors import DarkroomError
from darkroom.core.weights import WEIGHTS, load_weights, write_network

CPU = torch.device("cpu")


def written(folder: Path) -> nn.Linear:
    network = nn.Linear(3, 2)
    write_network(folder, WEIGHTS, network, {"network": {"in_features": 3, "out_features": 2}}, {"inputs": {}})
    return network


def test_a_network_comes_back_as_it_was_frozen(tmp_path: Path) -> None:
    network = written(tmp_path / "model")
    found = load_weights(nn.Linear(3, 2), tmp_path / "model" / WEIGHTS, CPU)
    assert torch.equal(found.weight, network.weight)
    assert not found.training
    assert not any(p.requires_grad for p in found.parameters())
    assert read_json(tmp_path / "model" / "provenance.json") == {"inputs": {}}


def test_the_same_network_is_the_same_folder(tmp_path: Path) -> None:
    network = written(tmp_path / "1")
    config = {"network": {"out_features": 2, "in_features": 3}}
    write_network(tmp_path / "2", WEIGHTS, network, config, {"inputs": {}})
    assert content_hash(tmp_path / "1") == content_hash(tmp_path / "2")


def test_weights_of_another_shape_or_name_are_refused(tmp_path: Path) -> None:
    written(tmp_path / "model")
    for other in (nn.Linear(3, 3), nn.Linear(3, 2, bias=False)):
        with pytest.raises(DarkroomError, match=r"model\.safetensors: does not fit its config\.json") as error:
            load_weights(other, tmp_path / "model" / WEIGHTS, CPU)
        assert "\n" not in str(error.value)
