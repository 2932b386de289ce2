"""A full disk: one line that names it, nothing earlier lost, and with room again the same result."""

import os
import resource
import shutil
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import pytest

from darkroom.core.artifact import content_hash
from darkroom.reporting.facts import FOLDER as REPORTS
from darkroom.runner.resuming import FOLDER
from tests.support import kills, recipe

Run = Callable[..., tuple[int, str]]
Recorded = Callable[[Path, str], dict[str, str]]
STAGES = (
    "prepare_data",
    "train_vae",
    "cache_latents",
    "setup_text_encoder",
    "train_unet",
    "train_evaluator",
    "evaluate",
)


class Disk:
    """A small disk with a finished project on it."""

    def __init__(self, folder: Path) -> None:
        self.folder, self.project, self._filler = folder, folder / "darkroom", folder / "filler"

    def fill(self, room: int = 0) -> None:
        """Leave so many bytes."""
        about = os.statvfs(self.folder)
        left = about.f_bavail * about.f_frsize - room
        with self._filler.open("ab", buffering=0) as filler, suppress(OSError):
            while left > 0:
                left -= filler.write(bytes(min(left, 2**20)))

    def make_room(self) -> None:
        self._filler.unlink()


@pytest.fixture
def disk(small: Any, tmp_path: Path, mounted: Callable[..., None]) -> Disk:
    mounted("-t", "tmpfs", "-o", "size=128m", "tmpfs", str(tmp_path))
    disk = Disk(tmp_path)
    shutil.copytree(small.project, disk.project, symlinks=True)
    return disk


def remove(paths: list[Path]) -> int:
    """As dvc does before it runs a stage; how many bytes these were."""
    files = [file for path in paths for file in ([path] if path.is_file() else path.rglob("*")) if file.is_file()]
    size = sum(file.stat().st_size for file in files)
    for path in paths:
        shutil.rmtree(path) if path.is_dir() else path.unlink()
    return size


NO_ROOM = ("No space left on device", "is free")  # found out by writing, or by a training before its first step


def the_line(said: str, stage: str, *reasons: str) -> str:
    """The one line of an error that can be mended."""
    assert "Traceback" not in said
    assert "Exception ignored" not in said
    lines = [line for line in said.splitlines() if line.startswith("darkroom: ")]
    (line,) = [line for line in lines if "no report was written" not in line]
    assert line.startswith(f"darkroom: {stage}: ")
    assert any(reason in line for reason in reasons), line
    assert "make room" in line
    return line


@pytest.mark.slow
@pytest.mark.parametrize("stage", STAGES)
@pytest.mark.parametrize(
    "share", [0.5, pytest.param(0.0, marks=pytest.mark.slow), pytest.param(0.9, marks=pytest.mark.slow)]
)
def test_a_stage_whose_outputs_find_no_room_says_so_and_can_be_run_again(
    stage: str, share: float, disk: Disk, run_here: Run, recorded: Recorded
) -> None:
    outputs = recorded(disk.project, stage)
    for path in (disk.project / FOLDER, disk.project / REPORTS):  # shards, of other stages too: room when they go
        shutil.rmtree(path, ignore_errors=True)
    size = remove([disk.project / path for path in outputs])
    disk.fill(int(share * size))
    status, said = run_here(disk.project, stage)
    assert status == 1
    line = the_line(said, stage, *NO_ROOM)
    assert any(Path(path).name in line for path in [*outputs, str(FOLDER)]), line
    disk.make_room()
    assert run_here(disk.project, stage)[0] == 0
    assert {path: content_hash(disk.project / path) for path in outputs} == outputs
    assert list(disk.project.rglob("*.partial")) == []


def test_where_no_checkpoint_will_find_room_training_does_not_begin(
    finished: Path, run_here: Run, recorded: Recorded, mounted: Callable[..., None]
) -> None:
    """A training that can save nothing must not be found out about hours later."""
    (finished / FOLDER).mkdir(exist_ok=True)
    mounted("-t", "tmpfs", "-o", "size=64k", "tmpfs", str(finished / FOLDER))
    status, said = run_here(finished, "train_unet")
    assert status == 1
    line = the_line(said, "train_unet", "64 KiB is free")
    assert FOLDER.name in line
    assert "make room" in line
    assert "steps  " not in said


@pytest.mark.slow
def test_a_disk_that_fills_in_training_costs_no_step(
    disk: Disk, small: Any, quiet: Callable[[Path], dict[str, str]]
) -> None:
    command, environment = f"{kills.COMMAND} -s train_vae", quiet(disk.project)
    shutil.rmtree(disk.project / ".dvc" / "cache")  # where the result lies, and dvc would take it from
    repro = kills.Repro(disk.project, environment, f"{command} -f")
    assert repro.until(lambda: repro.stage == "train_vae" and repro.step > recipe.CHECKPOINT_EVERY)
    disk.fill()
    while repro.look():
        pass
    assert repro.process.returncode != 0
    the_line(repro.said, "train_vae", "No space left on device")
    assert "training continues without it" in repro.said
    saved = sorted((disk.project / FOLDER / "train_vae").glob("*/step_*"))
    assert saved
    disk.make_room()
    again = kills.Repro(disk.project, environment, command).finish()
    assert again.resumed["train_vae"] == int(saved[-1].name.removeprefix("step_"))
    assert kills.results(disk.project) == small.results


@contextmanager
def files_of_at_most(size: int) -> Iterator[None]:
    """As where a file would be beyond what its owner may use: writing on fails, on any system, without a mount."""
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))


@pytest.mark.parametrize(
    ("stage", "file"),
    [
        ("prepare_data", "data/prepared/train/00000.parquet"),
        ("train_vae", "artifacts/vae/diffusion_pytorch_model.safetensors"),
        ("cache_latents", "reports/cache_latents/preview.png"),
    ],
)
def test_a_limit_for_files_is_as_a_full_disk(
    stage: str, file: str, finished: Path, run_here: Run, recorded: Recorded
) -> None:
    outputs = recorded(finished, stage)
    size = (finished / file).stat().st_size
    before = {path: content_hash(finished / path) for path in outputs}
    with files_of_at_most(size - 1):
        status, said = run_here(finished, stage)
    assert status == 1
    line = the_line(said, stage, "File too large")
    assert any(Path(path).name in line for path in outputs), line
    written = next(path for path in outputs if file.startswith(path))
    assert content_hash(finished / written) == before[written], "what stood there before was not kept"
