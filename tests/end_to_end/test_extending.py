"""docs/extending.md: what it says to write is written into a copy of the project, and runs.

Fails if a new part needs more places than the page says, or if its code no longer fits what it extends.
"""

import json
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest
import yaml

from darkroom.config.merging import complete_text
from tests.support.projects import ROOT, copy_project

PAGE = ROOT / "docs" / "extending.md"
BLOCK = re.compile(r"^```python\n# (.*?)\n(.*?)^```$", re.MULTILINE | re.DOTALL)
INSERTION = re.compile(r"in (\S+), after: (.*)")

CHANGES = """
import json, sys, torch, yaml
from pathlib import Path
from darkroom.config.params import Params, load
from darkroom.evaluation.fidelity import metrics
from darkroom.runner.stage import run_stage
from tests.support.loading import load_script
for stage in sys.argv[1:]:
    try:
        run_stage(stage, load_script(Path("stages") / f"{stage}.py").body)
    except SystemExit as left:
        assert left.code == 0, stage
torch.manual_seed(0)
x = torch.randn(64, 5)
values = {m.name: [m.value(x, torch.randn(64, 5)), m.value(x, 3 + torch.randn(64, 5))] for m in metrics(0)}
from darkroom.inference.pipeline import Pipeline
pipeline = Pipeline.from_pretrained("artifacts/pipeline")
samplers = ("midpoint", "midpoint,position=1.0", "heun")
drawn = {name: pipeline.text_to_image("", seeds=[0], sampler=name).tensor for name in samplers}
print(json.dumps({
    "energy": values["energy"],
    "network": type(pipeline.unet).__name__,
    "sampler": pipeline.info.sampling.sampler.model_dump(),
    "like heun": int((drawn["midpoint,position=1.0"].int() - drawn["heun"].int()).abs().max()),
    "unlike": int((drawn["midpoint"].int() - drawn["heun"].int()).abs().max()),
}))
"""


@pytest.fixture
def extended(tmp_path: Path) -> Path:
    """A copy of the project with everything on the page."""
    project = tmp_path / "darkroom"
    project.mkdir()
    copy_project(project)
    for where, code in BLOCK.findall(PAGE.read_text(encoding="utf-8")):
        if insertion := INSERTION.fullmatch(where):
            file, line = project / insertion[1], insertion[2]
            lines = file.read_text(encoding="utf-8").splitlines(keepends=True)
            (at,) = [i for i, text in enumerate(lines) if text.strip() == line]
            file.write_text("".join([*lines[: at + 1], code, *lines[at + 1 :]]), encoding="utf-8")
        else:
            assert not (project / where).exists()
            (project / where).write_text(code, encoding="utf-8")
    return project


def test_what_the_page_says_to_write_runs(extended: Path) -> None:
    """Every stage, of a recipe that names the new source, denoiser and sampler; then the new metric and the sampler."""
    values = yaml.safe_load(complete_text(extended / "recipes" / "photos-ddpm-small.yaml"))
    values["prepare_data"] |= {
        "source": {"kind": "gradients", "n": 48},
        "image_size": 8,
        "channels": 1,
        "resize": "crop",
    }
    values["cache_latents"]["batch_size"] = 16
    short = {"steps": 4, "batch_size": 8, "validate_every": 2, "log_every": 2, "on_worse_than_chance": "warn"}
    values["train_unet"] |= short | {
        "unet": {"kind": "plain_cnn", "width": 8, "depth": 1},
        "held_out": 8,
        "sample_every": 4,
        "samples": 2,
        "horizontal_flip": False,
        "accumulation": 1,
    }
    values["train_evaluator"] |= short
    for section in ("train_unet", "train_evaluator"):
        values[section]["lr_schedule"] = {"kind": "constant", "warmup_steps": 0}
    values["evaluate"] |= {"n_test": 8, "batch_size": 8, "n_grid": 2, "n_sweep": 2, "bootstrap": 100}
    for section in ("train_unet", "evaluate"):
        sampler = {"kind": "midpoint", "position": 0.5}
        values[section]["sampling"] |= {"sampler": sampler, "num_inference_steps": 3, "spacing": "trailing"}
    (extended / "params.yaml").write_text(yaml.safe_dump(values))
    environment = {**os.environ, "PYTHONPATH": f"{extended / 'src'}{os.pathsep}{ROOT}", "DARKROOM_TRACKING": "off"}
    checked = subprocess.run(
        [sys.executable, "-c", "from darkroom.cli import main; main()", "params", "check"],
        cwd=extended,
        env=environment,
        capture_output=True,
        text=True,
    )
    assert checked.returncode == 0, checked.stdout + checked.stderr
    stages = list(yaml.safe_load((extended / "dvc.yaml").read_text())["stages"])
    done = subprocess.run(
        [sys.executable, "-c", CHANGES, *stages], cwd=extended, env=environment, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr
    found = json.loads(done.stdout.splitlines()[-1])
    assert found["network"] == "PlainCNN"
    assert found["sampler"] == {"kind": "midpoint", "position": 0.5}
    assert found["like heun"] <= 1, "at position 1 it is Heun's method"
    assert found["unlike"] > 0
    same, apart = found["energy"]
    assert -0.1 < same < 0.5 < apart


def test_no_stage_but_those_that_draw_with_it_depends_on_a_new_sampler(extended: Path) -> None:
    """Fails if adding a sampler trains the U-Net again."""
    command = [sys.executable, "-m", "tests.support.dependencies"]
    environment = {**os.environ, "PYTHONPATH": str(extended)}
    (extended / "tests" / "support").mkdir(parents=True, exist_ok=True)
    for name in ("__init__.py", "support/__init__.py", "support/dependencies.py", "support/imports.py"):
        (extended / "tests" / name).write_bytes((ROOT / "tests" / name).read_bytes())
    done = subprocess.run(command, cwd=extended, env=environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    text = (extended / "dvc.yaml").read_text()
    stages = yaml.safe_load(text)["stages"]
    named = {stage for stage, entry in stages.items() if any("samplers/midpoint" in dep for dep in entry["deps"])}
    assert not named
    assert (
        "src/darkroom/diffusion/samplers" in stages["evaluate"]["deps"]
        or "src/darkroom/diffusion" in stages["evaluate"]["deps"]
    )
