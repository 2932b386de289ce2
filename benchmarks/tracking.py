"""What tracking costs a stage: stages of a small pipeline, forced again and again with tracking and without, in turns.

    python benchmarks/tracking.py                                    cache_latents and train_evaluator
    python benchmarks/tracking.py --stages train_unet --rounds 3     others

Works in a clone of the last commit, in a temporary folder, where it first runs the recipe scenes-quick whole. Prints
the median seconds of `dvc repro -f -s STAGE`, from its start to its end, and the difference. At most WANTED is wanted.
"""

import argparse
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Mapping
from pathlib import Path

from darkroom.config.merging import complete_text

PROJECT = Path(__file__).parents[1]
WANTED = 5.0  # seconds a stage
MODES = ("on", "off")


def seconds(project: Path, environment: Mapping[str, str], *arguments: str) -> float:
    """How long `dvc ARGUMENTS` takes."""
    began = time.perf_counter()
    command = [sys.executable, "-m", "dvc", *arguments]
    done = subprocess.run(command, cwd=project, env=dict(environment), capture_output=True, text=True, check=False)
    if done.returncode:
        sys.exit(f"{' '.join(arguments)}: {done.stderr[-2000:]}")
    return time.perf_counter() - began


def main() -> None:
    """Read the command line, and measure."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--stages", nargs="+", default=["cache_latents", "train_evaluator"])
    parser.add_argument("--rounds", type=int, default=5, help="of each stage, with and without")
    given = parser.parse_args()
    if given.rounds < 1:
        parser.error("--rounds is 1 or more")
    with tempfile.TemporaryDirectory() as folder:
        project = Path(folder) / "project"
        subprocess.run(["git", "clone", "--quiet", str(PROJECT), str(project)], check=True)
        (project / "params.yaml").write_bytes(complete_text(project / "recipes" / "scenes-quick.yaml").encode())
        kept = {key: value for key, value in os.environ.items() if not key.startswith("MLFLOW_")}
        path = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
        environments = {
            mode: {**kept, "PATH": path, "PYTHONPATH": str(project / "src"), "DARKROOM_TRACKING": mode}
            for mode in MODES
        }
        seconds(project, environments["on"], "repro")
        print("| stage | s with tracking | s without | difference |")
        print("|---|---|---|---|", flush=True)
        for stage in given.stages:
            taken: dict[str, list[float]] = {mode: [] for mode in MODES}
            for _ in range(given.rounds):
                for mode in MODES:
                    taken[mode].append(seconds(project, environments[mode], "repro", "-f", "-s", stage))
            on, off = (statistics.median(taken[mode]) for mode in MODES)
            print(f"| {stage} | {on:.1f} | {off:.1f} | {on - off:.1f} |", flush=True)
    print(f"at most {WANTED:g} s a stage wanted")


if __name__ == "__main__":
    main()
