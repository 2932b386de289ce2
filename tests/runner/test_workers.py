"""The further processes of a training: they come, are missed when they go, leave with the leader, and write nothing."""

import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import psutil
import pytest
import torch

from darkroom.core.artifact import read_json
from darkroom.core.errors import DarkroomError
from darkroom.runner.workers import FOLDER, PLAN, RANK, STORE, Worker, Workers, leading, link
from darkroom.training.engine.distributed import ALONE

# Stand-ins for a stage's script, which start in milliseconds.
ARRIVES = f"import os, pathlib; pathlib.Path(os.environ['{FOLDER}'], os.environ['{RANK}'] + '.ready').touch()"
STAYS = f"{ARRIVES}; os.read(0, 1); os._exit(1)"
IS_KILLED = f"{ARRIVES}; import time; time.sleep(.3); os.kill(os.getpid(), 9)"
IS_DEAF = f"{ARRIVES}; import time; time.sleep(1000)"


@pytest.fixture(autouse=True)
def _signals() -> Iterator[None]:
    before = signal.getsignal(signal.SIGUSR1)
    yield
    signal.signal(signal.SIGUSR1, before)


def workers(code: str, size: int = 2) -> Workers:
    return Workers([sys.executable, "-S", "-c", code], size, Path("training"))


def children() -> list[psutil.Process]:
    return [child for child in psutil.Process().children() if child.status() != psutil.STATUS_ZOMBIE]


def test_they_meet_and_part() -> None:
    with workers(STAYS, 3).rendezvous() as store:
        assert len(children()) == 2
        assert store.name == STORE
        folder = store.parent
        assert read_json(folder / PLAN) == {"size": 3, "training": "training"}
    assert not folder.exists()
    assert not children()


def test_workers_that_were_through_before_the_leader_are_not_missed() -> None:
    with workers(ARRIVES).rendezvous():
        time.sleep(0.5)


@pytest.mark.parametrize(
    ("code", "said"),
    [
        ("raise SystemExit(3)", "worker 1 ended with status 3; run again to resume from the last checkpoint"),
        ("pass", "worker 1 ended before the training began"),
        (IS_KILLED, "worker 1 was ended by SIGKILL; run again to resume from the last checkpoint, or set DARKROOM_P"),
    ],
)
def test_a_worker_that_dies_is_an_error_at_once(code: str, said: str) -> None:
    began = time.monotonic()
    with pytest.raises(DarkroomError, match=said) as error, workers(code).rendezvous():
        time.sleep(100)
    assert "\n" not in str(error.value)
    assert time.monotonic() - began < 5
    assert not children()


def test_a_broken_connection_is_explained_by_who_left() -> None:
    company = workers(IS_KILLED)
    with pytest.raises(DarkroomError, match="worker 1 was ended by SIGKILL"), company.rendezvous():
        company.who_left()


@pytest.mark.slow
def test_a_leader_that_cannot_be_reached_is_ended() -> None:
    """As one that waits on a GPU for a worker that is gone: no Python runs in it."""
    code = (
        "import signal, sys, time\n"
        "from pathlib import Path\n"
        "from darkroom.runner import workers\n"
        "workers.STUCK = .2\n"
        "with workers.Workers([sys.executable, '-c', sys.argv[1]], 2, Path('t')).rendezvous():\n"
        "    signal.pthread_sigmask(signal.SIG_BLOCK, [signal.SIGUSR1])\n"
        "    time.sleep(100)\n"
    )
    ended = subprocess.run([sys.executable, "-c", code, IS_KILLED], capture_output=True, text=True, check=False)
    assert ended.returncode == 1
    assert ended.stderr.startswith("darkroom: worker 1 was ended by SIGKILL; ")


def test_when_the_leader_fails_they_end_even_if_they_do_not_listen(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("darkroom.runner.workers.WAIT", 0.2)
    with pytest.raises(ZeroDivisionError), workers(IS_DEAF).rendezvous():
        raise ZeroDivisionError
    assert not children()


def test_alone_nothing_is_started() -> None:
    assert leading(1, torch.device("cpu"), Path("training")) is ALONE
    assert Worker.here() is None


def test_a_worker_sees_the_project_but_writes_none_of_its_outputs(tmp_path: Path) -> None:
    project, aside = tmp_path / "project", tmp_path / "aside"
    for name in ("data/prepared/rows", "artifacts/vae/weights", "artifacts/unet/weights", "reports/vae/curves.csv"):
        (project / name).parent.mkdir(parents=True, exist_ok=True)
        (project / name).write_text("old")
    (project / "params.yaml").write_text("seed: 1")
    link(project, aside, [Path("artifacts/unet"), Path("reports/vae/curves.csv"), Path("reports/unet/curves.csv")])
    assert (aside / "params.yaml").read_text() == "seed: 1"
    assert (aside / "artifacts/vae/weights").read_text() == (aside / "data/prepared/rows").read_text() == "old"
    assert not (aside / "artifacts/unet").exists()
    for name in ("artifacts/unet/weights", "reports/vae/curves.csv", "reports/unet/curves.csv"):
        (aside / name).parent.mkdir(exist_ok=True)
        (aside / name).write_text("new")
    assert (project / "artifacts/unet/weights").read_text() == "old"
    assert (project / "reports/vae/curves.csv").read_text() == "old"
    assert not (project / "reports/unet").exists()


def test_a_worker_knows_its_place_from_the_environment(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / PLAN).write_text('{"size": 4, "training": "/somewhere/.checkpoints"}')
    monkeypatch.setenv(FOLDER, str(tmp_path))
    monkeypatch.setenv(RANK, "3")
    worker = Worker.here()
    assert worker is not None
    assert (worker.rank, worker.size, worker.training) == (3, 4, Path("/somewhere/.checkpoints"))
    with pytest.raises(SystemExit) as left, worker.rendezvous() as store:
        assert (store, (tmp_path / "3.ready").exists()) == (tmp_path / STORE, True)
    assert left.value.code == 0
