"""The noise process that a stranger's model says it was trained on, checked before anything is laid out for it."""

from typing import Any

from pydantic import TypeAdapter, ValidationError

from darkroom.config.diffusion import FlowProcess, ProcessConfig, VEProcess, VPProcess
from darkroom.core.errors import DarkroomError
from darkroom.core.limits import TRAIN_TIMES
from darkroom.core.text import printable
from darkroom.diffusion.schedule import DiscreteVP

SCHEDULES = ("linear", "scaled_linear", "sigmoid", "cosine")  # kinds of them, which pydantic puts into a key's place
KINDS = ("vp", "ve", "flow")


def checked_process(values: Any, source: str, remedy: str) -> VPProcess | VEProcess | FlowProcess:
    """A process, as diffusion.process.process_of takes it.

    Args:
        values: what is said at `source`, with its kind.

    Raises:
        DarkroomError: it is none, or one with more times than any; names the place and the key.
    """
    if not isinstance(values, dict) or not isinstance(values.get("kind"), str) or values["kind"] not in KINDS:
        raise DarkroomError(
            f"{source}: {printable(repr(values))} is not a process; its kind is {', '.join(KINDS)}; {remedy}"
        )
    times = values.get("num_train_timesteps")
    if isinstance(times, int):
        TRAIN_TIMES.check(f"{source}.num_train_timesteps", times, remedy)
    try:
        config: VPProcess | VEProcess | FlowProcess = TypeAdapter(ProcessConfig).validate_python(values)
    except ValidationError as error:
        fault = error.errors()[0]
        inner = fault["loc"][1:]  # behind the kind
        key = "".join(f".{part}" for part in inner if not (len(inner) > 1 and part in SCHEDULES))
        found = "" if fault["type"] in ("missing", "value_error") else f" = {printable(repr(fault['input']))}"
        raise DarkroomError(f"{source}{printable(key)}{found}: {printable(fault['msg'])}; {remedy}") from None
    if isinstance(config, VPProcess) and not bool(DiscreteVP(config).alphas_cumprod.isfinite().all()):
        raise DarkroomError(f"{source}: its levels are not numbers; {remedy}")
    return config
