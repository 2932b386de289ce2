"""The training that a stage would begin now, by its fingerprint: which checkpoint here it would resume from."""

from darkroom.config.params import load
from darkroom.config.stage_spec import stage_spec
from darkroom.core.errors import DarkroomError
from darkroom.runner.resuming import chosen_params, training_fingerprint


def present_fingerprint(stage: str) -> str:
    """The fingerprint that a training begun now would have; "" where there is none: parameters or data are missing."""
    try:
        here = stage_spec(stage)
        return training_fingerprint(stage, here, chosen_params(here, load()), here.input_hashes(), here.code_hashes())
    except DarkroomError:
        return ""
