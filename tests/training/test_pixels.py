"""Pixel-space recipes through every stage behind prepare_data, on pictures of 28 pixels and one channel."""

from collections.abc import Callable
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from torch import Tensor

from darkroom import Pipeline
from darkroom.core.artifact import read_json
from darkroom.core.tensors import to_uint8
from darkroom.data.latents import Latents, read_preview
from darkroom.data.prepared import Head, Prepared, PreparedWriter, Row
from darkroom.params import Params, read
from darkroom.tracking import Run
from darkroom.tracking.note import Account

ROOT = Path(__file__).parents[2]
CPU = torch.device("cpu")
SIDE = 28
DIGITS = ("zero", "one", "two")
STAGES = ("train_vae", "cache_latents", "setup_text_encoder", "train_unet", "train_evaluator", "evaluate")
SHORT = {"steps": 2, "batch_size": 8, "validate_every": 1, "warmup_steps": 0}
SAMPLING = {"num_inference_steps": 3}
TINY: dict[str, Any] = {
    "prepare_data": {"image_size": SIDE},
    "train_vae": {"mode": "identity", "identity_range": [0.0, 1.0]},
    "cache_latents": {"scaling": "none"},
    "setup_text_encoder": {"mode": "none"},
    "train_unet": {**SHORT, "held_out": 8, "sample_every": 2, "samples": 4, "sampling": SAMPLING},
    "train_evaluator": {**SHORT, "image": {"width": 16}},
    "evaluate": {"n_test": 30, "n_grid": 4, "sampling": SAMPLING, "n_sweep": 2, "guidance_sweep": [1.0, 2.0]},
}
NETWORKS: dict[str, dict[str, Any]] = {
    "score_unet": {"kind": "score_unet", "variant": "residual"},
    "score_unet of classes": {"kind": "score_unet", "variant": "transformer"},
    "layer_norm_unet": {"kind": "layer_norm_unet"},
    "batch_norm_unet": {"kind": "batch_norm_unet", "widths": [8, 16, 16]},
}


def merged(values: dict[str, Any], changes: dict[str, Any]) -> dict[str, Any]:
    nested = {
        key: merged(values[key], value) if isinstance(value, dict) and "kind" not in value else value
        for key, value in changes.items()
    }
    return {**values, **nested}


def pictures() -> Tensor:
    """Strokes of every grey level, as digits have them; uint8 (N, 1, 28, 28)."""
    rng = np.random.default_rng(0)
    noise = rng.integers(0, 256, (120, 1, SIDE, SIDE), dtype=np.uint8)
    return torch.from_numpy(np.where(rng.random(noise.shape) < 0.7, 0, noise).astype(np.uint8))


@pytest.fixture
def run(
    load: Callable[[Path], ModuleType], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> Callable[..., dict[str, Any]]:
    """Runs stages in a folder with labelled pictures; gives their figures."""
    monkeypatch.chdir(tmp_path)
    writer = PreparedWriter(Path("data/prepared"), "noise", (Head("label", DIGITS),), True, SIDE, 1)
    for i, picture in enumerate(pictures()):
        split = ("train", "train", "validation", "test")[i % 4]
        label = i % len(DIGITS)
        writer.add(split, Row(picture[0].numpy(), f"{i}.png", f"a {DIGITS[label]}", (label,), (True,)))
    writer.finish((), 0, {})

    def run(*stages: str, **changes: Any) -> dict[str, Any]:
        params = Params.model_validate(merged(merged(read(ROOT / "recipes" / "mnist.yaml"), TINY), changes))
        untracked = [Run(Account(name, {}, {}, {}, {}, "", False), tracked=False) for name in stages]
        bodies = [load(ROOT / "stages" / f"{name}.py").body for name in stages]
        return {name: body(params, CPU, run) for name, body, run in zip(stages, bodies, untracked, strict=True)}

    return run


def test_the_cache_holds_the_pictures_in_their_range_and_previews_show_them_as_they_are(run: Any) -> None:
    run("train_vae", "cache_latents", train_unet={"unet": NETWORKS["score_unet"]})
    assert read_json("artifacts/vae/config.json")["identity_range"] == [0.0, 1.0]
    real = Prepared.open("data/prepared").split("train").images()
    latents = Latents.read("data/latents", "train")
    drawn = latents.sample(torch.arange(len(latents)), torch.empty(0))
    assert torch.equal((drawn * 255).round(), real.float())
    assert torch.equal(to_uint8(read_preview("data/latents")(drawn)), real)


@pytest.mark.parametrize("name", NETWORKS)
def test_every_stage_works_at_this_side_and_the_pipeline_draws(name: str, run: Any) -> None:
    mode = "class" if name.endswith("classes") else "none"
    changes = {"setup_text_encoder": {"mode": mode}, "train_unet": {"unet": NETWORKS[name]}}
    figures = run(*STAGES, **changes)
    assert figures["train_vae"]["held_out/l1"] == 0
    assert figures["cache_latents"]["scaling_factor"] == 1
    assert np.isfinite(figures["train_unet"]["held_out_loss"])
    assert np.isfinite(list(figures["evaluate"].values())).all()
    grid = Image.open("reports/train_unet/samples.png")
    assert (grid.mode, grid.size) == ("L", (2 * 3 * SIDE + 6,) * 2)
    pipeline = Pipeline.from_pretrained("artifacts/pipeline", device="cpu")
    assert pipeline.info.network == NETWORKS[name]["kind"]
    (picture,) = pipeline.text_to_image(DIGITS[0] if mode == "class" else "")
    assert (picture.mode, picture.size) == ("L", (SIDE, SIDE))
