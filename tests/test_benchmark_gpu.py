"""benchmarks/gpu.py in its small form, on a CPU: every row runs and says all that it should, whoever takes part in it.

A row that breaks is noticed here and not on a rented machine; so is a stage that needs DVC or MLflow with tracking off.
"""

import json
import math
import os
import subprocess
import sys
from collections.abc import Callable, Iterator, Mapping
from contextlib import suppress
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
import torch
import yaml

ROOT = Path(__file__).parents[1]
BENCHMARKS = ROOT / "benchmarks"
SPEED = {"batch", "images_per_second", "spread", "peak_mib", "reserved_mib", "warm_up_seconds", "compile"}
ARITHMETIC = {"tflops", "matrix_product_tflops", "share_of_peak", "forward_gmac"}
TRAINING = SPEED | ARITHMETIC | {"steps_per_second", "steps_timed", "loss", "weights", "compiled_graphs"}
FIELDS = {
    "unet-default": TRAINING | {"latent", "optimizer"},
    "unet-32": TRAINING | {"latent", "optimizer"},
    "unet-64": TRAINING | {"latent", "optimizer"},
    "vae-256": TRAINING | {"side"},
    "encode-256": SPEED | ARITHMETIC | {"side"},
    "draw-512": SPEED | {"side", "steps", "seconds", "load_seconds"},
}
EVERYWHERE = {"seconds_in_all", "device", "torch", "tf32", "deterministic"}
BLOCKER = '''
import sys

class Without:
    """Finds neither package, as if they were not installed."""

    def find_spec(self, name, path=None, target=None):
        if name.split(".")[0] in ("dvc", "mlflow"):
            raise ModuleNotFoundError(f"No module named {name!r}", name=name)

sys.meta_path.insert(0, Without())
'''


@pytest.fixture
def gpu(monkeypatch: pytest.MonkeyPatch, load: Callable[[Path], ModuleType]) -> Iterator[ModuleType]:
    """The script, with what lies beside it."""
    monkeypatch.syspath_prepend(str(BENCHMARKS))
    monkeypatch.setenv("DARKROOM_DEVICE", "cpu")
    monkeypatch.setenv("DARKROOM_DETERMINISTIC", "0")
    monkeypatch.setenv("DARKROOM_THREADS", str(torch.get_num_threads()))
    before = torch.get_deterministic_debug_mode()
    yield load(BENCHMARKS / "gpu.py")
    torch.set_deterministic_debug_mode(before)


def contestants(row: str) -> list[str]:
    compiled = [] if row in ("unet-64", "encode-256") else ["diffusers-compiled"]  # as those of rows like them
    return ["ours", "diffusers", *compiled]


def check_finite(found: Mapping[str, Any]) -> None:
    for key, value in found.items():
        if isinstance(value, int | float):
            assert math.isfinite(value), key


@pytest.mark.parametrize(
    ("row", "contestant"),
    [
        pytest.param(row, one, marks=[pytest.mark.slow] if one == "diffusers-compiled" else [])
        for row in FIELDS
        for one in contestants(row)
    ],
)
def test_a_row_says_all_that_it_should(
    row: str, contestant: str, gpu: ModuleType, diffusers: Any, transformers: Any, tmp_path: Path
) -> None:
    """A contestant that no longer runs, a field that is lost, a figure that is no number."""
    lines: list[dict[str, Any]] = []
    gpu.work(row, contestant, tmp_path, True, lines.append)
    rated = [line for line in lines if "images_per_second" in line]
    assert [line["batch"] for line in rated] == ([1, 8] if row == "draw-512" else [2])
    for line in rated:
        assert FIELDS[row] | EVERYWHERE <= line.keys()
        assert line["images_per_second"] > 0
        assert bool(line["compile"]) == (contestant == "diffusers-compiled")
        assert ("profile" in line) == (contestant == "ours")
        check_finite(line)
    profiled = [line["kernels"] for line in lines if "kernels" in line]
    assert len(profiled) == row.startswith("unet")
    for kernels in profiled:
        assert 0 < sum(share for _, share, _ in kernels["longest"]) <= 1


@pytest.mark.parametrize("contestant", ["ours-fp32", "diffusers-fp32"])
def test_both_sides_of_a_row_take_the_same_precision_and_optimizer(
    contestant: str, gpu: ModuleType, diffusers: Any, tmp_path: Path
) -> None:
    """A comparison of one side's bf16 with the other's fp32, or of Muon with AdamW."""
    lines: list[dict[str, Any]] = []
    gpu.work("unet-adamw", contestant, tmp_path, True, lines.append)
    (rated,) = [line for line in lines if "images_per_second" in line]
    assert (rated["precision"], rated["optimizer"]) == ("fp32", "adamw")


def test_multiplications_are_counted(gpu: ModuleType) -> None:
    """A count that takes a sum for two, or leaves out what attention multiplies."""
    import gpu_measure

    layers = torch.nn.Sequential(torch.nn.Conv2d(3, 5, 3, padding=1), torch.nn.Flatten(), torch.nn.Linear(5 * 64, 7))
    assert gpu_measure.forward_macs(lambda: layers(torch.zeros(2, 3, 8, 8))) == 2 * (3 * 5 * 9 * 64 + 5 * 64 * 7)
    q = torch.zeros(2, 4, 16, 8)
    attention = torch.nn.functional.scaled_dot_product_attention
    assert gpu_measure.forward_macs(lambda: attention(q, q, q)) == 2 * (2 * 4 * 16 * 16 * 8)


def test_laps_are_timed_from_whatever_steps_the_hook_is_called_after(gpu: ModuleType) -> None:
    """Figures that count calls for steps, where a loop tells its hooks of every tenth step alone."""
    import gpu_measure

    for every in (1, 10):
        told: list[Mapping[str, Any]] = []
        clock = gpu_measure.Clock(torch.device("cpu"), tiny=True)
        laps = gpu_measure.Laps(clock, told.append, warm_up=0, steps=4000, batch=4, flop_an_image=1e12, about={})
        with suppress(gpu_measure.EnoughError):
            for step in range(1, 1000):
                vars(clock)["now"] = lambda step=step: 0.01 * step
                if step % every == 0:
                    laps(step, {"loss": torch.tensor(0.5)})
        (found,) = told
        assert found["loss"] == 0.5
        assert found["steps_per_second"] == pytest.approx(100)
        assert found["images_per_second"] == pytest.approx(400)
        assert found["tflops"] == pytest.approx(400)
        assert found["steps_timed"] >= 3 * every


def test_groups_take_at_most_four_minutes_and_hold_every_contestant_once(gpu: ModuleType) -> None:
    """A row that no group runs, one that two run, and a group that a lease of four minutes does not hold."""
    named = [entry for names in gpu.GROUPS.values() for entry in gpu.entries(names)]
    assert len(named) == len(set(named))
    assert set(named) == {(name, one) for name, row in gpu.ROWS.items() for one in row.contestants}
    assert gpu.entries(gpu.GROUPS) == named
    for names in gpu.GROUPS.values():
        assert sum(gpu.ROWS[row].contestants[one] for row, one in gpu.entries(names)) <= 240
    first, *others = (("unet-64", one) for one in gpu.ROWS["unet-64"].contestants)
    assert gpu.entries([":".join(others[-1]), "unet-64"]) == [others[-1], first, *others[:-1]]
    with pytest.raises(ValueError, match="'unet-65' is none of smoke, "):
        gpu.entries(["unet-65"])


def program(tmp_path: Path, *arguments: str, **environment: str) -> tuple[int, list[dict[str, Any]], str]:
    """benchmarks/gpu.py in its small form: status, lines of --out, what it printed."""
    out = tmp_path / "out.jsonl"
    done = subprocess.run(
        [sys.executable, str(BENCHMARKS / "gpu.py"), "--tiny", "--out", str(out), *arguments],
        cwd=tmp_path,
        env={**os.environ, "DARKROOM_DEVICE": "cpu", "DARKROOM_THREADS": "1", **environment},
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        check=False,
    )
    return done.returncode, [json.loads(line) for line in out.read_text().splitlines()], done.stdout + done.stderr


def test_a_row_that_fails_is_told_and_the_next_one_follows(tmp_path: Path) -> None:
    """An error that ends the session, or is lost; a row begun that the budget does not hold."""
    broken = tmp_path / "broken"
    broken.mkdir()
    (broken / "diffusers.py").write_text("raise ImportError('diffusers is broken here')")
    rows = "unet-default:diffusers,machine,unet-64:diffusers-compiled"
    status, lines, said = program(tmp_path, "--rows", rows, "--budget", "110", "--label", "try", PYTHONPATH=str(broken))
    assert status == 1, said
    failed, machine, skipped = lines
    assert {line["label"] for line in lines} == {"try"}
    assert (failed["row"], failed["contestant"], failed["error"]) == ("unet-default", "diffusers", "status 1")
    assert "diffusers is broken here" in failed["said"]
    assert machine["matrix_product_tflops"] > 0
    assert skipped["row"] == "unet-64"
    assert skipped["skipped"].startswith("takes 120 s, ")


def test_a_contestant_that_takes_too_long_is_ended(gpu: ModuleType, tmp_path: Path) -> None:
    """A rented machine that waits for one that hangs."""
    report = gpu.Report(None, "")
    gpu.measure(("unet-default", "ours"), tmp_path, True, 0.5, report)
    (line,) = report.lines
    assert line["error"] == "ended after 0 s"


@pytest.fixture
def without(tmp_path: Path) -> str:
    """A folder for PYTHONPATH with which Python finds neither DVC nor MLflow."""
    folder = tmp_path / "without"
    folder.mkdir()
    (folder / "sitecustomize.py").write_text(BLOCKER)
    for name in ("dvc", "mlflow"):
        command = [sys.executable, "-c", f"import {name}"]
        found = subprocess.run(
            command, env={**os.environ, "PYTHONPATH": str(folder)}, capture_output=True, text=True, check=False
        )
        assert f"No module named '{name}'" in found.stderr
    return str(folder)


@pytest.mark.slow
def test_all_stages_run_without_dvc_and_mlflow(tmp_path: Path, without: str) -> None:
    """A stage, with tracking off, that imports one of them, or what is only there because of them."""
    status, lines, said = program(tmp_path, "--rows", "scenes", PYTHONPATH=without)
    assert status == 0, lines[-1].get("said", said)
    assert [line["stage"] for line in lines] == [*yaml.safe_load((ROOT / "dvc.yaml").read_text())["stages"], "all"]
    assert sum(line["seconds"] for line in lines[:-1]) == pytest.approx(lines[-1]["seconds"], abs=0.1)
    for line in lines[:-1]:
        assert line["metrics"]


@pytest.mark.slow
def test_stages_repeat_and_resume_without_dvc_and_mlflow(tmp_path: Path, without: str) -> None:
    """Other bytes from the same inputs, and a training that begins anew, or otherwise, after SIGKILL; see above."""
    status, lines, said = program(tmp_path, "--rows", "exact", PYTHONPATH=without)
    assert status == 0, lines[-1].get("said", said)
    assert [(line["check"], line["stage"]) for line in lines] == [
        ("twice", "prepare_data"),
        ("twice", "train_vae"),
        ("resumed", "train_vae"),
    ]
    for line in lines:
        assert line["files"] > 1
        assert line["same"], line["differing"]
    assert 0 < lines[-1]["killed_at_step"] < lines[-1]["steps"]


def test_what_differs_is_named(gpu: ModuleType, tmp_path: Path) -> None:
    """Two outputs that differ, taken for the same."""
    import gpu_stages

    one, two = (gpu_stages.Project(tmp_path / name, {}) for name in ("one", "two"))
    for project, text in ((one, "a"), (two, "b")):
        for path in project.places["cache_latents"].outputs:
            file = project.folder / path / "part" if not path.suffix else project.folder / path
            file.parent.mkdir(parents=True, exist_ok=True)
            file.write_text(text if path.suffix == ".png" else "x")
    found = gpu_stages._differing(one, two, "cache_latents")
    assert (found["same"], found["differing"]) == (False, ["reports/cache_latents/preview.png"])
    two.take_over("cache_latents", one)
    assert gpu_stages._differing(one, two, "cache_latents")["same"]
    two.forget("cache_latents")
    assert gpu_stages._differing(one, one, "cache_latents")["files"] == 3
    assert not two.hashes("cache_latents")


def test_laps_fit_into_a_short_training(gpu: ModuleType) -> None:
    """A recipe's training that ends before all is measured, because its steps are quick."""
    import gpu_measure

    told: list[Mapping[str, Any]] = []
    clock = gpu_measure.Clock(torch.device("cpu"), tiny=True)
    clock.tiny = False
    laps = gpu_measure.Laps(clock, told.append, warm_up=20, steps=200, batch=4, flop_an_image=1e12, about={})
    with suppress(gpu_measure.EnoughError):
        for step in range(1, 201):
            laps(step, {"loss": 1.0})
    assert told[0]["steps_timed"] == 3 * 45


def test_kernels_that_are_not_deterministic_are_named(gpu: ModuleType) -> None:
    """PyTorch's two ways of warning of one, of which the log is full."""
    import gpu_stages

    said = (
        "x.py:7: UserWarning: adaptive_avg_pool2d_backward_cuda does not have a deterministic implementation, but\n"
        "y.py:9: UserWarning: Memory Efficient attention defaults to a non-deterministic algorithm. To explicitly\n"
    )
    assert gpu_stages.WARNED.findall(said) == [" adaptive_avg_pool2d_backward_cuda", " Memory Efficient attention"]
