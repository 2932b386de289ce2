"""How fast Darkroom is on a GPU, beside diffusers, whether it repeats there, and what is left to gain.

    python benchmarks/gpu.py --list                            all rows, in groups of at most four minutes on an H100
    python benchmarks/gpu.py --rows smoke --out gpu.jsonl      a group
    python benchmarks/gpu.py --rows unet-64:ours,draw-512      rows, whole or of one contestant
    python benchmarks/gpu.py --budget 600 --out gpu.jsonl      in order of what they tell, as far as ten minutes go
    python benchmarks/gpu.py --tiny                            all of it, small, on a CPU too: whether it runs

Every contestant of a row has a process of its own, and they take turns. What one finds is a line of JSON, printed and
appended to --out at once; an error is a line too, and the next one follows. DARKROOM_… variables and runtime.yaml hold
for ours as always, but for `deterministic`, which is off beside diffusers, where it would cost ours alone, unless the
contestant's name says it. Needs PyTorch, Python, diffusers and transformers; no DVC, MLflow, data set or network.
"""

import argparse
import json
import os
import signal
import subprocess
import sys
import tempfile
import threading
import time
import traceback
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any

SOURCES = Path(__file__).parents[1] / "src"
GRACE = 60  # seconds that a contestant may take besides three times what is expected
SAID = 1500  # characters of a failed contestant's last words


@dataclass(frozen=True)
class Row:
    """What is measured, and whom it is measured of: {contestant: seconds that it takes on an H100}."""

    what: str
    contestants: Mapping[str, int]


ROWS = {
    "machine": Row("the device, and the product of two bf16 matrices of 8192²", {"device": 20}),
    "unet-default": Row(
        "training steps of the default recipe's U-Net", {"ours": 50, "ours-deterministic": 50, "diffusers": 40}
    ),
    "unet-adamw": Row(
        "the same with AdamW on both sides, in bf16 and in fp32; also on a CPU",
        {"ours-bf16": 40, "diffusers-bf16": 40, "ours-fp32": 40, "diffusers-fp32": 40},
    ),
    "unet-32": Row(
        "training steps of SD 1.x's U-Net, bf16, 32² latents, batch 64",
        {"ours": 90, "ours-compiled": 120, "diffusers": 50, "diffusers-compiled": 120},
    ),
    "unet-64": Row(
        "training steps of SD 1.x's U-Net, bf16, 64² latents, batch 24",
        {"ours": 90, "ours-compiled": 120, "ours-deterministic": 90, "diffusers": 50, "diffusers-compiled": 120},
    ),
    "vae-256": Row(
        "training steps of SD's autoencoder, bf16, 256² pictures, batch 8",
        {"ours": 50, "diffusers": 40, "diffusers-compiled": 90},
    ),
    "encode-256": Row(
        "256² pictures to moments of latents, bf16, batch 32", {"ours": 35, "diffusers": 30, "diffusers-compiled": 50}
    ),
    "draw-512": Row(
        "512² pictures from text, 50 DDIM steps, guided, bf16, batch 1 and 8",
        {"ours": 75, "diffusers": 65, "diffusers-compiled": 120},
    ),
    "scenes": Row("the stages of the default recipe from the first to the last", {"ours": 200}),
    "exact": Row("the default recipe, a tenth of it: the same bytes twice, and after SIGKILL", {"ours": 200}),
}

# In the order in which they tell most, each of at most four minutes.
GROUPS = {
    "smoke": ("machine:device", "unet-default:ours", "unet-32:diffusers", "unet-32:ours"),
    "large": ("unet-64:ours", "unet-64:diffusers"),
    "pictures": ("encode-256:ours", "encode-256:diffusers", "draw-512:ours", "draw-512:diffusers"),
    "compiled": ("unet-64:ours-compiled", "unet-64:diffusers-compiled"),
    "scenes": ("scenes:ours",),
    "exact": ("exact:ours",),
    "vae": ("vae-256:ours", "vae-256:diffusers", "vae-256:diffusers-compiled"),
    "deterministic": ("unet-64:ours-deterministic", "unet-default:ours-deterministic", "unet-default:diffusers"),
    "adamw": tuple(f"unet-adamw:{library}-{how}" for how in ("bf16", "fp32") for library in ("ours", "diffusers")),
    "compiled-32": ("unet-32:ours-compiled", "unet-32:diffusers-compiled"),
    "others": ("draw-512:diffusers-compiled", "encode-256:diffusers-compiled"),
}

Entry = tuple[str, str]  # row, contestant


def entries(names: Sequence[str]) -> list[Entry]:
    """What groups, rows and ROW:CONTESTANT stand for, each once, in the order named.

    Raises:
        ValueError: names what is not one of these.
    """
    found: dict[Entry, None] = {}
    for name in names:
        row, _, contestant = name.partition(":")
        if name in GROUPS:
            chosen = GROUPS[name]
        elif row in ROWS and (not contestant or contestant in ROWS[row].contestants):
            chosen = tuple(f"{row}:{one}" for one in ROWS[row].contestants if contestant in ("", one))
        else:
            known = [*GROUPS, *ROWS, *(f"{name}:{one}" for name, row in ROWS.items() for one in row.contestants)]
            raise ValueError(f"--rows: {name!r} is none of {', '.join(dict.fromkeys(known))}")
        found |= dict.fromkeys((entry.split(":")[0], entry.split(":")[1]) for entry in chosen)
    return list(found)


def listing() -> Iterator[str]:
    """The groups with their rows and how long they take."""
    for group, names in GROUPS.items():
        seconds = sum(ROWS[row].contestants[contestant] for row, contestant in entries(names))
        yield f"{group} ({seconds} s)"
        for row, contestant in entries(names):
            yield f"  {f'{row}:{contestant}':<32} {ROWS[row].contestants[contestant]:>4} s  {ROWS[row].what}"


def work(row: str, contestant: str, scratch: Path, tiny: bool, emit: Callable[[Mapping[str, Any]], None]) -> None:
    """In a contestant's process: measure, and tell `emit` each finding."""
    if contestant.endswith("deterministic"):
        os.environ["DARKROOM_DETERMINISTIC"] = "1"
    elif row not in ("scenes", "exact"):
        os.environ.setdefault("DARKROOM_DETERMINISTIC", "0")
    if contestant == "ours-compiled":
        os.environ["DARKROOM_COMPILE"] = "always"
    import gpu_measure
    from darkroom.core import device as devices

    device = devices.start()
    clock = gpu_measure.Clock(device, tiny)
    started = time.perf_counter()

    def tell(found: Mapping[str, Any]) -> None:
        profile = {"profile": devices.execution_profile(device)} if contestant.startswith("ours") else {}
        seconds = round(time.perf_counter() - started, 1)
        emit({**found, "seconds_in_all": seconds, **gpu_measure.surroundings(device), **profile})

    if row == "machine":
        tell(
            {
                "matrix_product_tflops": round(clock.peak, 5),
                "nvidia_smi": nvidia_smi(),
                "python": sys.version.split()[0],
            }
        )
    elif row.startswith(("unet", "vae")):
        import gpu_training

        (gpu_training.vae if row == "vae-256" else gpu_training.unet)(row, contestant, clock, tell, scratch)
    elif row in ("encode-256", "draw-512"):
        import gpu_pictures

        (gpu_pictures.encoding if row == "encode-256" else gpu_pictures.drawing)(row, contestant, clock, tell, scratch)
    else:
        import gpu_stages

        (gpu_stages.scenes if row == "scenes" else gpu_stages.exact)(row, contestant, clock, tell, scratch)


def nvidia_smi() -> str:
    """Name, driver, memory, clocks and power limit; empty where there is no such program."""
    query = "--query-gpu=name,driver_version,memory.total,clocks.sm,clocks.max.sm,power.limit,temperature.gpu"
    try:
        done = subprocess.run(
            ["nvidia-smi", query, "--format=csv,noheader"], capture_output=True, text=True, check=False
        )
    except OSError:
        return ""
    return done.stdout.strip()


class Report:
    """Where findings go: printed, and appended to a file, each at once. It remembers them for the comparison."""

    def __init__(self, out: Path | None, label: str) -> None:
        self.out, self.label = out, label
        self.lines: list[dict[str, Any]] = []

    def __call__(self, found: Mapping[str, Any]) -> None:
        """One more line."""
        line = {**found, **({"label": self.label} if self.label else {})}
        self.lines.append(line)
        if self.out is not None:
            with self.out.open("a", encoding="utf-8") as file:
                file.write(json.dumps(line) + "\n")
                file.flush()
                os.fsync(file.fileno())
        brief = {key: value for key, value in line.items() if key not in ("profile", "metrics", "tf32", "torch")}
        print(json.dumps(brief if self.out is not None else line), flush=True)

    def comparison(self) -> Iterator[str]:
        """For every row and batch that has both, ours over theirs in pictures a second and in memory."""
        rated = [line for line in self.lines if "images_per_second" in line]
        for ours in rated:
            for theirs in rated:
                same = all(ours.get(key) == theirs.get(key) for key in ("row", "batch", "precision"))
                if same and ours["contestant"].startswith("ours") and not theirs["contestant"].startswith("ours"):
                    speed = ours["images_per_second"] / theirs["images_per_second"]
                    memory = ours["peak_mib"] / theirs["peak_mib"]
                    who = f"{ours['contestant']} / {theirs['contestant']}"
                    yield f"# {ours['row']}, batch {ours['batch']}: {who}: speed {speed:.2f}, memory {memory:.2f}"


def measure(entry: Entry, scratch: Path, tiny: bool, limit: float, report: Report) -> None:
    """One contestant in a process of its own, ended with all it started after `limit` seconds; errors are reported."""
    row, contestant = entry
    words = scratch / f"{row}-{contestant}.stderr"
    searched = os.pathsep.join(filter(None, [str(SOURCES), os.environ.get("PYTHONPATH", "")]))
    command = [sys.executable, __file__, "--worker", row, contestant, str(scratch), *(["--tiny"] if tiny else [])]
    began, late, found = time.monotonic(), threading.Event(), 0
    with words.open("w") as said:
        process = subprocess.Popen(
            command,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=said,
            text=True,
            env={**os.environ, "PYTHONPATH": searched},
            start_new_session=True,
        )

    def end() -> None:
        late.set()
        kill_group(process)

    timer = threading.Timer(limit, end)
    timer.start()
    try:
        assert process.stdout is not None
        for line in process.stdout:
            with suppress(json.JSONDecodeError):  # a line of which only a part came, from one that was ended
                report({"row": row, "contestant": contestant, **json.loads(line)})
                found += 1
        status = process.wait()
    finally:
        timer.cancel()
        kill_group(process)
    if late.is_set() or status or not found:
        why = f"ended after {limit:.0f} s" if late.is_set() else f"status {status}"
        last = words.read_text(errors="replace")[-SAID:]
        seconds = round(time.monotonic() - began, 1)
        report({"row": row, "contestant": contestant, "error": why, "said": last, "seconds_in_all": seconds})


def kill_group(process: "subprocess.Popen[str]") -> None:
    """End a process that leads a group, and what it started."""
    try:
        os.killpg(process.pid, signal.SIGKILL)
    except ProcessLookupError:
        return
    process.wait()


def serve(row: str, contestant: str, scratch: Path, tiny: bool) -> None:
    """The contestant's process: its findings are the lines of its output, which nothing else writes to."""
    answers: IO[str] = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)
    status = 0
    try:
        work(row, contestant, scratch, tiny, lambda found: print(json.dumps(found), file=answers, flush=True))
    except BaseException:
        traceback.print_exc()
        status = 1
    answers.close()
    sys.stderr.flush()
    os._exit(status)  # a thread that still prepares batches for a training that was left need not be waited for


def main() -> int:
    """Read the command line, and measure; the number of contestants that failed."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rows", default=",".join(GROUPS), help="groups, rows or ROW:CONTESTANT (default: all)")
    parser.add_argument("--list", action="store_true", help="what there is, and how long it takes on an H100")
    parser.add_argument("--out", type=Path, help="file that the lines of JSON are appended to")
    parser.add_argument("--budget", type=float, help="seconds in all; what is not expected to fit is left out")
    parser.add_argument("--tiny", action="store_true", help="small networks and pictures: whether everything runs")
    parser.add_argument("--label", default="", help="written into every line")
    parser.add_argument("--scratch", type=Path, help="folder to work in, with 20 GB to spare (default: temporary)")
    parser.add_argument("--worker", nargs=3, help=argparse.SUPPRESS)
    given = parser.parse_args()
    if given.worker:
        row, contestant, scratch = given.worker
        serve(row, contestant, Path(scratch), given.tiny)
    if given.list:
        print("\n".join(listing()))
        return 0
    try:
        chosen = entries(given.rows.split(","))
    except ValueError as error:
        parser.error(str(error))
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(128 + signal.SIGTERM))  # by which contestants are ended too
    report, began = Report(given.out, given.label), time.monotonic()
    with tempfile.TemporaryDirectory(dir=given.scratch, ignore_cleanup_errors=True) as scratch:
        for row, contestant in chosen:
            expected = ROWS[row].contestants[contestant]
            left = float("inf") if given.budget is None else given.budget - (time.monotonic() - began)
            if expected > left:
                report({"row": row, "contestant": contestant, "skipped": f"takes {expected} s, {left:.0f} s are left"})
                continue
            measure((row, contestant), Path(scratch), given.tiny, min(3 * expected + GRACE, left), report)
    for line in report.comparison():
        print(line, flush=True)
    return sum("error" in line for line in report.lines)


if __name__ == "__main__":
    sys.exit(min(main(), 1))
