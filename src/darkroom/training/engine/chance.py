"""What a training reached beside what takes none: a network no better than chance says so, or ends the stage."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

from darkroom.core.errors import DarkroomError


@dataclass(frozen=True)
class Reached:
    """A held-out figure, and the value it has without any training.

    name: of the figure. by: what reaches `chance`, in words. higher_is_better: as of accuracies and dB, not of losses.
    """

    name: str
    value: float
    chance: float
    by: str
    higher_is_better: bool = False

    @property
    def is_better(self) -> bool:
        """Whether the training was of use; one that is not a number was not."""
        return self.value > self.chance if self.higher_is_better else self.value < self.chance


def against_chance(stage: str, on: Literal["stop", "warn"], figures: Sequence[Reached]) -> dict[str, float | str]:
    """{NAME_by_chance: its value} for each figure and, where one is no better, `worse_than_chance` in words.

    Args:
        on: what to do then, the section's `on_worse_than_chance`.

    Raises:
        DarkroomError: one is no better, and `on` is "stop".
    """
    known: dict[str, float | str] = {f"{one.name}_by_chance": one.chance for one in figures}
    worse = [
        f"{one.name} = {one.value:.4g} is no better than {one.chance:.4g}, {one.by}"
        for one in figures
        if not one.is_better
    ]
    if worse and on == "stop":
        raise DarkroomError(
            f"{'; '.join(worse)}; train longer ({stage}.steps), at another {stage}.optimizer.learning_rate or on more "
            f"pictures, or accept it with {stage}.on_worse_than_chance: warn, which resumes from the last checkpoint"
        )
    return known | ({"worse_than_chance": "; ".join(worse)} if worse else {})
