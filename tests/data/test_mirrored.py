"""The stage cache_latents with mirror: both orientations of each training picture, told apart from pictures."""

from collections.abc import Callable
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import pytest
import torch

from darkroom.config.params import load as params_of
from darkroom.core.artifact import provenance
from darkroom.core.weights import DIFFUSERS_WEIGHTS, write_network
from darkroom.data.latents import Latents, read_info
from darkroom.data.prepared import Prepared
from darkroom.data.prepared_writer import PreparedWriter, Row
from darkroom.runner.stage import Work
from darkroom.tracking import Run
from darkroom.tracking.note import Account
from tests.support.networks import identity

ROOT = Path(__file__).parents[2]
COUNTS = {"train": 5, "validation": 3, "test": 2}


def test_both_orientations_of_training_pictures_are_cached(
    load: Callable[[Path], ModuleType], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Faults caught: a condition taken for the wrong picture, held-out pictures mirrored, rows counted as pictures."""
    monkeypatch.chdir(tmp_path)
    writer = PreparedWriter(Path("data/prepared"), "noise", (), True, 8, 3)
    for split, n in COUNTS.items():
        for i in range(n):
            pixels = np.random.default_rng(i).integers(0, 256, (8, 8, 3), dtype=np.uint8)
            writer.add(split, Row(pixels, f"{i}.png", f"{i}", (), ()))
    writer.finish()
    config: dict[str, Any] = {"kind": "identity", "network": {"range": [-1.0, 1.0]}, "scaling_factor": None}
    origin = provenance(Path("data/prepared"))
    write_network(Path("artifacts/vae"), DIFFUSERS_WEIGHTS, identity(-1.0, 1.0), config, origin)
    params = params_of(ROOT / "recipes" / "scenes.yaml")
    mirrored = params.cache_latents.model_copy(update={"mirror": True})
    work = Work(torch.device("cpu"), Run(Account("cache_latents", {}, {}, {}, {}, "", False), tracked=False))
    figures = load(ROOT / "stages" / "cache_latents.py").body(
        params.model_copy(update={"cache_latents": mirrored}), work
    )
    assert (figures["training_pictures"], figures["training_latents"]) == (5, 10)
    info = read_info("data/latents")
    assert (info.splits, info.variants) == ({"train": 10, "validation": 3}, 2)
    train, held_out = (Latents.read("data/latents", split) for split in ("train", "validation"))
    pictures = Prepared.open("data/prepared").split("train").images().float()
    both = torch.cat([pictures, pictures.flip(3)]) / 127.5 - 1
    torch.testing.assert_close(train.mean.in_memory().float(), both, atol=1e-3, rtol=0)
    assert train.pictures(torch.tensor([0, 4, 5, 9])).tolist() == [0, 4, 0, 4]
    assert held_out.pictures(torch.arange(3)).tolist() == [0, 1, 2]
