"""The processes of a training: torchrun (torch.distributed.run) starts the stage's script again as each of its ranks.

Where the environment names a rank, whoever started it, the script takes its part. Ranks leave what they have to say at
their end in a folder of the launcher's, which says it once.
"""

import logging
import os
import signal
import socket
import sys
import tempfile
import threading
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, redirect_stderr, redirect_stdout, suppress
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path
from types import FrameType
from typing import TYPE_CHECKING, NoReturn

import psutil
import torch

from darkroom.core.device import Strategy
from darkroom.core.errors import DarkroomError
from darkroom.core.interruption import GRACE, Interrupted
from darkroom.training.engine.distributed import LOOPBACK, LostError, Processes, group

if TYPE_CHECKING:
    from torch.distributed.elastic.multiprocessing.errors import ProcessFailure
    from torch.distributed.elastic.rendezvous import RendezvousHandler, RendezvousParameters

NAMED_BY = ("RANK", "WORLD_SIZE", "MASTER_ADDR", "MASTER_PORT")  # of the environment of a rank
NODES = "PET_NNODES"  # from which torchrun takes --nnodes; PET_NODE_RANK and so on go with it
LOOPBACK_ONLY = "loopback"  # a rendezvous backend, as torchrun names them
REPORTS = "DARKROOM_REPORTS"  # of the environment of a rank that `launch` started: where it leaves its last line
LOST = 75  # status of a rank that ends because another one is gone
COLLATERAL = (LOST, 128 + signal.SIGTERM, -signal.SIGTERM)  # statuses of ranks that end because of another one
MEET_WITHIN = timedelta(minutes=15)
LEADER_REPORTS_WITHIN = 3.0  # seconds after an error that the leader has to meet it itself
GONE_WITHIN = 15.0  # seconds that the rank that leads has after a signal, whatever it waits for
OTHERS_GONE_WITHIN = GRACE + 2  # seconds that the others have: the leader ends its step within GRACE, or not at all
AGAIN = "run again to resume from the last checkpoint, or set DARKROOM_PROCESSES=1"


@dataclass(frozen=True)
class Rank:
    """Which process of a training this one is; `local` ones are those of this machine."""

    rank: int
    size: int
    local_rank: int
    local_size: int

    @classmethod
    def here(cls) -> "Rank | None":
        """As torchrun says it; None: this process is alone."""
        if not all(name in os.environ for name in NAMED_BY) or os.environ["WORLD_SIZE"] == "1":
            return None
        rank, size = int(os.environ["RANK"]), int(os.environ["WORLD_SIZE"])
        local = os.environ.get("LOCAL_RANK", rank), os.environ.get("LOCAL_WORLD_SIZE", size)
        return cls(rank, size, *map(int, local))

    @contextmanager
    def joined(self, device: torch.device, strategy: Strategy) -> Iterator[Processes]:
        """Take part with the other ranks in this block.

        Raises:
            DarkroomError: not all of them came.
        """
        from torch.distributed.rendezvous import rendezvous

        _end_even_if_stuck(OTHERS_GONE_WITHIN if self.rank > 0 else GONE_WITHIN)
        if self.local_size == self.size:
            os.environ.setdefault("GLOO_SOCKET_IFNAME", LOOPBACK)  # not open to the network
        try:
            store, *_ = next(rendezvous("env://", self.rank, self.size, timeout=MEET_WITHIN))
        except RuntimeError as error:
            where = f"{os.environ['MASTER_ADDR']}:{os.environ['MASTER_PORT']}"
            raise DarkroomError(
                f"MASTER_ADDR, MASTER_PORT = {where}: nobody answers there ({str(error).splitlines()[0]}); start this "
                "stage on the first machine too"
            ) from None
        with group(self.rank, self.size, device, store, strategy) as processes:
            yield processes

    @contextmanager
    def silent(self) -> Iterator[None]:
        """What a rank that does not lead does, in this block: the leader writes, speaks and hears the signals."""
        for number in (signal.SIGINT, signal.SIGTERM):
            signal.signal(number, lambda *_: None)
        with Path(os.devnull).open("w") as nowhere, redirect_stdout(nowhere), redirect_stderr(nowhere):
            try:
                yield
            except LostError:
                raise
            except Exception:
                signal.signal(signal.SIGTERM, signal.SIG_DFL)
                time.sleep(LEADER_REPORTS_WITHIN)
                raise


def report(line: str) -> None:
    """Say the last line of this process, or leave it to the launcher.

    A rank hears no signal after that: torchrun sends one to each that is still there when another has ended.
    """
    here, folder = Rank.here(), os.environ.get(REPORTS)
    if here is not None:
        for number in (signal.SIGINT, signal.SIGTERM):
            signal.signal(number, signal.SIG_IGN)
    if here is not None and folder is not None:
        (Path(folder) / str(here.rank)).write_text(line, encoding="utf-8")
    else:
        print(line, file=sys.stderr)


def launch(processes: int) -> NoReturn:
    """Run this process's script as `processes` ranks on this machine, and exit as they do.

    With PET_NNODES and what goes with it, as torchrun knows them, this machine is one of several.

    Raises:
        DarkroomError: a rank was lost.
        Interrupted: by a signal, of whose end no rank says more.
    """
    from torch.distributed import run as torchrun
    from torch.distributed.elastic.multiprocessing.errors import ChildFailedError
    from torch.distributed.elastic.rendezvous import rendezvous_handler_registry
    from torch.distributed.launcher.api import elastic_launch

    if os.name != "posix":
        raise DarkroomError(f"processes = {processes}: Linux or macOS only; set DARKROOM_PROCESSES=1")
    logging.disable()  # torchrun's own reports; nothing else is said from here on
    asked = _forward_signals()
    rendezvous_handler_registry.register(LOOPBACK_ONLY, _on_loopback)
    with tempfile.TemporaryDirectory(prefix="darkroom_", ignore_cleanup_errors=True) as folder:
        os.environ |= {REPORTS: folder, "TORCH_CPP_LOG_LEVEL": os.environ.get("TORCH_CPP_LOG_LEVEL", "ERROR")}
        options = [f"--nproc-per-node={processes}", "--max-restarts=0", f"--log-dir={folder}", "--signals-to-handle="]
        options += [] if NODES in os.environ else [f"--rdzv-backend={LOOPBACK_ONLY}"]
        arguments = torchrun.parse_args(  # type: ignore[no-untyped-call]
            [*options, "--no-python", sys.executable, *sys.orig_argv[1:]]
        )
        config, command, rest = torchrun.config_from_args(arguments)
        try:
            elastic_launch(config, command)(*rest)
        except ChildFailedError as error:
            _end_as(error.failures, Path(folder), asked)
    sys.exit(0)


def _forward_signals() -> list[int]:
    """Pass signals on to the ranks from now on, whose leader saves and ends; the list of those that came.

    torchrun's own handlers raise an exception, which is lost where torchrun catches all.
    """
    asked: list[int] = []

    def forward(number: int, frame: FrameType | None) -> None:
        asked.append(number)
        ranks = psutil.Process().children()
        for rank in ranks:
            with suppress(psutil.Error):
                rank.send_signal(number)
        if not ranks:
            raise Interrupted(number)

    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, forward)
    return asked


def _end_as(failures: "Mapping[int, ProcessFailure]", folder: Path, asked: Sequence[int]) -> NoReturn:
    """As the rank does for whose sake the others ended.

    Args:
        asked: signals that this process was sent.
    """
    rank = min(failures, key=lambda rank: (failures[rank].exitcode in COLLATERAL, rank))
    status = failures[rank].exitcode
    said = folder / str(rank)
    if said.exists():
        print(said.read_text(encoding="utf-8"), file=sys.stderr)
        sys.exit(max(status, 1))
    if asked:
        raise Interrupted(asked[0])
    if rank == 0 and status > 0:
        sys.exit(status)  # its traceback is there
    cause = f"was ended by {signal.Signals(-status).name}" if status < 0 else f"ended with status {status}"
    raise DarkroomError(f"worker {rank} {cause}; {AGAIN}")


def _on_loopback(parameters: "RendezvousParameters") -> "RendezvousHandler":
    """A meeting point for the ranks of this machine, at a free port that is not open to the network."""
    from torch._C._distributed_c10d import TCPStore
    from torch.distributed.elastic.rendezvous.static_tcp_rendezvous import StaticTCPRendezvous

    class Loopback(StaticTCPRendezvous):
        def get_backend(self) -> str:
            return LOOPBACK_ONLY

    listener = socket.create_server(("127.0.0.1", 0))
    host, port = listener.getsockname()
    handler = Loopback(host, port, 0, 1, parameters.run_id, 60)
    handler._store = TCPStore(host, port, is_master=True, multi_tenant=True, master_listen_fd=listener.detach())
    return handler


def _end_even_if_stuck(seconds: float) -> None:
    """End this process so long after a signal, even where it waits for a rank that is gone.

    Then it may be in a library and run no handler of Python's; but of the signal, C tells the file at once.
    """
    signals, sink = os.pipe()
    os.set_blocking(sink, False)
    signal.set_wakeup_fd(sink, warn_on_full_buffer=False)

    def wait() -> None:
        os.read(signals, 1)
        time.sleep(seconds)
        os._exit(LOST)

    threading.Thread(target=wait, name="end after a signal", daemon=True).start()
