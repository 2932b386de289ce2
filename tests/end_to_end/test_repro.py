"""The whole pipeline under the real dvc: everything is made, nothing is made twice, equal is equal.

Its project was made by the stages in one process. That `dvc repro` makes the same of nothing, to the byte, is tested
where it is ended on its way (tests/chaos/test_kills.py), and below, for scenes-quick, by `make test-all`.
"""

import json
import resource
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import yaml
from dvc.repo import Repo
from PIL import Image

from darkroom import Pipeline
from tests.support.projects import environment_of
from tests.support.recipe import QUIET
from tests.support.stages import run_here

DvcIn = Callable[[Path], Callable[..., "subprocess.CompletedProcess[str]"]]
STAGES = (
    "prepare_data",
    "train_vae",
    "cache_latents",
    "setup_text_encoder",
    "train_unet",
    "train_evaluator",
    "evaluate",
)
FORCED = ("cache_latents",)  # not left to `make test-all`


def test_every_stage_is_recorded_and_every_output_is_there(small_pipeline: Path) -> None:
    lock = yaml.safe_load((small_pipeline / "dvc.lock").read_text())["stages"]
    assert set(lock) == set(STAGES)
    for stage in lock.values():
        for out in stage["outs"]:
            assert (small_pipeline / out["path"]).exists(), out["path"]


def test_a_later_release_does_not_break_the_chain_by_its_reports(small_pipeline: Path, tmp_path: Path) -> None:
    """Catches a page of the model that other code, which writes it otherwise, calls forged though its run vouches for
    it."""
    project = tmp_path / "darkroom"
    shutil.copytree(small_pipeline, project, symlinks=True)
    style = project / "src/darkroom/reporting/templates/style.css"
    style.write_text(f"{style.read_text()}h1 {{ color: teal; }}\n")
    audit = [sys.executable, "-c", "from darkroom.cli import main; main()", "audit", "--json"]
    done = subprocess.run(audit, cwd=project, env=environment_of(project), capture_output=True, text=True, check=False)
    found = json.loads(done.stdout)["findings"]  # there are others: its stages ran beside this test's modules
    assert not [one for one in found if "report" in one["kind"]]


def test_metrics_carry_their_uncertainty(small_pipeline: Path) -> None:
    metrics = json.loads((small_pipeline / "reports/evaluation/metrics.json").read_text())
    judged = metrics["evaluator"]["real"]
    for estimate in (
        judged["test"]["attribute_accuracy"],
        judged["novel"]["exact_match"],
        metrics["vae"]["psnr"],
        metrics["vae"]["ssim"],
    ):
        assert estimate["low"] <= estimate["value"] <= estimate["high"]
        assert estimate["n"] > 0
    assert not metrics["evaluator"]["valid"], "judges of so few steps tell nothing"
    assert metrics["alignment"] == {"test": {}, "novel": {}}
    assert metrics["fidelity"] == {}
    for name in ("alignment.test.exact_match", "alignment.novel.attribute_accuracy", "fidelity.fid"):
        assert "does not clear chance" in metrics["withheld"][name]


def test_what_the_unet_draws_can_be_seen_in_mlflow_from_step_0_on(small_pipeline: Path) -> None:
    """Would catch empty image tiles on a run's page until the first previews are due."""
    shown = [path.name.split("+") for path in (small_pipeline / ".mlflow/artifacts").rglob("images/*.png")]
    steps = {name: {int(rest[1]) for shown_as, *rest in shown if shown_as == name} for name in ("samples", "denoising")}
    assert all(0 in found and len(found) > 1 for found in steps.values()), steps


def test_nothing_in_the_outputs_names_this_place_or_time(small_pipeline: Path) -> None:
    lock = yaml.safe_load((small_pipeline / "dvc.lock").read_text())["stages"]
    outputs = [small_pipeline / out["path"] for stage in lock.values() for out in stage["outs"]]
    files = [file for out in outputs for file in ([out] if out.is_file() else out.rglob("*")) if file.is_file()]
    assert len(files) > 30
    for file in files:
        assert str(small_pipeline).encode() not in file.read_bytes(), file


def of_children() -> float:
    """Seconds of the processor that processes started here have taken."""
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    return used.ru_utime + used.ru_stime


def test_a_second_repro_runs_nothing(small_pipeline: Path, dvc_in: DvcIn) -> None:
    before = of_children()
    done = dvc_in(small_pipeline)("repro")
    assert "Running stage" not in done.stdout
    assert "up to date" in done.stdout
    assert of_children() - before < 10, "dvc alone takes a second or two"


def test_the_assembled_pipeline_draws(small_pipeline: Path) -> None:
    pipeline = Pipeline.from_pretrained(small_pipeline / "artifacts/pipeline")
    pictures = pipeline.text_to_image("a small red circle above a large blue square", seeds=[0, 1]).images
    assert [picture.size for picture in pictures] == [(32, 32)] * 2
    assert all(isinstance(picture, Image.Image) for picture in pictures)
    assert pictures[0].tobytes() != pictures[1].tobytes()


@pytest.fixture(scope="module")
def copied(small_pipeline: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """The finished pipeline at another place, to be changed."""
    project = tmp_path_factory.mktemp("another place") / "moved"
    shutil.copytree(small_pipeline, project, symlinks=True)
    yield project
    shutil.rmtree(project)


@pytest.mark.parametrize("stage", [s if s in FORCED else pytest.param(s, marks=pytest.mark.slow) for s in STAGES])
def test_forcing_a_stage_leaves_the_lock_byte_identical(stage: str, copied: Path, dvc_in: DvcIn) -> None:
    before = (copied / "dvc.lock").read_bytes()
    done = dvc_in(copied)(f"repro -f -s {stage}")
    assert f"Running stage '{stage}'" in done.stdout
    assert (copied / "dvc.lock").read_bytes() == before


def test_latents_of_another_vae_are_refused_with_both_hashes(copied: Path, capsys: pytest.CaptureFixture[str]) -> None:
    config = copied / "artifacts/vae/config.json"
    before = config.read_text()
    recorded = json.loads((copied / "data/latents/provenance.json").read_text())["inputs"]["artifacts/vae"]
    config.write_text(before.replace("{", "{ ", 1))
    try:
        assert run_here(copied, "evaluate", QUIET) == 1
    finally:
        config.write_text(before)
    line = next(line for line in capsys.readouterr().err.splitlines() if line.startswith("darkroom: evaluate:"))
    assert recorded in line
    assert line.count(".dir") == 2


@pytest.fixture
def slower(copied: Path) -> Iterator[Path]:
    """The same with half the learning rate of the U-Net."""
    params = copied / "params.yaml"
    before = params.read_text()
    values = yaml.safe_load(before)
    values["train_unet"]["optimizer"]["learning_rate"] *= 0.5
    params.write_text(yaml.safe_dump(values))
    yield copied
    params.write_text(before)


def test_a_changed_learning_rate_is_seen_by_the_unet_and_what_reads_its_parameters(slower: Path) -> None:
    """Catches a stage that depends on parameters which it does not read."""
    with Repo(str(slower)) as repo:
        assert {stage.rpartition(":")[2] for stage in repo.status()} == {"train_unet", "evaluate"}


@pytest.mark.slow
def test_a_changed_learning_rate_makes_only_the_unet_and_what_follows(slower: Path, dvc_in: DvcIn) -> None:
    done = dvc_in(slower)("repro")
    running = [line.split("'")[1] for line in done.stdout.splitlines() if line.startswith("Running stage")]
    assert running == ["train_unet", "evaluate"]


@pytest.mark.slow
def test_one_repro_of_a_fresh_clone_makes_everything(quick_pipeline: Path, dvc_in: DvcIn) -> None:
    test_every_stage_is_recorded_and_every_output_is_there(quick_pipeline)
    test_metrics_carry_their_uncertainty(quick_pipeline)
    test_nothing_in_the_outputs_names_this_place_or_time(quick_pipeline)
    test_a_second_repro_runs_nothing(quick_pipeline, dvc_in)
    test_the_assembled_pipeline_draws(quick_pipeline)
