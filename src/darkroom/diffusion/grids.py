"""The levels a sampler walks through. Where libraries differ is here, as data: spacing, offset, last level."""

import numpy as np

from darkroom.core.choices import Spacing
from darkroom.core.errors import DarkroomError
from darkroom.diffusion.schedule import CLEAN, DiscreteVP, Level


def timesteps(num_inference_steps: int, num_train_timesteps: int, spacing: Spacing, steps_offset: int) -> list[float]:
    """Descending training times (num_inference_steps), as in table 2 of Lin et al. 2024 ("Common diffusion noise
    schedules and sample steps are flawed"): trailing starts at the last time, leading ends at `steps_offset`, linspace
    takes both ends.

    Raises:
        DarkroomError: the number of steps is not in [1, num_train_timesteps].
    """
    n, total = num_inference_steps, num_train_timesteps
    if not 1 <= n <= total:
        raise DarkroomError(f"num_inference_steps = {n}: give 1 to {total}, the number of training times")
    if spacing == "trailing":
        times = np.round(np.arange(total, 0, -total / n))[:n] - 1
    elif spacing == "leading":
        times = (np.arange(n) * (total // n))[::-1] + steps_offset
    else:
        times = np.linspace(0, total - 1, n)[::-1]
    return [float(t) for t in np.clip(times, 0, total - 1)]


def level_grid(
    schedule: DiscreteVP, num_inference_steps: int, spacing: Spacing = "trailing", steps_offset: int = 0
) -> list[Level]:
    """The num_inference_steps + 1 levels from noise to the clean image."""
    times = timesteps(num_inference_steps, schedule.num_train_timesteps, spacing, steps_offset)
    return [*(schedule.level(t) for t in times), CLEAN]
