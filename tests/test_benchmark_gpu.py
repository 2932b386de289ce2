"""benchmarks/gpu.py in its small form, on a CPU: every row runs and says all that it should, whoever takes part in it.

A row that breaks is noticed here and not on a rented machine; so is a stage that needs DVC or MLflow with tracking off.
"""

import math
from collections.abc import Callable, Mapping
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
import torch

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
def gpu(monkeypatch: pytest.MonkeyPatch, load: Callable[[Path], ModuleType]) -> ModuleType:
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


@pytest.mark.parametrize(("row", "contestant"), [(row, one) for row in FIELDS for one in contestants(row)])
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
