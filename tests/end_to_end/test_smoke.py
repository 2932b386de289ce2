"""Every recipe, made small, through every stage, by the stages' bodies; and one in pixel space through the real dvc."""

import csv
import json
from collections.abc import Callable
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import pytest
import torch
import yaml
from PIL import Image

from darkroom import Pipeline
from darkroom.config.params import Params, read
from darkroom.config.params import load as params_of
from darkroom.config.stage_spec import stage_spec
from darkroom.data.sources.torchvision_sets import DATASETS
from darkroom.runner.stage import Work
from darkroom.tracking import Run
from darkroom.tracking.note import Account
from darkroom.view.sheet import PICTURE

ROOT = Path(__file__).parents[2]
RECIPES = sorted(file.stem for file in (ROOT / "recipes").glob("*.yaml"))
QUICK = ("mnist-score-transformer", "photos-ddpm-small")  # not left to `make test-all`
TEST_PICTURES = 30

SHORT = {
    "steps": 3,
    "batch_size": 8,
    "validate_every": 2,
    "lr_schedule": {"warmup_steps": 0},
    "on_worse_than_chance": "warn",
}
SAMPLING = {"num_inference_steps": 3}
SMALL: dict[str, Any] = {
    "prepare_data": {"validation_fraction": 0.3, "test_fraction": 0.3},
    "train_vae": SHORT,
    "cache_latents": {},
    "setup_text_encoder": {**SHORT, "hard_negatives": {"start_step": 1, "every": 1, "group_size": 2, "neighbours": 2}},
    "train_unet": {**SHORT, "accumulation": 2, "held_out": 8, "sample_every": 2, "samples": 4, "sampling": SAMPLING},
    "train_evaluator": {**SHORT, "image": {"width": 16}},
    "evaluate": {"n_test": TEST_PICTURES, "n_grid": 4, "sampling": SAMPLING, "n_sweep": 2, "bootstrap": 100},
}
SCENES = {"n_train": 60, "n_validation": 20, "n_test": TEST_PICTURES, "n_novel": 10}
NARROW = {"train_unet": {"unet": {"widths": [8, 16, 16]}}}
OWN: dict[str, dict[str, Any]] = {  # what a recipe needs besides
    "photos-ddpm": NARROW,
    "photos-ddpm-small": NARROW,
    "scenes": {"prepare_data": {"source": SCENES}},
    "scenes-quick": {"prepare_data": {"source": SCENES}},
}


class Watched(Run):
    """A run that is kept nowhere, and remembers which pictures it was told of."""

    def __init__(self, stage: str) -> None:
        super().__init__(Account(stage, {}, {}, {}, {}, "", False), tracked=False)
        self.pictures: list[tuple[str, int | None]] = []

    def picture(self, picture: Image.Image | Path, name: str, step: int | None = None) -> None:
        self.pictures.append((name, step))


def merged(values: dict[str, Any], changes: dict[str, Any]) -> dict[str, Any]:
    """`values` with the changes, key by key; what is null stays so, and what is of another kind has no such key."""
    nested = {
        key: merged(values[key], value) if isinstance(value, dict) and values[key] else value
        for key, value in changes.items()
        if key in values and (values[key] is not None or not isinstance(value, dict))
    }
    return {**values, **nested}


def small(recipe: str) -> dict[str, Any]:
    """A recipe that is done in seconds."""
    values = merged(merged(read(ROOT / "recipes" / f"{recipe}.yaml"), SMALL), OWN.get(recipe, {}))
    if recipe == "sd15-finetune":  # in the size of the networks that make_tiny_sd15 makes
        tiny = read(ROOT / "recipes" / "sd15-finetune-tiny.yaml")
        values["prepare_data"]["image_size"] = tiny["prepare_data"]["image_size"]
        values["train_unet"]["unet"] = tiny["train_unet"]["unet"]
    return values


def write_captioned(folder: Path, side: int) -> None:
    """Noise with captions, splits, and two labels, one of many classes."""
    folder.mkdir(parents=True)
    splits = ["novel"] * 10 + ["test"] * TEST_PICTURES + ["validation"] * 30 + ["train"] * 200
    rows = []
    for i, split in enumerate(splits):
        noise = np.random.default_rng(i).integers(0, 256, (side, side, 3), dtype=np.uint8)
        Image.fromarray(noise).save(folder / f"{i}.png")
        style, idea = ("flat", "glossy")[i % 2], f"thing {i % 120}"
        text = [f"{style} {idea}", f"{idea}, {style}"][: 2 if split == "train" else 1]
        rows.append({"file_name": f"{i}.png", "text": text, "split": split, "style": style, "idea": idea})
    (folder / "metadata.jsonl").write_text("\n".join(map(json.dumps, rows)))


@pytest.fixture
def give_data(
    load: Callable[[Path], ModuleType], run: Callable[..., int], write_idx: Callable[..., Any]
) -> Callable[[Params], None]:
    """Puts pictures of the recipe's kind, and what it starts from, where it looks for them."""

    def give(p: Params) -> None:
        source: Any = p.prepare_data.source
        if source.kind == "torchvision":
            write_idx(Path("data/raw") / source.root, source.name, 80, 2 * TEST_PICTURES)
        elif source.kind == "image_folder":
            folder, side = Path("data/raw") / source.root, p.prepare_data.image_size
            folder.mkdir(parents=True)
            noise = np.random.default_rng(0).integers(0, 256, (200, side, side + 4, 3), dtype=np.uint8)
            for i, picture in enumerate(noise):
                Image.fromarray(picture).save(folder / f"{i}.png")
        elif source.kind == "captioned_folder" and p.train_unet.init_from is None:
            write_captioned(Path("data/raw") / source.root, p.prepare_data.image_size)
        elif source.kind == "captioned_folder":
            load(ROOT / "recipes" / "make_tiny_sd15.py").main(Path("tiny"), Path("data/raw") / source.root)
            assert p.train_unet.init_from is not None
            assert run("import", "tiny/model.safetensors", str(Path(p.train_unet.init_from).parent)) == 0
        if source.kind != "scenes":
            assert run("data", "scan") == 0

    return give


def check_curves(figures: dict[str, Any]) -> None:
    """The loss on held-out pictures by noise level, of the average of the weights; the best is handed on."""
    with Path("reports/train_unet/curves.csv").open() as file:
        rows = [{name: float(value) for name, value in row.items() if value} for row in csv.DictReader(file)]
    measured = {int(row["step"]): row for row in rows if "held_out/loss" in row}
    assert list(measured) == [2, 3]
    for row in measured.values():
        by_time = [row[f"held_out_by_time/{r}_percent"] for r in ("00_to_25", "25_to_50", "50_to_75", "75_to_100")]
        assert row["held_out/loss"] == pytest.approx(sum(by_time) / 4, rel=1e-3)  # 8 samples, 2 in each quarter
    best = min(measured, key=lambda step: measured[step]["held_out/loss"])
    assert figures["best_step"] == best
    assert figures["held_out_loss"] == pytest.approx(measured[best]["held_out/loss"], rel=1e-4)
    assert np.isfinite(figures["held_out_loss"])


@pytest.mark.parametrize("recipe", [n if n in QUICK else pytest.param(n, marks=pytest.mark.slow) for n in RECIPES])
def test_every_stage_of_a_recipe_works_and_the_pipeline_draws(
    recipe: str,
    load: Callable[[Path], ModuleType],
    give_data: Callable[[Params], None],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("DARKROOM_DATA", raising=False)
    Path("params.yaml").write_text(yaml.safe_dump(small(recipe)))
    p, figures, runs = params_of(), dict[str, Any](), dict[str, Watched]()
    give_data(p)
    for stage in yaml.safe_load((ROOT / "dvc.yaml").read_text())["stages"]:
        runs[stage] = Watched(stage)
        figures[stage] = load(ROOT / "stages" / f"{stage}.py").body(p, Work(torch.device("cpu"), runs[stage]))
        assert [path for path in stage_spec(stage, ROOT / "dvc.yaml").outputs if not path.exists()] == []

    assert runs["train_unet"].pictures == [
        ("forward", None),
        *((name, step) for step in (0, 2, 3) for name in ("samples", "denoising")),
    ]
    check_curves(figures["train_unet"])
    numbers = [value for value in figures["evaluate"].values() if not isinstance(value, str)]
    assert np.isfinite(numbers).all()
    side, mode = p.prepare_data.image_size, "L" if p.prepare_data.channels == 1 else "RGB"
    if p.train_vae.kind == "identity":
        assert figures["train_vae"]["held_out/l1"] == pytest.approx(0, abs=1e-7)
        assert figures["cache_latents"]["scaling_factor"] == 1
    with Image.open("reports/train_unet/samples.png") as grid:
        assert min(grid.size) > 2 * PICTURE
    pipeline = Pipeline.from_pretrained("artifacts/pipeline", device="cpu")
    assert pipeline.info.network == p.train_unet.unet.kind
    (picture,) = pipeline.text_to_image(
        pipeline.info.condition.classes[7] if pipeline.info.condition.classes else ""
    ).images
    assert (picture.mode, picture.size) == (mode, (side, side))


@pytest.mark.slow
def test_a_pixel_recipe_goes_through_dvc_and_again_to_the_byte(
    tmp_path: Path,
    copied_project: Callable[[Path], None],
    darkroom_in: Callable[[Path], Any],
    dvc_in: Callable[[Path], Any],
    write_idx: Callable[..., Any],
) -> None:
    project = tmp_path / "darkroom"
    project.mkdir()
    copied_project(project)
    write_idx(project / "data" / "raw", "MNIST", 80, 2 * TEST_PICTURES)
    (project / "params.yaml").write_text(yaml.safe_dump(small("mnist-score-transformer")))
    darkroom, dvc = darkroom_in(project), dvc_in(project)
    darkroom("data", "scan")
    dvc("repro")
    assert "Running stage" not in dvc("repro").stdout
    before = (project / "dvc.lock").read_bytes()
    for stage in ("train_unet", "evaluate"):
        dvc(f"repro -f -s {stage}")
        assert (project / "dvc.lock").read_bytes() == before, stage
    darkroom("show", "forward", "--out", "forward.png")
    darkroom("generate", DATASETS["MNIST"].classes[7], "--out", "seven.png")
    with Image.open(project / "seven.png") as seven:
        assert (seven.mode, seven.size) == ("L", (28, 28))
