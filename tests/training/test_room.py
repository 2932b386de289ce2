"""The disk that a training needs: told beforehand, counted right, and refused where it is not there.

Would catch a training that fills the disk at its first checkpoint, moments or best weights that are not counted because
they are made later, and a file system on which several things lie but only one is asked for.
"""

import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from torch import nn

from darkroom.config.training import Optimization
from darkroom.core.checkpoint import KEPT, Checkpoints
from darkroom.core.errors import DarkroomError
from darkroom.core.interruption import Interruption
from darkroom.training.engine.best import Best
from darkroom.training.engine.disk_space import PICTURES, check_disk, state_bytes
from darkroom.training.engine.ema import EMA
from darkroom.training.engine.loop import Loss, Phase

MIB = 2**20
FOLDER = Path(".checkpoints/train_unet/0123")


@pytest.fixture(autouse=True)
def _project(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    Path(".dvc").mkdir()


@pytest.fixture
def free(monkeypatch: pytest.MonkeyPatch) -> Callable[[int], None]:
    """Lets every file system have so many bytes free."""

    def let(n_bytes: int) -> None:
        monkeypatch.setattr("shutil.disk_usage", lambda place: shutil._ntuple_diskusage(10 * n_bytes, 0, n_bytes))

    return let


@pytest.mark.parametrize("name", ["adamw", "muon"])
def test_what_is_counted_before_the_first_step_is_what_a_checkpoint_takes(
    optimizer: Callable[..., Optimization], name: str
) -> None:
    network = nn.Sequential(nn.Linear(256, 512), nn.LayerNorm(512), nn.Linear(512, 64))
    ema, best = EMA(network, 10), Best()
    phase = Phase("", network, optimizer(optimizer=name), Loss.of(lambda step, rows: {}))
    parts = {"phase 0": phase, "ema": ema, "best": best}
    before = state_bytes(parts)
    network(torch.randn(2, 256)).square().sum().backward()
    for one in phase.optimizers:
        one.step()
    best.consider(1, 0.5, ema.network)
    assert state_bytes(parts) == pytest.approx(before, rel=1e-3)  # AdamW counts its steps
    Checkpoints(FOLDER, {}, 0, 1, Interruption()).after(1, parts, 9)
    (saved,) = FOLDER.glob("step_*/tensors.safetensors")
    assert saved.stat().st_size == pytest.approx(before, rel=0.02)


def test_it_is_told_in_a_line(free: Callable[[int], None], capsys: pytest.CaptureFixture[str]) -> None:
    free(10_000 * MIB)
    check_disk("train_unet", 100 * MIB, 30 * MIB, FOLDER)
    (line,) = capsys.readouterr().err.splitlines()
    assert line == "train_unet: needs 392 MiB of disk: outputs 46 MiB, DVC's copy of them 46 MiB, checkpoints 300 MiB"


def test_all_that_lies_on_a_file_system_counts_together(free: Callable[[int], None]) -> None:
    needed = 2 * (30 * MIB + PICTURES) + (KEPT + 1) * 100 * MIB
    free(needed)
    check_disk("train_unet", 100 * MIB, 30 * MIB, FOLDER)
    free(needed - 1)
    with pytest.raises(DarkroomError) as refused:
        check_disk("train_unet", 100 * MIB, 30 * MIB, FOLDER)
    said = str(refused.value)
    assert "\n" not in said
    for words in ("artifacts, .dvc/cache, .checkpoints/train_unet/0123: train_unet needs", "392 MiB is free", "dvc gc"):
        assert words in said


def test_what_is_saved_already_is_not_asked_for_again(free: Callable[[int], None]) -> None:
    (FOLDER / "step_1").mkdir(parents=True)
    (FOLDER / "step_1" / "tensors.safetensors").write_bytes(b"0" * MIB)
    free(2 * PICTURES + 2 * MIB)
    check_disk("train_unet", MIB, 0, FOLDER)
    with pytest.raises(DarkroomError):
        check_disk("train_unet", MIB, 0, FOLDER.with_name("another"))


def test_without_dvc_or_checkpoints_there_are_outputs_alone(free: Callable[[int], None]) -> None:
    free(PICTURES + MIB)
    with pytest.raises(DarkroomError, match="DVC's copy"):
        check_disk("train_unet", 100 * MIB, MIB, None)
    Path(".dvc").rmdir()
    check_disk("train_unet", 100 * MIB, MIB, None)
