"""The noise process that a stranger's model says it was trained on, checked before anything is laid out for it."""

from typing import Any

from darkroom.core.errors import DarkroomError
from darkroom.core.limits import TRAIN_TIMES
from darkroom.core.text import printable
from darkroom.diffusion.process import KINDS, process_of
from darkroom.diffusion.schedule import DiscreteVP


def checked_process(values: Any, place: str, remedy: str) -> dict[str, Any]:
    """A process as `process_of` takes it, with `kind`.

    Args:
        values: what is said at `place`.

    Raises:
        DarkroomError: it is none, or one with more times than any; names the place and the key.
    """
    if not isinstance(values, dict) or not isinstance(values.get("kind"), str) or values["kind"] not in KINDS:
        raise DarkroomError(
            f"{place}: {printable(repr(values))} is no process; its kind is {', '.join(KINDS)}; {remedy}"
        )
    for key, value in values.items():
        if key not in ("kind", "schedule") and not isinstance(value, int | float):
            raise DarkroomError(f"{place}.{printable(key)} = {printable(repr(value))}: give a number; {remedy}")
    times = values.get("num_train_timesteps")
    if times is not None:
        if isinstance(times, bool) or not isinstance(times, int) or times < 1:
            raise DarkroomError(f"{place}.num_train_timesteps = {times!r}: give a whole number from 1 on; {remedy}")
        TRAIN_TIMES.check(f"{place}.num_train_timesteps", times, remedy)
    for key in ("beta_start", "beta_end"):
        if not 0 < values.get(key, 0.5) < 1:
            raise DarkroomError(f"{place}.{key} = {values[key]!r}: give a number between 0 and 1; {remedy}")
    try:
        process = process_of(values)
    except DarkroomError as error:
        raise DarkroomError(f"{place}: {error}; {remedy}") from None
    except (TypeError, AssertionError) as error:  # a key missing or unknown, a schedule of another name
        reason = " ".join(str(error).split()).rpartition("__init__() ")[2]  # what follows is told of the key
        raise DarkroomError(f"{place}: {printable(reason)}; {remedy}") from None
    if isinstance(process, DiscreteVP) and not bool(process.alphas_cumprod.isfinite().all()):
        raise DarkroomError(f"{place}: its levels are no numbers; {remedy}")
    return values
