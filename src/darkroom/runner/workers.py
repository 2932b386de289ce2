"""The further processes of a training: the stage's own script again, as far as the training and no further.

Each works in a folder of its own, in which all of the project is linked but the stage's outputs: what it writes on its
way to the training, and before its end, is nobody's. It ends with the process that leads, whatever ends that: its
standard input is a pipe that closes then.
"""

import os
import shutil
import signal
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, redirect_stderr
from pathlib import Path
from types import FrameType

import torch

from darkroom.core.artifact import read_json, write_json
from darkroom.core.errors import DarkroomError
from darkroom.training.engine.distributed import ALONE, Processes

FOLDER, RANK = "DARKROOM_WORKER_FOLDER", "DARKROOM_WORKER_RANK"  # of the environment of a worker
PLAN, STORE = "plan.json", "store"
POLL = 0.05  # seconds
LEADER_REPORTS_WITHIN = 3.0  # seconds after an error that the leader has to meet it itself and tell of it, once for all
NOTICED = 3.0  # seconds until the end of a process is known whose connection broke
WAIT = 3.0  # seconds that a worker has to end
STUCK = 10.0  # seconds after which a leader that waits for a dead worker on a GPU is ended from outside


def leading(size: int, device: torch.device, training: Path) -> Processes:
    """This process and `size` - 1 more that run its script; they start when its training begins.

    training: the folder of its checkpoints.
    """
    if size == 1:
        return ALONE
    if os.name != "posix":
        raise DarkroomError(f"processes = {size}: Linux or macOS only; set DARKROOM_PROCESSES=1")
    return Processes(0, size, device, Workers([sys.executable, *sys.orig_argv[1:]], size, training))


class Workers:
    """The leader's `Company`: starts `size` - 1 workers with `command`, watches them, and ends them."""

    def __init__(self, command: Sequence[str], size: int, training: Path) -> None:
        self.command, self.size, self.training = list(command), size, training
        self._processes: list[subprocess.Popen[bytes]] = []
        self._lost: str | None = None
        self._over = threading.Event()

    @contextmanager
    def rendezvous(self) -> Iterator[Path]:
        """See `Company`. In this block the end of a worker is a DarkroomError, wherever the block stands."""
        signal.signal(signal.SIGUSR1, self._give_up)
        with tempfile.TemporaryDirectory(prefix="darkroom_", ignore_cleanup_errors=True) as name:
            folder = Path(name)
            write_json(folder / PLAN, {"size": self.size, "training": str(self.training)})
            try:
                for rank in range(1, self.size):
                    self._start(folder, rank)
                while not all(_ready(folder, rank).exists() for rank in range(1, self.size)):
                    for rank, process in enumerate(self._processes, 1):
                        if process.poll() == 0:
                            raise DarkroomError(f"worker {rank} ended before the training began")
                    time.sleep(POLL)
                yield folder / STORE
            finally:
                self._dismiss()

    def who_left(self) -> str | None:
        end = time.monotonic() + NOTICED
        while self._lost is None and time.monotonic() < end:
            time.sleep(POLL)
        return self._lost

    def _start(self, folder: Path, rank: int) -> None:
        process = subprocess.Popen(
            self.command,
            env={**os.environ, FOLDER: str(folder), RANK: str(rank)},
            stdin=subprocess.PIPE,
            stdout=subprocess.DEVNULL,
            start_new_session=True,  # Ctrl-C is the leader's
        )
        self._processes.append(process)
        threading.Thread(target=self._watch, args=(rank, process), name=f"watch worker {rank}", daemon=True).start()

    def _watch(self, rank: int, process: "subprocess.Popen[bytes]") -> None:
        status = process.wait()
        if status == 0 or self._over.is_set():
            return
        cause = f"was ended by {signal.Signals(-status).name}" if status < 0 else f"ended with status {status}"
        self._lost = f"worker {rank} {cause}; run again to resume from the last checkpoint, or set DARKROOM_PROCESSES=1"
        os.kill(os.getpid(), signal.SIGUSR1)
        if not self._over.wait(STUCK):
            print(f"darkroom: {self._lost}", file=sys.stderr, flush=True)
            os._exit(1)

    def _give_up(self, number: int, frame: FrameType | None) -> None:
        if self._lost is not None and not self._over.is_set():
            raise DarkroomError(self._lost)

    def _dismiss(self) -> None:
        self._over.set()
        for process in self._processes:
            assert process.stdin is not None
            process.stdin.close()
        for process in self._processes:
            try:
                process.wait(WAIT)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()


class Worker:
    """A worker's `Company`, and its surroundings.

    training: the folder of the leader's checkpoints.
    """

    def __init__(self, folder: Path, rank: int) -> None:
        plan = read_json(folder / PLAN)
        self.folder, self.rank, self.size = folder, rank, int(plan["size"])
        self.training = Path(plan["training"])

    @classmethod
    def here(cls) -> "Worker | None":
        """What this process is, if it was started as a worker."""
        folder = os.environ.get(FOLDER)
        return cls(Path(folder), int(os.environ[RANK])) if folder else None

    @contextmanager
    def at_work(self, outputs: Sequence[Path]) -> Iterator[None]:
        """In this block it works aside and in silence; `outputs` of the stage are not the leader's, but its own."""
        for number in (signal.SIGINT, signal.SIGTERM):
            signal.signal(number, signal.SIG_IGN)
        threading.Thread(target=self._end_with_leader, name="watch leader", daemon=True).start()
        aside = self.folder / f"worker_{self.rank}"
        link(Path.cwd(), aside, outputs)
        os.chdir(aside)
        with Path(os.devnull).open("w") as nowhere, redirect_stderr(nowhere):
            try:
                yield
            except Exception:
                time.sleep(LEADER_REPORTS_WITHIN)
                raise

    @contextmanager
    def rendezvous(self) -> Iterator[Path]:
        """See `Company`. The block done, so is the worker. Raises SystemExit: always, at the end of the block."""
        _ready(self.folder, self.rank).touch()
        yield self.folder / STORE
        raise SystemExit(0)

    def who_left(self) -> None:
        """See `Company`; the leader knows."""

    def _end_with_leader(self) -> None:
        while os.read(0, 1):
            pass
        shutil.rmtree(self.folder, ignore_errors=True)
        os._exit(1)


def link(source: Path, target: Path, without: Sequence[Path]) -> None:
    """Make the folder `target`, and in it links to all that is in `source`, but for the paths `without` below it.

    Folders in which such a path lies are made, not linked.
    """
    target.mkdir()
    for entry in source.iterdir():
        below = [path.relative_to(entry.name) for path in without if path.parts[0] == entry.name]
        if not below:
            (target / entry.name).symlink_to(entry)
        elif all(path.parts for path in below) and entry.is_dir():
            link(entry, target / entry.name, below)


def _ready(folder: Path, rank: int) -> Path:
    return folder / f"{rank}.ready"
