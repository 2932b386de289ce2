"""Which ways of training a U-Net learn sooner: rows tried on the same latents, captions and judges.

    python benchmarks/sample_efficiency.py --list
    python benchmarks/sample_efficiency.py --project . --out rows.jsonl                 every row, one seed
    python benchmarks/sample_efficiency.py --project . --out rows.jsonl --rows stratified,logit-normal-1 --seeds 3
    python benchmarks/sample_efficiency.py --table rows.jsonl                           the table of a document

--project is a folder in which the default recipe has been run to its end. A row trains train_unet anew, and the stages
before it where it changes those, in a folder of its own, and evaluates with the judges of the project. Rows of another
cost a step have so many steps that they take the time of the others, by a ratio measured on two CPU cores. What a row
finds is a line of JSON, appended at once; a line that is there already is not measured again.
"""

import argparse
import json
import sys
import tempfile
import threading
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

from darkroom.config.params import Params
from darkroom.runner.budget import dependent
from gpu_stages import RECIPE, Project, metrics_of, recipe

STEPS = 700  # of the U-Net, five minutes on two CPU cores
UNET, VAE, TEXT = "train_unet", "train_vae", "setup_text_encoder"
Row = Mapping[str, Any]  # {"stage.key": value}
FIGURES = {
    "attributes": "alignment.test.attribute_accuracy",
    "exact": "alignment.test.exact_match",
    "exact, unseen": "alignment.test.unseen_captions.exact_match",
    "exact, novel": "alignment.novel.exact_match",
}


def times(location: float, scale: float = 1.0) -> Row:
    """Logit-normal times."""
    return {f"{UNET}.objective.times": {"kind": "logit_normal", "location": location, "scale": scale}}


def flow(**more: Any) -> Row:
    """Rectified flow in place of the cosine schedule."""
    changed = {"process": {"kind": "flow", "t_min": 0.001}, "objective.prediction_type": "flow_prediction"}
    return {**{f"{UNET}.{key}": value for key, value in changed.items()}, **more}


STRATIFIED = {f"{UNET}.objective.times": {"kind": "stratified"}}


ROWS: dict[str, Row] = {
    "stratified": STRATIFIED,
    "logit-normal-1": times(1.0),
    "logit-normal-0.5": times(0.5),
    "logit-normal-1.5": times(1.5),
    "flow": flow(**STRATIFIED),
    "flow-logit-normal-0": flow(**times(0.0)),
    "x-prediction": {**STRATIFIED, f"{UNET}.objective.prediction_type": "sample"},
    "min-snr": {**STRATIFIED, f"{UNET}.objective.weighting": {"kind": "min_snr", "gamma": 5.0}},
    "zero-terminal-snr": {**STRATIFIED, f"{UNET}.process.rescale_betas_zero_snr": True},
    "higher-rate": {**times(1.0), f"{UNET}.optimizer.learning_rate": 0.01},
    "lower-rate": {**times(1.0), f"{UNET}.optimizer.learning_rate": 0.004},
    "shorter-average": {**times(1.0), f"{UNET}.ema_half_life": 2500},
    "less-dropout": {**times(1.0), f"{UNET}.condition_dropout": 0.05},
    "smaller-batch": {**times(1.0), f"{UNET}.batch_size": 48, f"{UNET}.steps": 1100},
    "narrower": {**times(1.0), f"{UNET}.unet.block_out_channels": [48, 96], f"{UNET}.steps": 980},
    "shorter-stages-before": {**times(1.0), f"{VAE}.steps": 700, f"{TEXT}.steps": 400},
    "logit-normal-1-1000-steps": {**times(1.0), f"{UNET}.steps": 1000},
    "twice-the-time": {**STRATIFIED, f"{UNET}.steps": 2 * STEPS},
    "logit-normal-1-twice-the-time": {**times(1.0), f"{UNET}.steps": 2 * STEPS},
}


def values_of(row: Row, seed: int) -> dict[str, Any]:
    """params.yaml of a row."""
    values = recipe(RECIPE)
    for key, new in {f"{UNET}.steps": STEPS, f"{UNET}.seed": seed, **row}.items():
        section, *path = key.split(".")
        changes: list[tuple[Sequence[str], Any]] = [(path, new)]
        if path == ["steps"]:
            changes = [*((name, then) for name, _, then in dependent(values[section], new)), *changes]
        for (*folders, last), value in changes:
            place: dict[str, Any] = values[section]
            for folder in folders:
                place = place[folder]
            place[last] = value
    Params.model_validate(values)
    return values


def changed_stages(row: Row) -> list[str]:
    """The stages that a row trains or makes anew, in order, evaluation last."""
    changed = {key.split(".")[0] for key in row} | {UNET, "evaluate"}
    if VAE in changed:
        changed.add("cache_latents")
    return [stage for stage in (VAE, "cache_latents", TEXT, UNET, "evaluate") if stage in changed]


def measure(name: str, seed: int, finished: Path, folder: Path, threads: int) -> dict[str, Any]:
    """Train and evaluate a row."""
    project, stages = Project(folder, values_of(ROWS[name], seed)), changed_stages(ROWS[name])
    for stage, place in project.places.items():
        for path in () if stage in stages else place.outputs:
            (folder / path).parent.mkdir(parents=True, exist_ok=True)
            (folder / path).symlink_to((finished / path).resolve(strict=True))
    seconds = {stage: round(project.run(stage, threads=threads).seconds, 1) for stage in stages}
    steps = values_of(ROWS[name], seed)[UNET]["steps"]
    return {
        "row": name,
        "seed": seed,
        "steps": steps,
        "seconds": seconds,
        "metrics": metrics_of(project, "evaluate"),
        "held_out": metrics_of(project, UNET),
    }


def figure(line: Mapping[str, Any], path: str) -> Mapping[str, float]:
    """value, low and high of a figure."""
    found: Any = line["metrics"]
    for key in path.split("."):
        found = found[key]
    return dict(found)


def table(lines: Sequence[Mapping[str, Any]]) -> Iterator[str]:
    """Markdown: a row with one seed has that one's interval, one with several their mean and range."""
    yield f"| row | steps | seeds | {' | '.join(FIGURES)} |"
    yield "|---" * (3 + len(FIGURES)) + "|"
    for name in ROWS:
        mine = [line for line in lines if line["row"] == name]
        if not mine:
            continue
        cells = [name, str(mine[0]["steps"]), str(len(mine))]
        for path in FIGURES.values():
            found = [figure(line, path) for line in mine]
            value = sum(each["value"] for each in found) / len(found)
            one = len(found) == 1
            low = found[0]["low"] if one else min(each["value"] for each in found)
            high = found[0]["high"] if one else max(each["value"] for each in found)
            cells.append(f"{value:.3f} [{low:.3f}, {high:.3f}]")
        yield f"| {' | '.join(cells)} |"


def main() -> int:
    """Read the command line, and measure or tabulate; the number of rows that failed."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--list", action="store_true", help="the rows, with what each changes")
    parser.add_argument("--table", type=Path, help="print the lines of this file as a table")
    parser.add_argument("--project", type=Path, default=Path(), help="finished default run (default: this folder)")
    parser.add_argument("--out", type=Path, default=Path("rows.jsonl"), help="file of JSON lines (default: rows.jsonl)")
    parser.add_argument("--rows", default=",".join(ROWS), help="names, separated by commas (default: all)")
    parser.add_argument("--seeds", type=int, default=1, help="of train_unet: 0, 1, … (default: one)")
    parser.add_argument("--at-once", type=int, default=1, help="rows that are measured side by side (a GPU bears six)")
    parser.add_argument("--threads", type=int, default=2, help="CPU threads of each (default: 2)")
    given = parser.parse_args()
    if given.list:
        print("\n".join(f"{name}: {dict(row)}" for name, row in ROWS.items()))
        return 0
    if given.table is not None:
        print("\n".join(table([json.loads(line) for line in given.table.read_text().splitlines()])))
        return 0
    names = given.rows.split(",")
    if unknown := sorted(set(names) - ROWS.keys()):
        parser.error(f"--rows: {', '.join(unknown)}: not among {', '.join(ROWS)}")
    there = given.out.read_text().splitlines() if given.out.exists() else []
    done = {(line["row"], line["seed"]) for line in map(json.loads, there)}
    lock, failed = threading.Lock(), 0

    def one(name: str, seed: int) -> None:
        nonlocal failed
        with tempfile.TemporaryDirectory() as scratch:
            try:
                found = measure(name, seed, given.project.resolve(), Path(scratch) / "row", given.threads)
            except (RuntimeError, OSError) as error:
                failed += 1
                print(f"{name}, seed {seed}: {error}", file=sys.stderr, flush=True)
                return
        with lock, given.out.open("a") as file:
            file.write(json.dumps(found) + "\n")
        print(
            f"{name}, seed {seed}:",
            {short: figure(found, path)["value"] for short, path in FIGURES.items()},
            flush=True,
        )

    with ThreadPoolExecutor(given.at_once) as pool:
        for seed in range(given.seeds):
            for name in names:
                if (name, seed) not in done:
                    pool.submit(one, name, seed)
    return failed


if __name__ == "__main__":
    sys.exit(min(main(), 1))
