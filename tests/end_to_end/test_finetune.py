"""Fine-tuning Stable Diffusion 1.x, from import to export, as the recipe's header says."""

import shutil
import sys
from collections.abc import Callable
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
import torch
import yaml

from darkroom import LoRA, Pipeline
from darkroom.cli import main
from darkroom.config.params import load as params_of
from darkroom.config.params import read
from darkroom.core.artifact import content_hash, load_tensors, read_json, write_json
from darkroom.interop.lora import FILE
from darkroom.runner.stage import Work
from darkroom.tracking import Run
from darkroom.tracking.note import Account
from tests.support import recipe

ROOT = Path(__file__).parents[2]
IMPORTED = "artifacts/imported/tiny-sd15"
SHORTER: dict[str, Any] = {
    "train_unet": {
        "steps": 6,
        "accumulation": 1,
        "validate_every": 3,
        "sample_every": 6,
        "samples": 2,
        "sampling": {"num_inference_steps": 2},
    },
    "train_evaluator": {"steps": 4, "validate_every": 2, "lr_schedule": {"warmup_steps": 0}},
    "evaluate": {"n_test": 12, "sampling": {"num_inference_steps": 2}},
}
FACTOR = 0.25  # not Stable Diffusion's own, which stands in wherever nothing is said


def whole_path(
    python: Callable[..., None],
    darkroom: Callable[..., None],
    stages: Callable[[], None],
    name: str = "sd15-finetune-tiny",
) -> None:
    """The commands of the recipe's header, and a configuration that says another scaling factor."""
    python("recipes/make_tiny_sd15.py")
    darkroom("import", "artifacts/tiny-sd15/model.safetensors", "config")
    config = Path("config/vae/config.json")
    write_json(config, read_json(config) | {"scaling_factor": FACTOR})
    darkroom("import", "artifacts/tiny-sd15/model.safetensors", IMPORTED, "--config", "config")
    darkroom("recipe", "use", name)
    darkroom("data", "scan")
    stages()
    darkroom("export", "out.safetensors", "--format", "single-file")


def check_path() -> None:
    """What was imported is what was used and exported, and the U-Net alone has moved, a little."""
    imported, artifacts = Path(IMPORTED), Path("artifacts")
    for part in ("vae", "text_encoder", "unet"):
        recorded = read_json(artifacts / part / "provenance.json")["inputs"]
        assert recorded[f"{IMPORTED}/{part}"] == content_hash(imported / part)
    latents = read_json("data/latents/config.json")
    assert (latents["scaling"], latents["scaling_factor"]) == ("imported", FACTOR)
    assert read_json(artifacts / "pipeline" / "pipeline.json")["scaling_factor"] == FACTOR
    before, after = (load_tensors(file) for file in ("artifacts/tiny-sd15/model.safetensors", "out.safetensors"))
    frozen = [key for key in after if not key.startswith("model.diffusion_model.")]
    trained = [key for key in after if key.startswith("model.diffusion_model.")]
    assert all(bool((before[key] == after[key]).all()) for key in frozen)
    moved = [float((before[key] - after[key]).norm() / before[key].norm()) for key in trained]
    assert 0 < max(moved) < 0.1  # at 1e-5, a few steps from where it began
    metrics = read_json("reports/train_unet/metrics.json")
    assert metrics["init_from"] == content_hash(imported / "unet")


def check_adapters() -> None:
    """Adapters of both networks, a small file; the pipeline is the base with them, and nothing else has moved."""
    unet, file = Path("artifacts/unet"), Path("artifacts/unet", FILE)
    assert sorted(path.name for path in unet.iterdir()) == ["config.json", "provenance.json", FILE]
    trained = load_tensors(file)
    assert {key.partition(".")[0] for key in trained} == {"unet", "text_encoder"}
    assert all(bool(value.any()) for value in trained.values())
    inputs = read_json(unet / "provenance.json")["inputs"]
    assert inputs[f"{IMPORTED}/unet"] == content_hash(Path(IMPORTED, "unet"))
    assert {"data/latents", "data/conditioning", "artifacts/text_encoder"} < inputs.keys()
    before, after = (load_tensors(path) for path in ("artifacts/tiny-sd15/model.safetensors", "out.safetensors"))
    moved = {key for key in after if not torch.equal(before[key], after[key])}
    assert len(moved) == len(trained) // 2
    merged, beside = (
        Pipeline.from_pretrained("artifacts/pipeline"),
        Pipeline.from_pretrained(IMPORTED, lora=[LoRA(unet)]),
    )
    size, sampling = merged.info.image_size, merged.sampling(num_inference_steps=2)
    first, second = (
        pipeline.text_to_image("a red circle", height=size, width=size, sampling=sampling, seeds=[3])
        for pipeline in (merged, beside)
    )
    assert torch.equal(first.tensor, second.tensor)


@pytest.mark.parametrize(
    ("name", "check"), [("sd15-finetune-tiny", check_path), ("sd15-lora-tiny", check_adapters)], ids=["weights", "lora"]
)
def test_import_prepare_cache_train_evaluate_export_in_one_process(
    name: str,
    check: Callable[[], None],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    load: Callable[[Path], ModuleType],
) -> None:
    """The stages' bodies, one after another: everything but dvc, the tracking, nine starts of Python and most steps."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("DARKROOM_DATA", raising=False)
    shutil.copytree(ROOT / "recipes", "recipes")

    def python(script: str) -> None:
        load(ROOT / script).main()

    def darkroom(*arguments: str) -> None:
        monkeypatch.setattr(sys, "argv", ["darkroom", *arguments])
        with pytest.raises(SystemExit) as ended:
            main()
        assert not ended.value.code

    def stages() -> None:
        Path("params.yaml").write_text(yaml.safe_dump(recipe.merged(read(Path("params.yaml")), SHORTER)))
        params = params_of(Path("params.yaml"))
        for name in yaml.safe_load((ROOT / "dvc.yaml").read_text(encoding="utf-8"))["stages"]:
            body = load(ROOT / "stages" / f"{name}.py").body
            run = Run(Account(name, {}, {}, {}, {}, "", False), tracked=False)
            body(params, Work(torch.device("cpu"), run))

    whole_path(python, darkroom, stages, name)
    check()


@pytest.mark.slow
def test_import_prepare_cache_train_evaluate_export(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    copied_project: Callable[[Path], None],
    darkroom_in: Callable[[Path], Any],
    dvc_in: Callable[[Path], Any],
) -> None:
    project = tmp_path / "darkroom"
    project.mkdir()
    copied_project(project)
    monkeypatch.chdir(project)
    darkroom = darkroom_in(project)
    whole_path(darkroom, darkroom, lambda: dvc_in(project)("repro"))
    check_path()
