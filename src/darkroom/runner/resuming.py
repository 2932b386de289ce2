"""Where a stage's checkpoints lie, and for how long.

.checkpoints/STAGE/FINGERPRINT/step_…; the fingerprint covers all that makes the result: the command, the parameters,
the inputs and the code. They outlast the stage itself: until dvc.lock names its outputs, a kill would lose them all.
"""

import hashlib
import json
import shutil
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import yaml

from darkroom.config.stage_spec import LOCK
from darkroom.core.artifact import content_hash, read_json, write_json
from darkroom.core.errors import DarkroomError

FOLDER = Path(".checkpoints")
AFTER_TRAINING = ("on_worse_than_chance",)  # keys that say what to do with what was trained
DONE = "done.json"  # what the finished stage wrote: {output: content hash}


def fingerprint(
    stage: str, cmd: str, params: Mapping[str, Any], inputs: Mapping[str, str], code: Mapping[str, str]
) -> str:
    """32 hexadecimal digits that differ wherever the stage's training might.

    Args:
        params: of this stage, {section: its keys}. inputs, code: path -> content hash.
    """
    trained = {
        section: {key: value for key, value in values.items() if key not in AFTER_TRAINING}
        if isinstance(values, Mapping)
        else values
        for section, values in params.items()
    }
    everything = {"stage": stage, "cmd": cmd, "params": trained, "inputs": inputs, "code": code}
    return hashlib.md5(json.dumps(everything, sort_keys=True).encode()).hexdigest()


def mark_done(training: Path, outputs: Sequence[Path]) -> None:
    """Note in a training's folder, if it has one, that its stage is through, and what it wrote."""
    if training.is_dir():
        write_json(training / DONE, {path.as_posix(): content_hash(path) for path in outputs})


def clear_recorded(root: Path) -> None:
    """Remove the checkpoints of trainings whose outputs dvc.lock names by now.

    Args:
        root: the folder that .checkpoints is in.
    """
    marks = list((root / FOLDER).glob(f"*/*/{DONE}"))
    if not marks or not LOCK.is_file():
        return
    try:
        lock = yaml.safe_load(LOCK.read_text(encoding="utf-8"))
        outs = {stage: entry.get("outs", []) for stage, entry in lock["stages"].items()}
    except (yaml.YAMLError, UnicodeDecodeError, TypeError, KeyError, AttributeError):
        return  # dvc will say what is wrong with it
    for mark in marks:
        try:
            made = read_json(mark)
        except DarkroomError:
            continue
        recorded = {out["path"]: out["md5"] for out in outs.get(mark.parts[-3], []) if "md5" in out}
        if made and made.items() <= recorded.items():
            shutil.rmtree(mark.parent, ignore_errors=True)
