"""What a served model does under load: good requests side by side, then hostile ones, then a good one, then its end.

    python benchmarks/serving.py                          the registered candidate, 200 requests at concurrency 8
    python benchmarks/serving.py --model 3 --json out.json

Starts `darkroom serve` in the current project, prints a table and the same as JSON, and exits with status 1 where a
bound is exceeded: a refusal within REFUSED_WITHIN, the end under load within ENDS_WITHIN, the last good request within
SLOWER times the first ones.
"""

import argparse
import json
import os
import signal
import statistics
import sys
import tempfile
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import psutil

from hostile_requests import PROMPT, Answer, Hostile, asked, good, hostile, send
from model_server import OURS, ModelServer, started

REFUSED_WITHIN, ENDS_WITHIN, SLOWER = 2.0, 10.0, 2.0  # seconds, seconds, times
ALONE = 10  # requests one after the other, before and after all others
LONG = asked([{"prompt": PROMPT}] * 64, num_inference_steps=1000)


@contextmanager
def served(model: str) -> Iterator[ModelServer]:
    """`darkroom serve` in the current project, once it answers."""
    with tempfile.TemporaryDirectory() as folder:
        try:
            with started([*OURS, "--version", model], Path.cwd(), os.environ, Path(folder) / "log") as server:
                yield server
        except RuntimeError as error:
            sys.exit(str(error))


def peak_mib(process: int) -> float:
    """The most memory that a process has held so far; where the system does not say, what it holds."""
    status = Path(f"/proc/{process}/status")
    if status.exists():
        return int(status.read_text().partition("VmHWM:")[2].split()[0]) / 1024
    return float(psutil.Process(process).memory_info().rss) / 2**20


def quantiles(answers: list[Answer]) -> dict[str, float]:
    """Seconds of the requests."""
    seconds = sorted(answer.seconds for answer in answers)
    return {
        "median": statistics.median(seconds),
        "p95": seconds[max(0, -(-len(seconds) * 95 // 100) - 1)],
        "longest": seconds[-1],
    }


def measure(model: str, requests: int, concurrency: int) -> dict[str, Any]:
    """All figures; `wrong` lists what was not answered as it should be."""
    wrong: list[str] = []

    def answered(request: Hostile) -> Answer:
        answer = send(port, request)
        if answer.status != request.status or request.names not in answer.message:
            wrong.append(f"{request.name}: {answer.status} {answer.message}")
        return answer

    with served(model) as server:
        process, port = server.process, server.port
        at_start = peak_mib(process.pid)
        answered(good())
        before = quantiles([answered(good(seed)) for seed in range(ALONE)])
        began = time.perf_counter()
        with ThreadPoolExecutor(concurrency) as pool:
            under_load = quantiles(list(pool.map(answered, map(good, range(requests)))))
        passed, loaded = time.perf_counter() - began, peak_mib(process.pid)
        slowest = max((answered(one).seconds, one.name) for one in hostile())
        after_hostile = peak_mib(process.pid)
        after = quantiles([answered(good(seed)) for seed in range(ALONE)])
        with ThreadPoolExecutor(concurrency) as pool:
            long = [pool.submit(send, port, Hostile("long", "", LONG)) for _ in range(concurrency)]
            time.sleep(1)
            told = time.perf_counter()
            process.send_signal(signal.SIGTERM)
            process.wait()
            ended = time.perf_counter() - told
            statuses = sorted({one.result().status for one in long})
    return {
        "model": model,
        "requests": requests,
        "concurrency": concurrency,
        "cores": len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count(),
        "seconds": {"alone": before, "at once": under_load, "alone, afterwards": after},
        "requests_per_second": requests / passed,
        "peak_mib": {"loaded": at_start, "requests at once": loaded, "hostile ones": after_hostile},
        "hostile": {"requests": sum(1 for _ in hostile()), "slowest": slowest[0], "which": slowest[1]},
        "sigterm_under_load": {"seconds": ended, "answers": statuses},
        "wrong": wrong,
    }


def exceeded(found: dict[str, Any]) -> list[str]:
    """The bounds that do not hold."""
    seconds = found["seconds"]
    checks = {
        f"a refusal took {found['hostile']['slowest']:.2f} s ({found['hostile']['which']})": found["hostile"]["slowest"]
        <= REFUSED_WITHIN,
        f"SIGTERM took {found['sigterm_under_load']['seconds']:.1f} s": found["sigterm_under_load"]["seconds"]
        <= ENDS_WITHIN,
        "good requests became slower": seconds["alone, afterwards"]["median"] <= SLOWER * seconds["alone"]["median"],
    }
    return [*found["wrong"], *(what for what, holds in checks.items() if not holds)]


def main() -> int:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", default="candidate", help="version or alias")
    parser.add_argument("--requests", type=int, default=200)
    parser.add_argument("--concurrency", type=int, default=8)
    parser.add_argument("--json", type=Path, help="file to write the figures to, in place of printing them")
    given = parser.parse_args()
    found = measure(given.model, given.requests, given.concurrency)
    print("| requests | median s | p95 s | longest s |\n|---|---|---|---|")
    for name, one in found["seconds"].items():
        print(f"| {name} | {one['median']:.2f} | {one['p95']:.2f} | {one['longest']:.2f} |")
    ended, worst = found["sigterm_under_load"], found["hostile"]
    print(f"\n{given.requests} at concurrency {given.concurrency}: {found['requests_per_second']:.1f} a second")
    print(f"{worst['requests']} hostile ones: slowest refusal {worst['slowest']:.2f} s ({worst['which']})")
    print("peak MiB: " + ", ".join(f"{value:.0f} {name}" for name, value in found["peak_mib"].items()))
    print(f"SIGTERM under load: {ended['seconds']:.1f} s, those at work were answered {ended['answers']}")
    text = json.dumps(found, indent=1)
    if given.json:
        given.json.write_text(text + "\n", encoding="utf-8")
    else:
        print(text)
    for line in (faults := exceeded(found)):
        print(f"exceeded: {line}")
    return min(len(faults), 1)


if __name__ == "__main__":
    sys.exit(main())
