"""The training that a stage would begin now, by its fingerprint: which checkpoint here it would resume from."""

from typing import Any

from darkroom.config.params import load
from darkroom.config.stage_spec import stage_spec
from darkroom.core.errors import DarkroomError
from darkroom.runner.finishing import STOP_AT
from darkroom.runner.resuming import fingerprint


def present_fingerprint(stage: str) -> str:
    """The fingerprint that a training begun now would have; "" where there is none: parameters or data are missing."""
    try:
        here, params = stage_spec(stage), load().model_dump()
        chosen: dict[str, Any] = {}
        for key in here.params:
            chosen[key] = params
            for piece in key.split("."):
                chosen[key] = chosen[key][piece]
        section = chosen.get(stage, {})
        chosen[stage] = {
            key: value for key, value in section.items() if key != STOP_AT
        }  # wherever it ends, it is this one
        return fingerprint(stage, here.cmd, chosen, here.input_hashes(), here.code_hashes())
    except DarkroomError:
        return ""
