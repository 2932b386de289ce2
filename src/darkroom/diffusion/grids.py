"""The levels that a sampler goes through. Where libraries differ is here, as data: spacing, offset, last level."""

import math
from collections.abc import Sequence

import numpy as np

from darkroom.config.sampling import CONTINUOUS_SPACINGS, Spacing
from darkroom.core.errors import DarkroomError
from darkroom.diffusion.continuous import Continuous
from darkroom.diffusion.process import Process, starts_without_signal
from darkroom.diffusion.schedule import CLEAN, DiscreteVP, Level

KARRAS_RHO = 7.0  # Karras et al. 2022, section 3
SAME = 1e-6  # of a step: positions closer than this to a level of the grid stand on it


def timesteps(
    num_inference_steps: int, num_train_timesteps: int, spacing: Spacing, steps_offset: int, omit_last: bool = False
) -> list[float]:
    """Descending training times (num_inference_steps), as in table 2 of Lin et al. 2024 ("Common diffusion noise
    schedules and sample steps are flawed"): trailing starts at the last time, leading ends at `steps_offset`, linspace
    takes both ends.

    Args:
        omit_last: for leading and linspace, one time more is laid out and the last left out, and linspace's are rounded
            to whole times, as diffusers does for the DPM solvers.

    Raises:
        DarkroomError: the number of steps is not in [1, num_train_timesteps].
    """
    n, total = num_inference_steps, num_train_timesteps
    if not 1 <= n <= total:
        raise DarkroomError(f"num_inference_steps = {n}: give 1 to {total}, the number of training times")
    if spacing == "trailing":
        times = np.round(np.arange(total, 0, -total / n))[:n] - 1
    elif spacing == "leading":
        n_laid_out = n + omit_last
        times = (np.arange(n_laid_out) * (total // n_laid_out))[::-1][:n] + steps_offset
    else:
        even = np.linspace(0, total - 1, n + omit_last)[::-1][:n]
        times = np.round(even) if omit_last else even
    return [float(t) for t in np.clip(times, 0, total - 1)]


def continuous_times(process: Continuous, num_inference_steps: int, spacing: Spacing) -> list[float]:
    """Descending times (num_inference_steps) of a continuous process: linspace from its latest to its earliest, both
    taken; trailing in equal steps from its latest, one step short of 0.

    Raises:
        DarkroomError: no step, or a spacing that is laid out on discrete times.
    """
    n = num_inference_steps
    if n < 1:
        raise DarkroomError(f"num_inference_steps = {n}: give 1 or more")
    if spacing not in CONTINUOUS_SPACINGS:
        raise DarkroomError(
            f"spacing = {spacing!r}: is laid out on discrete times, which this process has not; "
            f"choose {' or '.join(CONTINUOUS_SPACINGS)}"
        )
    last = process.earliest if spacing == "linspace" else process.latest / n
    return [float(t) for t in np.linspace(process.latest, last, n)]


def _check_plain(**conventions: bool | int) -> None:
    """Refuse conventions about discrete times where there are none."""
    plain = {"steps_offset": 0, "omit_last": False, "set_alpha_to_one": True}
    for key, value in conventions.items():
        if value != plain[key]:
            raise DarkroomError(
                f"{key} = {value}: is about discrete times, which this process has not; give {plain[key]}"
            )


def level_grid(
    process: Process,
    num_inference_steps: int,
    spacing: Spacing = "trailing",
    steps_offset: int = 0,
    *,
    omit_last: bool = False,
    set_alpha_to_one: bool = True,
    karras: bool = False,
) -> list[Level]:
    """The num_inference_steps + 1 levels from noise to the clean image.

    Args:
        set_alpha_to_one: end at the clean image; otherwise at the first training time, which is nearly clean, unless
            that is a step already.
        karras: between the first and the last of the times, space sigma / alpha by eq. 5 of Karras et al. 2022.

    Raises:
        DarkroomError: a number of steps out of range, two levels that would coincide, or what the process does not
            know: of a continuous one, offsets and omissions; of one that starts without signal, Karras' spacing.
    """
    if isinstance(process, DiscreteVP):
        times = timesteps(num_inference_steps, process.num_train_timesteps, spacing, steps_offset, omit_last)
    else:
        _check_plain(steps_offset=steps_offset, omit_last=omit_last, set_alpha_to_one=set_alpha_to_one)
        times = continuous_times(process, num_inference_steps, spacing)
    levels = [process.level(t) for t in times]
    if karras:
        if starts_without_signal(process):
            raise DarkroomError("karras = True: spaces sigma / alpha, which has no end for this process; give False")
        levels = _karras(process, levels)
    last = CLEAN if set_alpha_to_one or times[-1] == 0 else process.level(0)
    if len(set(times)) < len(times) or levels[-1] == last:
        raise DarkroomError(
            f"steps_offset = {steps_offset}, set_alpha_to_one = {set_alpha_to_one} with {num_inference_steps} "
            f"{spacing} steps of {process.latest + 1:g}: two steps stand at one level; change one of them"
        )
    return [*levels, last]


def shortened(process: Process, levels: Sequence[Level], strength: float) -> list[Level]:
    """The last part of a grid, for a start that is a noisy picture instead of noise.

    The share `strength` in (0, 1] of the grid is left, in steps as long as the whole grid's or slightly shorter, so
    that every strength is a start of its own: k / n leaves exactly the last k of n steps, other values start at a time
    between two steps'. What is less than a few millionths of a step is taken for that.
    """
    n = len(levels) - 1
    left = max(strength * n, 4 * SAME)
    steps = max(1, math.ceil(left - SAME))
    positions = [n - left * (steps - i) / steps for i in range(steps)]
    return [*(_between(process, levels, position) for position in positions), levels[-1]]


def _between(process: Process, levels: Sequence[Level], position: float) -> Level:
    """The level at a fractional position of the grid; training times are interpolated."""
    low = math.floor(position + SAME)
    fraction = position - low
    if fraction < SAME:
        return levels[low]
    above, below = process.timestep(levels[low]), process.timestep(levels[low + 1])
    return process.level((1 - fraction) * above + fraction * below)


def _karras(process: Process, levels: Sequence[Level]) -> list[Level]:
    n, power = len(levels), 1 / KARRAS_RHO
    first, last = (float(level.sigma / level.alpha) ** power for level in (levels[0], levels[-1]))
    ratios = [(first + i / max(n - 1, 1) * (last - first)) ** KARRAS_RHO for i in range(n)]
    return [process.at_ratio(ratio) for ratio in ratios]
