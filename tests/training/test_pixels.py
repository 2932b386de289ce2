"""Pixel-space recipes, made small, through every stage behind prepare_data, on pictures of the recipes' own shape."""

from collections.abc import Callable
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from darkroom import Pipeline
from darkroom.core.artifact import read_json
from darkroom.core.tensors import to_float, to_uint8
from darkroom.data.latents import Latents, read_preview
from darkroom.data.prepared import Head, Prepared, PreparedWriter, Row
from darkroom.params import Params, read
from darkroom.params import load as params_of
from darkroom.tracking import Run
from darkroom.tracking.note import Account

ROOT = Path(__file__).parents[2]
CPU = torch.device("cpu")
DIGITS = ("zero", "one", "two")
STAGES = ("train_vae", "cache_latents", "setup_text_encoder", "train_unet", "train_evaluator", "evaluate")
SHORT = {"steps": 2, "batch_size": 8, "validate_every": 1, "warmup_steps": 0}
SAMPLING = {"num_inference_steps": 3}
TINY: dict[str, Any] = {
    "train_unet": {**SHORT, "held_out": 8, "sample_every": 2, "samples": 4, "sampling": SAMPLING},
    "train_evaluator": {**SHORT, "image": {"width": 16}},
    "evaluate": {"n_test": 30, "n_grid": 4, "sampling": SAMPLING, "n_sweep": 2, "guidance_sweep": [1.0, 2.0]},
}
NARROW = {"train_unet": {"unet": {"widths": [8, 16, 16]}}}
RECIPES: dict[str, dict[str, Any]] = {
    "mnist-score-concat": {},
    "mnist-score-residual": {},
    "mnist-score-transformer": {},
    "fashion-ddpm": {},
    "photos-ddpm": NARROW,
    "photos-ddpm-small": NARROW,
}
Stages = Callable[..., dict[str, Any]]


def merged(values: dict[str, Any], changes: dict[str, Any]) -> dict[str, Any]:
    nested = {key: merged(values[key], value) if isinstance(value, dict) else value for key, value in changes.items()}
    return {**values, **nested}


def write_pictures(p: Params) -> None:
    """Strokes of every grey level, as digits have them; with classes where the source has them."""
    rng, shape = np.random.default_rng(0), (120, p.prepare_data.image_size, p.prepare_data.image_size, 3)
    pictures = np.where(rng.random(shape) < 0.7, 0, rng.integers(0, 256, shape)).astype(np.uint8)
    if p.prepare_data.channels == 1:
        pictures = pictures[..., 0]
    labelled = p.prepare_data.source.kind == "torchvision"
    heads = (Head("label", DIGITS),) if labelled else ()
    writer = PreparedWriter(
        Path("data/prepared"), "noise", heads, labelled, p.prepare_data.image_size, p.prepare_data.channels
    )
    for i, picture in enumerate(pictures):
        split, label = ("train", "train", "validation", "test")[i % 4], i % len(DIGITS)
        known = (f"a {DIGITS[label]}", (label,), (True,)) if labelled else ("", (), ())
        writer.add(split, Row(picture, f"{i}.png", *known))
    writer.finish((), 0, {})


@pytest.fixture
def run(load: Callable[[Path], ModuleType], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Stages:
    """Runs stages of a recipe in a folder with pictures; gives their figures."""
    monkeypatch.chdir(tmp_path)

    def run(recipe: str, *stages: str) -> dict[str, Any]:
        values = read(ROOT / "recipes" / f"{recipe}.yaml")
        params = Params.model_validate(merged(merged(values, TINY), RECIPES[recipe]))
        write_pictures(params)
        untracked = [Run(Account(name, {}, {}, {}, {}, "", False), tracked=False) for name in stages]
        bodies = [load(ROOT / "stages" / f"{name}.py").body for name in stages]
        return {name: body(params, CPU, run) for name, body, run in zip(stages, bodies, untracked, strict=True)}

    return run


def test_these_are_all_recipes_without_an_autoencoder() -> None:
    recipes = {file.stem: params_of(file) for file in (ROOT / "recipes").glob("*.yaml")}
    assert RECIPES.keys() == {name for name, params in recipes.items() if params.train_vae.mode == "identity"}


@pytest.mark.parametrize(("recipe", "black"), [("mnist-score-concat", 0.0), ("photos-ddpm-small", -1.0)])
def test_the_cache_holds_the_pictures_in_their_range_and_previews_show_them_as_they_are(
    recipe: str, black: float, run: Stages
) -> None:
    run(recipe, "train_vae", "cache_latents")
    assert read_json("artifacts/vae/config.json")["identity_range"] == [black, 1.0]
    real = Prepared.open("data/prepared").split("train").images()
    latents = Latents.read("data/latents", "train")
    drawn = latents.sample(torch.arange(len(latents)), torch.empty(0))
    assert torch.allclose(drawn, real / 255 if black == 0 else to_float(real), atol=1e-3)
    assert torch.equal(to_uint8(read_preview("data/latents")(drawn)), real)


@pytest.mark.parametrize("recipe", RECIPES)
def test_every_stage_works_and_the_pipeline_draws(recipe: str, run: Stages) -> None:
    p = params_of(ROOT / "recipes" / f"{recipe}.yaml")
    figures = run(recipe, *STAGES)
    assert figures["train_vae"]["held_out/l1"] == pytest.approx(0, abs=1e-7)
    assert figures["cache_latents"]["scaling_factor"] == 1
    assert np.isfinite(figures["train_unet"]["held_out_loss"])
    assert np.isfinite(list(figures["evaluate"].values())).all()
    side, mode = p.prepare_data.image_size, "L" if p.prepare_data.channels == 1 else "RGB"
    grid = Image.open("reports/train_unet/samples.png")
    assert (grid.mode, grid.size) == (mode, (2 * side * (96 // side) + 6,) * 2)
    pipeline = Pipeline.from_pretrained("artifacts/pipeline", device="cpu")
    assert pipeline.info.network == p.train_unet.unet.kind
    (picture,) = pipeline.text_to_image(DIGITS[0] if p.setup_text_encoder.mode == "class" else "")
    assert (picture.mode, picture.size) == (mode, (side, side))
