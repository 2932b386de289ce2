"""A stage ends with the dvc that started it, also where that one was gone before the stage could look."""

import os
import signal
import subprocess
import sys
import time
from contextlib import suppress
from pathlib import Path

import pytest

STAGE = """
import os, signal, sys, time
from pathlib import Path
from darkroom.runner.lock import exit_with_dvc

def end(number, frame):
    Path("ended").touch()
    sys.exit(1)

signal.signal(signal.SIGTERM, end)
Path("stage").write_text(str(os.getpid()))
while {late} and os.getppid() == {parent_dvc}:
    time.sleep(0.01)
exit_with_dvc()
Path("works").touch()
time.sleep(60)
"""
DVC = """
import os, subprocess, sys, time
from pathlib import Path
script = Path("stage.py").read_text().replace("STARTER", str(os.getpid()))
subprocess.Popen([sys.executable, "-c", script])
time.sleep(60)
"""


def appears(file: Path, seconds: float = 20) -> bool:
    deadline = time.monotonic() + seconds
    while not file.exists() and time.monotonic() < deadline:
        time.sleep(0.02)
    return file.exists()


@pytest.mark.parametrize("late", [False, True], ids=["while the stage works", "while the stage starts"])
def test_a_stage_ends_with_its_dvc_and_not_before(tmp_path: Path, late: bool) -> None:
    (tmp_path / "stage.py").write_text(STAGE.format(late=late, parent_dvc="STARTER"))
    environment = {**os.environ, "DVC_STAGE": "train_vae"}
    dvc = subprocess.Popen([sys.executable, "-c", DVC], cwd=tmp_path, env=environment, start_new_session=True)
    try:
        assert appears(tmp_path / ("stage" if late else "works"))
        assert not appears(tmp_path / "ended", seconds=0 if late else 1.5)
        dvc.kill()
        dvc.wait()
        assert appears(tmp_path / "ended", seconds=5)
    finally:
        with suppress(ProcessLookupError):
            os.killpg(dvc.pid, signal.SIGKILL)
        dvc.wait()


SWALLOWS = """
import darkroom.runner.startup, time
try:
    print("imports", flush=True)
    time.sleep(60)
except KeyboardInterrupt:
    print("swallowed", flush=True)
"""


@pytest.mark.parametrize("of_dvc", [True, False])
def test_ctrl_c_ends_a_stage_of_dvc_whatever_it_imports(of_dvc: bool) -> None:
    environment = {key: value for key, value in os.environ.items() if key != "DVC_STAGE"}
    environment |= {"DVC_STAGE": "train_vae"} if of_dvc else {}
    with subprocess.Popen(
        [sys.executable, "-c", SWALLOWS], env=environment, stdout=subprocess.PIPE, text=True
    ) as stage:
        assert stage.stdout is not None
        assert stage.stdout.readline() == "imports\n"
        stage.send_signal(signal.SIGINT)
        assert stage.stdout.read() == ("" if of_dvc else "swallowed\n")
    assert stage.returncode == (-signal.SIGINT if of_dvc else 0)
