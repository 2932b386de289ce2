"""Two libraries on the same work, in turns: each lives in a process of its own, so that its peak memory is its own."""

import json
import resource
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Self

MIB = 1024 if sys.platform != "darwin" else 1024**2  # ru_maxrss is in KiB, on macOS in bytes


class Worker:
    """A process that has set up one contestant and runs its work whenever it is asked to."""

    def __init__(self, command: Sequence[str]) -> None:
        self.process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.process.terminate()
        self.process.wait()

    def run(self) -> dict[str, float]:
        """{"seconds": of this run, "peak_mib": of the process so far}."""
        assert self.process.stdin is not None
        assert self.process.stdout is not None
        self.process.stdin.write("run\n")
        self.process.stdin.flush()
        line = self.process.stdout.readline()
        if not line:
            raise SystemExit(f"{' '.join(self.process.args)}: ended with status {self.process.wait()}")  # type: ignore[arg-type]
        found: dict[str, float] = json.loads(line)
        return found


def serve(work: Callable[[], Any]) -> None:
    """In the worker: run `work` for every line of stdin and say how long it took."""
    answers, sys.stdout = sys.stdout, sys.stderr
    for _ in sys.stdin:
        start = time.perf_counter()
        work()
        seconds = time.perf_counter() - start
        print(json.dumps({"seconds": seconds, "peak_mib": peak_mib()}), file=answers, flush=True)


def peak_mib() -> float:
    """The most memory that this process has held so far."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / MIB


@dataclass(frozen=True)
class Measured:
    """Medians of several runs: seconds, and the peak memory of the process in MiB."""

    seconds: float
    peak_mib: float


def compare(commands: dict[str, Sequence[str]], rounds: int) -> dict[str, Measured]:
    """Run each command's work once to warm up and then `rounds` times, taking turns."""
    workers = {name: Worker(command) for name, command in commands.items()}
    try:
        for worker in workers.values():
            worker.run()
        runs: dict[str, list[dict[str, float]]] = {name: [] for name in workers}
        for _ in range(rounds):
            for name, worker in workers.items():
                runs[name].append(worker.run())
    finally:
        for worker in workers.values():
            worker.__exit__()
    return {
        name: Measured(statistics.median(run["seconds"] for run in found), found[-1]["peak_mib"])
        for name, found in runs.items()
    }
