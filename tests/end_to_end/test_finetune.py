"""Fine-tuning Stable Diffusion 1.x, from import to export, as the recipe's header says."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from darkroom.core.artifact import content_hash, load_tensors, read_json, write_json

IMPORTED = "artifacts/imported/tiny-sd15"
FACTOR = 0.25  # not Stable Diffusion's own, which stands in wherever nothing is said


@pytest.mark.slow
def test_import_prepare_cache_train_evaluate_export(
    tmp_path: Path,
    copied_project: Callable[[Path], None],
    darkroom_in: Callable[[Path], Any],
    dvc_in: Callable[[Path], Any],
) -> None:
    project = tmp_path / "darkroom"
    project.mkdir()
    copied_project(project)
    darkroom = darkroom_in(project)
    darkroom("recipes/make_tiny_sd15.py")
    darkroom("import", "artifacts/tiny-sd15/model.safetensors", "config")
    config = project / "config" / "vae" / "config.json"
    write_json(config, read_json(config) | {"scaling_factor": FACTOR})
    darkroom("import", "artifacts/tiny-sd15/model.safetensors", IMPORTED, "--config", "config")
    darkroom("recipe", "use", "sd15-finetune-tiny")
    darkroom("data", "scan")
    dvc_in(project)("repro")
    darkroom("export", "out.safetensors", "--format", "single-file")

    imported, artifacts = project / IMPORTED, project / "artifacts"
    for part, artifact in (("vae", "vae"), ("text_encoder", "text_encoder"), ("unet", "unet")):
        recorded = read_json(artifacts / artifact / "provenance.json")["inputs"]
        assert recorded[f"{IMPORTED}/{part}"] == content_hash(imported / part)
    latents = read_json(project / "data" / "latents" / "config.json")
    assert (latents["scaling"], latents["scaling_factor"]) == ("imported", FACTOR)
    assert read_json(artifacts / "pipeline" / "pipeline.json")["scaling_factor"] == FACTOR
    before, after = (
        load_tensors(project / file) for file in ("artifacts/tiny-sd15/model.safetensors", "out.safetensors")
    )
    frozen = [key for key in after if not key.startswith("model.diffusion_model.")]
    trained = [key for key in after if key.startswith("model.diffusion_model.")]
    assert all(bool((before[key] == after[key]).all()) for key in frozen)
    moved = [float((before[key] - after[key]).norm() / before[key].norm()) for key in trained]
    assert 0 < max(moved) < 0.1  # at 1e-5, a few steps from where it began
    metrics = read_json(project / "reports" / "train_unet" / "metrics.json")
    assert metrics["init_from"] == content_hash(imported / "unet")
