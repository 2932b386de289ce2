"""torchrun's ranks: they come, are missed when they go, end with what started them, and one line is said of their end.

The ranks are stand-ins for a stage's script, which start in milliseconds; those of a training are in
end_to_end/test_processes.py.
"""

import logging
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import psutil
import pytest

from darkroom.core.errors import DarkroomError
from darkroom.runner.launch import GONE_WITHIN, LOST, REPORTS, Rank, _end_as, launch, report
from tests.support.projects import ROOT

RANK = "import os, signal, sys, time, pathlib; rank = int(os.environ['RANK']); "
SAYS = f"{RANK}pathlib.Path(os.environ['{REPORTS}'], str(rank)).write_text(f'said by {{rank}}'); "
IS_KILLED = f"{RANK}time.sleep(60 * (1 - rank)); os.kill(os.getpid(), 9)"
SIGNALS = (signal.SIGTERM, signal.SIGINT, signal.SIGHUP, signal.SIGQUIT)


@pytest.fixture(autouse=True)
def _as_before(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[None]:
    """A launcher is a process of its own: it takes signals, and no longer logs."""
    monkeypatch.setenv("TMPDIR", str(tmp_path))
    monkeypatch.setattr("tempfile.tempdir", None)
    monkeypatch.setenv(REPORTS, "")
    monkeypatch.setenv("TORCH_CPP_LOG_LEVEL", "ERROR")
    before = {number: signal.getsignal(number) for number in SIGNALS}
    yield
    for number, handler in before.items():
        signal.signal(number, handler)
    logging.disable(logging.NOTSET)
    signal.set_wakeup_fd(-1)
    assert not list(tmp_path.iterdir()), "left behind"


def launched(code: str, monkeypatch: pytest.MonkeyPatch, processes: int = 2) -> int | str | None:
    """How a launcher of such ranks exits."""
    monkeypatch.setattr(sys, "orig_argv", [sys.executable, "-S", "-c", code])
    with pytest.raises(SystemExit) as end:
        launch(processes)
    return end.value.code


def children() -> list[psutil.Process]:
    return [child for child in psutil.Process().children() if child.status() != psutil.STATUS_ZOMBIE]


def test_every_rank_learns_which_it_is_and_one_port_of_the_loopback_is_open(
    monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    """Catches a store, to which anybody may write, that the network can reach."""
    names = "RANK", "WORLD_SIZE", "LOCAL_RANK", "LOCAL_WORLD_SIZE", "MASTER_ADDR"
    code = (
        f"{RANK}listening = [line.split() for line in open('/proc/net/tcp')]; "
        "port = f\"{int(os.environ['MASTER_PORT']):04X}\"; "
        "at = [fields[1] for fields in listening if fields[1].endswith(':' + port) and fields[3] == '0A']; "
        f"sys.stdout.write(' '.join([*(os.environ[n] for n in {names}), *at]) + chr(10))"
    )
    assert launched(code, monkeypatch, 3) == 0
    said = sorted(capfd.readouterr().out.splitlines())
    assert [line.split()[:5] for line in said] == [[str(rank), "3", str(rank), "3", "127.0.0.1"] for rank in range(3)]
    assert all(line.split()[5].startswith("0100007F:") for line in said)


def test_what_ended_first_is_said_once(monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]) -> None:
    assert launched(f"{SAYS}time.sleep(60 * rank); sys.exit(1)", monkeypatch) == 1
    assert capfd.readouterr().err == "said by 0\n"


@pytest.mark.parametrize(
    ("code", "said"),
    [
        (f"{RANK}time.sleep(60 * (1 - rank)); sys.exit(3)", "worker 1 ended with status 3; run again to resume from"),
        (IS_KILLED, "worker 1 was ended by SIGKILL; run again to resume from the last checkpoint, or set DARKROOM_P"),
    ],
)
def test_a_rank_that_dies_is_an_error_at_once(
    code: str, said: str, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    began, before = time.monotonic(), children()  # other tests may have left a server
    monkeypatch.setattr(sys, "orig_argv", [sys.executable, "-S", "-c", code])
    with pytest.raises(DarkroomError, match=said) as error:
        launch(2)
    assert "\n" not in str(error.value)
    assert time.monotonic() - began < 10
    assert children() == before
    assert capfd.readouterr().err == "", "torchrun's report"


@pytest.mark.parametrize(
    ("statuses", "said"),
    [
        ({0: LOST, 2: -9}, "worker 2 was ended by SIGKILL"),
        ({0: 143, 1: LOST, 2: 1}, "worker 2 ended with status 1"),
        ({0: -9, 1: LOST}, "worker 0 was ended by SIGKILL"),
    ],
)
def test_who_ended_because_of_another_is_not_blamed(statuses: dict[int, int], said: str, tmp_path: Path) -> None:
    failures: Any = {rank: SimpleNamespace(exitcode=status) for rank, status in statuses.items()}
    with pytest.raises(DarkroomError, match=said):
        _end_as(failures, tmp_path, [])


def test_who_leads_has_said_it_before_it_ends(tmp_path: Path) -> None:
    with pytest.raises(SystemExit) as end:
        _end_as({0: SimpleNamespace(exitcode=1)}, tmp_path, [])  # type: ignore[dict-item]
    assert end.value.code == 1


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGKILL], ids=lambda number: number.name)
def test_nothing_outlives_the_launcher(number: signal.Signals, tmp_path: Path) -> None:
    """Catches ranks that go on without it, unless they were to save first and say where."""
    script = tmp_path / "stages" / "stand_in.py"
    script.parent.mkdir()
    script.write_text(
        "import darkroom.runner.startup, os, signal, time, sys\n"
        "if 'RANK' in os.environ:\n"
        "    def end(*_):\n"
        f"        open(os.path.join(os.environ['{REPORTS}'], os.environ['RANK']), 'w').write('saved')\n"
        "        sys.exit(143)\n"
        "    signal.signal(signal.SIGTERM, end)\n"
        "    os.write(1, b'up\\n')\n"
        "    time.sleep(600)\n"
        "from darkroom.runner.launch import launch\n"
        "launch(2)\n"
    )
    own = {"PYTHONPATH": str(ROOT / "src"), "TMPDIR": str(tmp_path)}
    command = [sys.executable, "-P", str(script)]
    with subprocess.Popen(
        command, env=os.environ | own, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    ) as running:
        try:
            assert running.stdout is not None
            assert [running.stdout.readline() for _ in range(2)] == ["up\n", "up\n"]
            ranks = [child for child in psutil.Process(running.pid).children() if str(script) in child.cmdline()]
            assert len(ranks) == 2
            running.send_signal(number)
            _, errors = running.communicate(timeout=60)
        finally:
            running.kill()  # leaving the block waits for it
    assert psutil.wait_procs(ranks, timeout=5)[1] == []
    if number == signal.SIGTERM:
        assert (running.returncode, errors) == (143, "saved\n")
    script.unlink()
    script.parent.rmdir()
    for left in tmp_path.glob("darkroom_*"):  # of a launcher that was killed
        subprocess.run(["rm", "-r", str(left)], check=True)


def test_a_rank_that_hears_no_signal_is_ended_all_the_same() -> None:
    """As one that waits on a GPU for a rank that is gone: no Python runs in it."""
    code = (
        "import ctypes, signal\n"
        "from darkroom.runner import launch\n"
        "signal.signal(signal.SIGTERM, lambda *_: None)\n"
        "launch._end_even_if_stuck(.2)\n"
        "print('up', flush=True)\n"
        "libc = ctypes.CDLL(None)\n"
        "while True:\n"
        "    libc.usleep(900_000)\n"
    )
    with subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE, text=True) as running:
        assert running.stdout is not None
        assert running.stdout.readline() == "up\n"
        running.terminate()
        assert running.wait(10) == LOST
    assert GONE_WITHIN < 30, "the time after which torchrun kills"


def test_which_process_this_is_comes_from_the_environment(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert Rank.here() is None
    for name, value in {"RANK": "3", "WORLD_SIZE": "4", "MASTER_ADDR": "there", "MASTER_PORT": "1"}.items():
        monkeypatch.setenv(name, value)
    assert Rank.here() == Rank(3, 4, 3, 4)
    monkeypatch.setenv("LOCAL_RANK", "1")
    monkeypatch.setenv("LOCAL_WORLD_SIZE", "2")
    assert Rank.here() == Rank(3, 4, 1, 2)
    monkeypatch.delenv(REPORTS)
    report("to all")
    assert capsys.readouterr().err == "to all\n"
    folder = tmp_path / "reports"
    folder.mkdir()
    monkeypatch.setenv(REPORTS, str(folder))
    report("to the launcher")
    assert (folder / "3").read_text() == "to the launcher"
    (folder / "3").unlink()
    folder.rmdir()
    monkeypatch.setenv("WORLD_SIZE", "1")
    assert Rank.here() is None
    assert capsys.readouterr().err == ""
