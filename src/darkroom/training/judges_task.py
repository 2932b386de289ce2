"""The training of the two judges, for `fit`."""

from collections.abc import Mapping

from torch import nn

from darkroom.config.training import Optimization
from darkroom.nn.judge.classifier import ROTATIONS, SelfSupervised
from darkroom.nn.judge.towers import Towers
from darkroom.training.engine.blank import Size, judged, matched
from darkroom.training.engine.chance import Reached
from darkroom.training.engine.context import TrainingContext
from darkroom.training.engine.phase import Phase
from darkroom.training.engine.task import Task
from darkroom.training.engine.throughput import TRAINING, flops
from darkroom.training.judge import Judges


class JudgesTask(Task[nn.ModuleDict]):
    """Both judges side by side, each with a phase of its own.

    accuracy: split -> judge -> {what: share right} of the weights that `reached` was asked about.

    Args:
        size: of a picture. tokens: of a caption.
    """

    stage, description = "train_evaluator", "evaluator"

    def __init__(self, judges: Judges, size: Size, tokens: int, context: TrainingContext) -> None:
        self.judges, self.size, self.tokens, self.context = judges, size, tokens, context
        self.network = judges.networks
        self.accuracy: dict[str, dict[str, Mapping[str, float]]] = {}

    def phases(self, config: Optimization) -> list[Phase]:
        """See `Task`."""
        names = ["", *(f"judge_{name}" for name in list(self.judges.each)[1:])]
        judges = zip(names, self.judges.each.values(), strict=True)
        return [Phase(name, judge.network, config, judge.loss) for name, judge in judges]

    def validate(self, network: nn.ModuleDict) -> dict[str, float]:
        """See `Task`."""
        measured = self.judges.accuracy(network, "validation")
        return {f"judge {of}/{name}": x for of, found in measured.items() for name, x in found.items()}

    def reached(self, network: nn.ModuleDict, held_out: Mapping[str, float]) -> list[Reached]:
        """See `Task`."""
        splits = [name for name in self.judges.unseen if name != "train"]
        self.accuracy = {split: self.judges.accuracy(network, split) for split in splits}
        chance = self.judges.chance("test")
        return [
            Reached(f"judge {of}: {what} on test pictures", value, chance[of][what], "answers given blindly", True)
            for of, found in self.accuracy["test"].items()
            for what, value in found.items()
        ]

    def flops(self) -> float:
        """See `Task`."""
        return TRAINING * sum(self._flops(judge.network) for judge in self.judges.each.values())

    def _flops(self, judge: nn.Module) -> int:
        """Of one of a step's pictures, forward."""
        if isinstance(judge, Towers):
            return flops(judge, lambda: matched(judge, 1, self.size, self.tokens))
        turned = ROTATIONS if isinstance(judge, SelfSupervised) else 1
        return turned * flops(judge, lambda: judged(judge, 1, self.size))
