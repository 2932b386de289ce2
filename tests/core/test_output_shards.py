"""Shards of a stage's output: the same whoever makes them, and made once, whatever ends the stage in between.

It would catch a shard that counts as finished before it is, one that is made again after a kill, files out of order,
helpers that outlive the stage, and settings that name nobody.
"""

import builtins
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from contextlib import closing
from functools import partial
from pathlib import Path
from typing import Any

import pytest

from darkroom.core.artifact import content_hash
from darkroom.core.device import Runtime, runtime
from darkroom.core.errors import DarkroomError
from darkroom.core.output_shards import Shard, Shards, take_over
from darkroom.core.tasks import Kept
from tests.core.test_ahead import none_left

N = 8
SPAWNED = Runtime(device="cpu", threads=1, processes=2)


def written(text: str, log: Path, path: Path) -> None:
    """One line in the log for each time a shard is made."""
    with log.open("a") as file:
        file.write(f"{text}\n")
    path.write_text(text)


def torn(path: Path) -> None:
    path.write_text("half of it")
    raise DarkroomError("the disk of shard 3 is full")


def waited(log: Path, text: str, path: Path) -> None:
    time.sleep(0.3)
    written(text, log, path)


def wanted(log: Path, make: Callable[..., None] = written) -> list[Shard]:
    if make is waited:
        return [Shard(f"{i}.txt", partial(waited, log, f"shard {i}"), 1) for i in range(N)]
    return [Shard(f"{i}.txt", partial(make, f"shard {i}", log), 1) for i in range(N)]


@pytest.mark.parametrize("light", [True, False], ids=["forks", "new processes"])
def test_all_who_make_them_make_the_same(tmp_path: Path, light: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    hashes = set()
    for number in (1, 2):
        monkeypatch.setenv("DARKROOM_THREADS", str(number))
        settings = Runtime(device="cpu", threads=1, processes=number)
        folder = tmp_path / f"by_{number}" / "shards"
        with closing(Shards(folder, settings).made(wanted(tmp_path / "log"), light)) as made:
            assert [path.read_text() for path in made] == [f"shard {i}" for i in range(N)]
        hashes.add(content_hash(folder))
    assert len(hashes) == 1
    assert none_left()


def test_what_is_finished_is_not_made_again(tmp_path: Path) -> None:
    log, folder = tmp_path / "log", tmp_path / "shards"
    shards = wanted(log)
    broken = [*shards[:3], Shard("3.txt", torn, 1), *shards[4:]]
    with pytest.raises(DarkroomError, match="the disk of shard 3 is full"):
        list(Shards(folder).made(broken))
    assert sorted(path.name for path in folder.iterdir()) == ["0.txt", "1.txt", "2.txt"]
    assert len(Shards(folder).all(shards, "again", "shard")) == N
    assert log.read_text().splitlines() == [f"shard {i}" for i in range(N)]


@pytest.mark.parametrize("settings", ["Runtime(device='cpu', threads=1)", repr(SPAWNED)], ids=["one", "two processes"])
def test_a_killed_stage_loses_the_shards_under_way(tmp_path: Path, settings: str) -> None:
    """Killed with -9 as soon as three are there: what was finished is made once, and at most two are made again."""
    log, folder = tmp_path / "log", tmp_path / "shards"
    code = (
        "from pathlib import Path\nfrom darkroom.core.device import Runtime\n"
        "from darkroom.core.output_shards import Shards\n"
        "from tests.core.test_output_shards import waited, wanted\n"
        f"if __name__ == '__main__':\n    shards = wanted(Path({str(log)!r}), waited)\n"
        f"    list(Shards(Path({str(folder)!r}), {settings}).made(shards))\n"
    )
    script = tmp_path / "stage.py"
    script.write_text(code)
    root = Path(__file__).parents[2]
    stage = subprocess.Popen([sys.executable, str(script)], env={**os.environ, "PYTHONPATH": f"{root}:{root}/src"})
    try:
        end = time.monotonic() + 120
        while len(list(folder.glob("[0-9].txt"))) < 3 and time.monotonic() < end:
            time.sleep(0.02)
        stage.send_signal(signal.SIGKILL)
        stage.wait()
    finally:
        stage.kill()
    finished = len(list(folder.glob("[0-9].txt")))
    assert 3 <= finished < N
    again = Shards(folder).all(wanted(log), "again", "shard")
    assert [path.read_text() for path in again] == [f"shard {i}" for i in range(N)]
    assert N <= len(log.read_text().splitlines()) <= N + 2


def test_a_shard_stands_in_the_output_and_still_waits(tmp_path: Path) -> None:
    """Until dvc.lock names the outputs a kill may cost them: a moved shard would be lost with them."""
    log = tmp_path / "log"
    files = Shards(tmp_path / "shards").all(wanted(log), "made", "shard")
    for file in files:
        take_over(file, tmp_path / file.name)
    assert all((tmp_path / file.name).read_text() == file.read_text() for file in files)


def test_what_tasks_work_with_is_made_once(tmp_path: Path) -> None:
    made: list[str] = []
    kept = Kept(lambda: made.append("opened"))
    for _ in range(3):
        kept()
    assert made == ["opened"]


def test_ray_that_is_missing_is_named_in_one_line(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    real = builtins.__import__

    def without(name: str, *args: Any, **more: Any) -> Any:
        if name.split(".")[0] == "ray":
            raise ImportError(name)
        return real(name, *args, **more)

    monkeypatch.setattr(builtins, "__import__", without)
    with pytest.raises(DarkroomError, match=r"Ray is not installed; pip install 'darkroom\[ray\]'$"):
        list(Shards(tmp_path, Runtime(ray="auto")).made(wanted(tmp_path / "log")))


@pytest.mark.parametrize("value", ["yes", "10.0.0.1:6379", "ray://head"])
def test_an_address_that_is_none_is_refused(value: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("DARKROOM_RAY", value)
    with pytest.raises(DarkroomError, match=r"DARKROOM_RAY or runtime.yaml\): give auto or ray://HOST:PORT"):
        runtime()


def test_tasks_on_ray_have_one_thread_unless_it_is_said() -> None:
    assert Runtime(ray="auto").for_tasks().threads == 1
    assert Runtime(ray="auto", threads=3).for_tasks().threads == 3
    assert Runtime().for_tasks().threads == 0
