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

from darkroom.config.lock_file import read_lock
from darkroom.config.params import PARAMS_FILE, Params
from darkroom.config.stage_spec import PIPELINE, StageSpec
from darkroom.core.artifact import content_hash, read_json, write_json
from darkroom.core.errors import DarkroomError

FOLDER = Path(".checkpoints")
STOP_AT = "stop_at"  # key that says where a training ends, which is the same one wherever it does
AFTER_TRAINING = ("on_worse_than_chance",)  # keys that say what to do with what was trained
DONE = "done.json"  # what the finished stage wrote: {output: content hash}


def lookup(params: Any, key: str) -> Any:
    """The value at a dotted key."""
    for part in key.split("."):
        params = params[part]
    return params


def chosen_params(here: StageSpec, params: Params) -> dict[str, Any]:
    """The parameters that a stage depends on, {key of dvc.yaml: value}.

    Raises:
        DarkroomError: dvc.yaml names a key that is none.
    """
    everything = params.model_dump()
    try:
        return {key: lookup(everything, key) for key in here.params}
    except (KeyError, TypeError) as error:
        raise DarkroomError(f"{PIPELINE}: params name {error}, which is no key of {PARAMS_FILE}; fix it") from None


def without_end(chosen: Mapping[str, Any], stage: str) -> dict[str, Any]:
    """The parameters of a stage but for where its training ends."""
    section = chosen.get(stage, {})
    return (
        {**chosen, stage: {key: value for key, value in section.items() if key != STOP_AT}} if section else dict(chosen)
    )


def training_fingerprint(
    stage: str, here: StageSpec, chosen: Mapping[str, Any], inputs: Mapping[str, str], code: Mapping[str, str]
) -> str:
    """The fingerprint of the training of a stage, by which it writes its checkpoints and others find them.

    Args:
        chosen: see `chosen_params`. inputs, code: path -> content hash.
    """
    return fingerprint(stage, here.cmd, without_end(chosen, stage), inputs, code)


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
    everything |= base_hash(params.get(stage))
    return hashlib.md5(json.dumps(everything, sort_keys=True).encode()).hexdigest()


def base_hash(section: Any) -> dict[str, str]:
    """{"base": content hash} of the network that a training begins with, where there is one: no input that DVC knows.

    Args:
        section: the parameters of its stage.
    """
    path = section.get("init_from") if isinstance(section, Mapping) else None
    return {"base": content_hash(path)} if path is not None and Path(path).exists() else {}


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
    if not marks:
        return
    try:
        locked = read_lock()
    except DarkroomError:
        return  # dvc will say what is wrong with it
    for mark in marks:
        try:
            made = read_json(mark)
        except DarkroomError:
            continue
        stage = locked.get(mark.parts[-3])
        if made and stage is not None and made.items() <= stage.outputs.items():
            shutil.rmtree(mark.parent, ignore_errors=True)
