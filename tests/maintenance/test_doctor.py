"""`darkroom doctor` on set-ups that are broken: it names the fault, and what it says fixes it."""

import base64
import errno
import http.server
import json
import os
import shutil
import stat
import subprocess
import sys
import tempfile
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import pytest

from darkroom.core.artifact import write_json
from darkroom.maintenance.doctor import machine, table
from darkroom.maintenance.sizes import size_of
from tests.support import toy
from tests.support.ports import free_port
from tests.support.projects import copy_project
from tests.support.schemas import make_older

PROGRAMS = Path(sys.executable).parent
QUICK = tuple(check for check in table.CHECKS if check.name != "devices")  # PyTorch takes seconds, and has its own test
ROUNDS = 3  # of doctor and remedy: what stands behind another thing is seen once that is away
USER, PASSWORD = "ann", "right-password"


@dataclass(frozen=True)
class Doctor:
    """Runs darkroom doctor --json; what it found, and the exit status, which must agree."""

    run: Callable[..., int]
    capsys: pytest.CaptureFixture[str]

    def __call__(self) -> list[dict[str, Any]]:
        self.capsys.readouterr()
        status = self.run("doctor", "--json")
        said = json.loads(self.capsys.readouterr().out)
        assert said["sound"] == (status == 0) == (not any(one["state"] == "problem" for one in said["checks"]))
        found: list[dict[str, Any]] = said["checks"]
        return found

    def problems(self) -> list[dict[str, Any]]:
        return [one for one in self() if one["state"] == "problem"]


@pytest.fixture(scope="module")
def sound(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A project in which nothing is wrong; leave it as it is."""
    root = tmp_path_factory.mktemp("sound") / "project"
    root.mkdir()
    copy_project(root)
    shutil.copy(root / "recipes" / "scenes-quick.yaml", root / "params.yaml")
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(root)
        patch.setattr(sys, "argv", ["darkroom"])
        from darkroom.config.recipes import use

        use("scenes-quick")
        toy.commit()
    return root


@pytest.fixture
def project(sound: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A copy of it, the current folder, of somebody who has told git who they are."""
    root = tmp_path / "project"
    shutil.copytree(sound, root, symlinks=True)
    monkeypatch.chdir(root)
    monkeypatch.setenv("PATH", f"{PROGRAMS}{os.pathsep}{os.environ['PATH']}")
    for name in list(os.environ):
        if name.startswith(("DARKROOM_", "MLFLOW_", "DVC_", "GIT_")):
            monkeypatch.delenv(name)
    for name in ("GIT_CONFIG_GLOBAL", "GIT_CONFIG_SYSTEM"):
        monkeypatch.setenv(name, os.devnull)
    monkeypatch.setenv("GIT_CEILING_DIRECTORIES", str(tmp_path))
    toy.shell("git config user.name A && git config user.email a@example.org")
    monkeypatch.setattr(table, "CHECKS", QUICK)
    monkeypatch.setattr(table.examine, "__defaults__", (QUICK,))
    return root


@pytest.fixture
def doctor(run: Callable[..., int], capsys: pytest.CaptureFixture[str], project: Path) -> Doctor:
    return Doctor(run, capsys)


class Case(NamedTuple):
    """broken: what is done to the project. check: which check finds it. says: words of what it says."""

    broken: Callable[[Path, pytest.MonkeyPatch], None]
    check: str
    says: str


def shell(command: str) -> Callable[[Path, pytest.MonkeyPatch], None]:
    return lambda project, monkeypatch: toy.shell(command)


def hold_lock(project: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """As of a dvc that was killed, and whose number a process that is not dvc has now."""
    (project / ".dvc/tmp").mkdir(exist_ok=True)
    sleeping = subprocess.Popen(["sleep", "60"])
    monkeypatch.setattr(sys, "_sleeping", sleeping, raising=False)
    write_json(".dvc/tmp/rwlock", {"write": {"artifacts/vae": {"pid": sleeping.pid, "cmd": "repro"}}})


def tear_lock(project: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (project / ".dvc/tmp").mkdir(exist_ok=True)
    (project / ".dvc/tmp/rwlock").write_text('{"write": ')


def fill_disk(project: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A disk of a little more than the project, and an object in the cache that nothing names."""
    monkeypatch.setattr(machine, "NOTHING", 2**20)
    room = size_of([project]) + 3 * 2**19
    stray = project / ".dvc/cache/files/md5/ab/cdef0123456789abcdef0123456789"
    stray.parent.mkdir(parents=True)
    stray.write_bytes(os.urandom(2**20))
    usage = type(shutil.disk_usage("."))._make
    monkeypatch.setattr(shutil, "disk_usage", lambda path: usage((room, size_of([project]), room - size_of([project]))))


def be_older(project: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (project / ".mlflow").mkdir()
    make_older(f"sqlite:///{project}/.mlflow/mlflow.db")


def lose_data(project: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The pictures lie in data/raw, and DARKROOM_DATA names a disk that is not mounted."""
    ask_for_pictures(project, monkeypatch)
    toy.shell("darkroom data scan")
    monkeypatch.setenv("DARKROOM_DATA", "/mnt/pictures")


def ask_for_pictures(project: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    toy.shell("darkroom recipe use captioned")
    root = project / "data/raw/captioned"
    from darkroom.config.params import load

    root = project / "data/raw" / str(getattr(load().prepare_data.source, "root"))  # noqa: B009
    root.mkdir(parents=True)
    (root / "a.png").write_bytes(b"a")
    (root / "a.txt").write_text("a ring")


def other_version(project: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """What pip leaves that installed another DVC."""
    elsewhere = project.parent / "packages"
    info = elsewhere / "dvc-2.58.0.dist-info"
    info.mkdir(parents=True)
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: dvc\nVersion: 2.58.0\n")
    monkeypatch.syspath_prepend(str(elsewhere))


def misspell(project: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    file = project / "params.yaml"
    file.write_text(file.read_text().replace("image_size:", "imagesize:", 1))


def lose_dvc(project: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A project of one's own, in which dvc init was forgotten."""
    toy.shell("git rm -r --quiet --cached .dvc && rm -r .dvc")
    toy.commit()


CASES = {
    "no repository": Case(shell("rm -rf .git"), "git", "no repository here"),
    "no identity": Case(shell("git config --unset user.email"), "git identity", "git commit and dvc exp run"),
    "a lock of git's": Case(shell("touch .git/index.lock"), "git lock", "left by a git that is gone"),
    "dvc's folder gone": Case(shell("rm -r .dvc"), "dvc", "every dvc command would fail"),
    "dvc not initialised": Case(lose_dvc, "dvc", "every dvc command would fail"),
    "dvc.yaml torn": Case(shell("echo 'stages: [' > dvc.yaml"), "dvc", "not a pipeline"),
    "a lock of dvc's": Case(hold_lock, "dvc lock", "is sleep now"),
    "dvc's notes torn": Case(tear_lock, "dvc lock", "cannot be read"),
    "cache not writable": Case(
        shell("dvc config --local cache.dir /proc/cache"), "dvc cache", "nothing can be written"
    ),
    "remote gone": Case(shell("dvc remote add -d store ../disk/store"), "dvc remote store", "no such folder"),
    "disk full": Case(fill_disk, "disk", "free"),
    "an older MLflow's store": Case(be_older, "mlflow", "has MLflow's schema"),
    "a misspelt key": Case(misspell, "parameters", "did you mean image_size?"),
    "no parameters": Case(shell("rm params.yaml"), "parameters", "no stage would start"),
    "data elsewhere": Case(lose_data, "data", "no such folder"),
    "no manifest": Case(ask_for_pictures, "data", "no manifest"),
}


@pytest.fixture(autouse=True)
def end_sleeping() -> Iterator[None]:
    yield
    if sleeping := getattr(sys, "_sleeping", None):
        sleeping.kill()
        sleeping.wait()


def test_a_sound_project_is_called_so_and_left_as_it_is(project: Path, doctor: Doctor) -> None:
    """Catches a check that warns of what is usual, or writes: an .mlflow made by asking whether it is there."""
    before = sorted(project.rglob("*"))
    found = doctor()
    assert {one["state"] for one in found} == {"ok"}, [one for one in found if one["state"] != "ok"]
    assert {one["check"] for one in found} >= {
        "python",
        "packages",
        "disk",
        "git",
        "dvc",
        "mlflow",
        "parameters",
        "data",
    }
    assert [path for path in sorted(project.rglob("*")) if path not in before and ".dvc" not in path.parts] == []


@pytest.mark.parametrize("case", CASES.values(), ids=CASES)
def test_a_broken_setup_is_told_and_what_is_said_repairs_it(
    case: Case, project: Path, doctor: Doctor, run: Callable[..., int], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Catches a fault that is passed over, one that is found in place of another, and a command that does not help."""
    case.broken(project, monkeypatch)
    [mine] = [one for one in doctor.problems() if one["check"] == case.check]
    assert case.says in f"{mine['found']} {mine['remedy']}"
    for _ in range(ROUNDS):
        if not (found := doctor.problems()):
            break
        command = found[0]["command"]
        assert command, found
        if command == "darkroom gc":  # which asks on a terminal
            assert run("gc", "--yes") == 0
        elif command.startswith("unset "):
            monkeypatch.delenv(command.removeprefix("unset "))
        else:
            toy.shell(command)
    assert not doctor.problems()


def test_another_version_of_a_package_is_told(project: Path, doctor: Doctor, monkeypatch: pytest.MonkeyPatch) -> None:
    """Its remedy, pip, would change the installation that runs this test: what it asks for is held against that."""
    from packaging.requirements import Requirement

    other_version(project, monkeypatch)
    [found] = doctor.problems()
    assert "dvc 2.58.0 is installed" in found["found"]
    program, _, wanted = found["command"].partition(" -m pip install ")
    assert Path(program).samefile(sys.executable)
    monkeypatch.undo()
    assert Requirement(wanted.strip("'")).specifier.contains("3.67.1")


class Guarded(http.server.BaseHTTPRequestHandler):
    """A tracking server that lets one user in."""

    def do_GET(self) -> None:
        right = base64.b64encode(f"{USER}:{PASSWORD}".encode()).decode()
        allowed = self.path in ("/health", "/version") or self.headers.get("Authorization") == f"Basic {right}"
        self.send_response(404 if allowed else 401)
        self.end_headers()

    def log_message(self, *_: object) -> None:
        pass


@contextmanager
def guarded() -> Iterator[str]:
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Guarded) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield f"http://127.0.0.1:{server.server_address[1]}"
        server.shutdown()


def test_a_server_that_is_away_or_refuses_is_told(
    project: Path, doctor: Doctor, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Catches a wrong password shown, and one called a server that is away."""
    monkeypatch.setenv("MLFLOW_TRACKING_URI", f"http://127.0.0.1:{free_port()}")
    [found] = doctor.problems()
    assert (found["check"], "does not answer" in found["found"]) == ("mlflow", True)
    assert found["remedy"].startswith("start it, correct MLFLOW_TRACKING_URI")
    with guarded() as address:
        monkeypatch.setenv("MLFLOW_TRACKING_URI", address.replace("//", f"//{USER}:wrong-password@"))
        [found] = doctor.problems()
        assert "refuses user and password" in found["found"]
        assert "wrong-password" not in json.dumps(found)
        monkeypatch.setenv("MLFLOW_TRACKING_URI", address.replace("//", f"//{USER}:{PASSWORD}@"))
        assert doctor.problems() == []


def test_a_remote_that_does_not_answer_is_told(project: Path, doctor: Doctor) -> None:
    toy.shell(f"dvc remote add -d web http://127.0.0.1:{free_port()}/store")
    [found] = doctor.problems()
    assert found["check"] == "dvc remote web"
    assert "dvc pull, dvc push and darkroom reproduce would fail" in found["found"]


def test_devices_are_told_by_pytorch_and_a_setting_that_is_wrong(
    project: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Catches a look for devices that fails, and a device that is not here taken for one."""
    monkeypatch.setenv("DARKROOM_DEVICE", "cuda:77")
    [found] = machine.check_devices()
    assert found.state == "problem"
    assert found.command == "unset DARKROOM_DEVICE"
    monkeypatch.delenv("DARKROOM_DEVICE")
    [found] = machine.check_devices()
    assert found.state in ("ok", "warning")
    assert "cores" in found.found


def test_a_check_that_fails_is_a_line_and_no_traceback(project: Path, run: Callable[..., int], capsys: Any) -> None:
    def fail() -> Iterator[Any]:
        raise RuntimeError("no such thing")

    [found] = table.examine([table.Check("odd", fail)])
    assert (found.state, found.check) == ("problem", "odd")
    assert "no such thing" in found.found


def test_outside_a_project_the_machine_is_looked_at(
    doctor: Doctor, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    found = doctor()
    assert [one["check"] for one in found if one["state"] == "problem"] == ["project"]
    assert "dvc" not in {one["check"] for one in found}


def test_a_cache_that_is_read_only_is_opened_and_its_objects_stay_protected(
    project: Path, doctor: Doctor, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Fails if DVC's protection of each object is taken off: a link to one could then be written through."""
    folder = project / ".dvc/cache/files/md5/ab"
    folder.mkdir(parents=True)
    kept = folder / "cdef0123456789abcdef0123456789"
    kept.write_bytes(b"")
    above = [folder, *list(folder.parents)[:3]]
    for path in (kept, *above):
        path.chmod(0o444 if path == kept else 0o555)

    def temporary(dir: Path) -> Any:  # as of somebody who is not root
        if not dir.stat().st_mode & stat.S_IWUSR:
            raise PermissionError(errno.EACCES, os.strerror(errno.EACCES))
        return tempfile.SpooledTemporaryFile()

    monkeypatch.setattr(tempfile, "TemporaryFile", temporary)
    (mine,) = [one for one in doctor.problems() if one["check"] == "dvc cache"]
    toy.shell(mine["command"])
    assert not [one for one in doctor.problems() if one["check"] == "dvc cache"]
    assert all(path.stat().st_mode & stat.S_IWUSR for path in above)
    assert stat.S_IMODE(kept.stat().st_mode) == 0o444


def test_dvcs_notes_are_not_taken_from_a_dvc_that_works(
    project: Path, doctor: Doctor, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Fails if they are to be removed for one that is gone while they hold another's, which lives."""
    hold_lock(project, monkeypatch)
    notes = json.loads((project / ".dvc/tmp/rwlock").read_text())
    dvc = subprocess.Popen([sys.executable, "-c", "input()", "dvc"], stdin=subprocess.PIPE)
    notes["write"]["artifacts/unet"] = {"pid": dvc.pid, "cmd": "repro"}
    write_json(".dvc/tmp/rwlock", notes)
    try:
        (mine,) = [one for one in doctor.problems() if one["check"] == "dvc lock"]
    finally:
        dvc.communicate(b"\n")
    assert mine["command"] == ""
    assert str(dvc.pid) in mine["remedy"]
    (mine,) = [one for one in doctor.problems() if one["check"] == "dvc lock"]
    assert mine["command"] == "rm .dvc/tmp/rwlock"
