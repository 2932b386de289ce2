"""The two judges together: what they measure of drawn pictures, and whether they can be believed."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor

from darkroom.core.rng import generator
from darkroom.core.seeds import numpy_rng
from darkroom.data.halves import halves
from darkroom.data.prepared import PreparedSplit
from darkroom.evaluation.alignment import Asked, Check, Scores, differ, joined, mean_of, top
from darkroom.evaluation.drawing import Drawn
from darkroom.evaluation.estimates import Estimate, bootstrap_mean, least_of_share
from darkroom.evaluation.fidelity import CLOSENESS, fidelity, metrics
from darkroom.evaluation.judge import Judge
from darkroom.evaluation.report import Measured

REAL_PICTURES = 2500  # of a split at most, on which the judges are measured
FAULTS_SHOWN = 3  # of a judge
SHUFFLES = 20  # of captions among pictures, whose mean is the chance level
UNSEEN = "unseen_captions"


@dataclass(frozen=True)
class Validity:
    """What metrics.json says of the judges.

    valid, reason: whether their figures count, and why not.
    real: their accuracy on real pictures of each split, each read by the judge that has not seen it.
    chance: what is right on the test pictures without looking: the better of the best constant answer and of the
        reading of another picture.
    """

    valid: bool
    reason: str
    real: dict[str, Any] = field(default_factory=dict)
    chance: dict[str, float] = field(default_factory=dict)


@dataclass(frozen=True)
class Judges:
    """Two judges; resamples: of each bootstrap."""

    judges: Sequence[Judge]
    seed: int
    resamples: int

    def validity(self, splits: Mapping[str, PreparedSplit]) -> Validity:
        """The judges measured on real pictures, test among the splits.

        They are valid if, for each of them, the intervals of every figure and of every one of its `checks` lie above
        its own chance level on unseen test pictures.
        """
        real, chance, faults = {}, {}, []
        for name, split in splits.items():
            chosen = (
                torch.randperm(len(split), generator=generator(self.seed, "real", name))[:REAL_PICTURES].sort().values
            )
            images = split.squares(chosen)
            half, asked = halves(split, chosen), Asked(split.captions, split.labels, split.mentioned).take(chosen)
            scored: list[Scores] = []
            levels: list[tuple[int, dict[str, float]]] = []
            for judge in self.judges:
                rows = (half != judge.half).nonzero().flatten()
                if not len(rows):
                    faults += [f"judge {judge.name} has seen every test picture"] if name == "test" else []
                    continue
                reading, wanted = judge.read(images[rows]), asked.take(rows)
                scores = judge.score(reading, wanted)
                scored.append(scores)
                if name != "test":
                    continue
                shuffled, blind = self._shuffled(judge, reading, wanted), judge.blind(wanted)
                level = {of: max(blind.get(of, 0.0), value) for of, value in shuffled.items()}
                levels.append((len(rows), level))
                fault = self._fault(judge, scores, judge.checks(reading, wanted), level)
                faults += [fault] if fault else []
            if scored:
                real[name] = joined(scored).estimates(self.resamples, numpy_rng(self.seed, "alignment", f"real {name}"))
            if levels:
                n = sum(count for count, _ in levels)
                chance = {of: sum(count * each[of] for count, each in levels) / n for of in levels[0][1]}
        return Validity(not faults, "; ".join(faults), real, chance)

    def alignment(self, drawn: Drawn, split: str, trained_on: set[str], validity: Validity) -> Measured:
        """How well the pictures show what was asked for; empty where nothing was.

        Args:
            trained_on: all training captions, `normalised`; over other captions there are separate figures. Empty:
                prompts are not captions.
        """
        if not drawn.takes_prompts or self.judges[0].kind == "selfsupervised":
            return Measured({}, {})
        asked = drawn.asked
        readings = [judge.read(drawn.pictures) for judge in self.judges]
        each = [judge.score(reading, asked) for judge, reading in zip(self.judges, readings, strict=True)]
        both, rng = mean_of(each), numpy_rng(self.seed, "alignment", split)
        figures: dict[str, Any] = dict(both.estimates(self.resamples, rng))
        names = top(figures)
        if not names:
            return Measured({}, {f"alignment.{split}": "nothing that the judges can read is asked for"})
        if not validity.valid:
            return Measured({}, {f"alignment.{split}.{name}": validity.reason for name in names})
        withheld = {}
        if trained_on:
            unseen = torch.tensor([normalised(caption) not in trained_on for caption in asked.captions])
            rows = unseen.nonzero().flatten()
            found = both.take(rows).estimates(self.resamples, rng)
            if found:
                figures[UNSEEN] = found
            else:
                withheld[f"alignment.{split}.{UNSEEN}"] = "every caption stands word for word in train"
        figures["judges"] = {
            judge.name: scores.estimates(self.resamples, rng) for judge, scores in zip(self.judges, each, strict=True)
        }
        figures["disagreement"] = bootstrap_mean(differ(*each).double().numpy(), self.resamples, rng)
        chance = [self._shuffled(judge, reading, asked) for judge, reading in zip(self.judges, readings, strict=True)]
        figures["chance"] = {name: sum(level[name] for level in chance) / len(chance) for name in names}
        return Measured(figures, withheld)

    def verdicts(self, drawn: Drawn, validity: Validity) -> list[bool | None]:
        """Whether each picture shows all that was asked for; None where the judges disagree or cannot tell."""
        if self.judges[0].kind != "classifier" or not drawn.takes_prompts or not validity.valid:
            return [None] * len(drawn)
        each = [judge.score(judge.read(drawn.pictures), drawn.asked) for judge in self.judges]
        column = 0 if self.judges[0].class_labelled else each[0].names.index("exact_match")
        first, second = (scores.right[:, column] == scores.asked[:, column] for scores in each)
        return [bool(x) if x == y else None for x, y in zip(first.tolist(), second.tolist(), strict=True)]

    def fidelity(self, drawn: Drawn, train: PreparedSplit, validity: Validity) -> Measured:
        """See `fidelity.fidelity`; everything is withheld where the judges are not valid."""
        if validity.valid:
            return fidelity(self.judges, drawn, train, self.seed)
        names = [*(metric.name for metric in metrics(self.seed)), CLOSENESS]
        return Measured({}, {f"fidelity.{name}": validity.reason for name in names})

    def _shuffled(self, judge: Judge, reading: Tensor, asked: Asked) -> dict[str, float]:
        """The figures, without groups, of pictures compared with what was asked of others among them."""
        if judge.kind == "selfsupervised":
            return judge.blind(asked)
        total: dict[str, float] = {}
        for i in range(SHUFFLES):
            order = torch.randperm(len(asked), generator=generator(self.seed, "chance", i))
            for name, value in judge.score(reading, asked.take(order)).values().items():
                total[name] = total.get(name, 0.0) + value / SHUFFLES
        return {name: value for name, value in total.items() if "." not in name}

    def _fault(self, judge: Judge, scores: Scores, checks: Sequence[Check], chance: Mapping[str, float]) -> str:
        """What a judge cannot read off real pictures, the worst first; "" where there is nothing.

        The lower end is that of the bootstrap or of Wilson's interval, whichever is lower: see `least_of_share`.
        """
        rng = numpy_rng(self.seed, "alignment", f"judge {judge.name}")
        found = scores.estimates(self.resamples, rng)
        measured = [(name, figure, chance[name]) for name, figure in found.items() if isinstance(figure, Estimate)]
        for check in checks:
            estimate = bootstrap_mean(check.right.double().numpy(), self.resamples, rng)
            measured.append((check.name, estimate, check.chance))
        faults = []
        for name, figure, level in measured:
            low = min(figure.low, least_of_share(figure.value, figure.n))
            if low <= level:
                fault = f"{name} {figure.value:.3g} [{low:.3g}, {figure.high:.3g}] of {figure.n} (chance {level:.3g})"
                faults.append((low - level, fault))
        if not faults:
            return ""
        worst = [fault for _, fault in sorted(faults)]
        more = f" and {len(worst) - FAULTS_SHOWN} more" if len(worst) > FAULTS_SHOWN else ""
        return (
            f"judge {judge.name} does not clear chance on real test pictures that it has not seen: "
            f"{', '.join(worst[:FAULTS_SHOWN])}{more}; give more test pictures, or train the judges longer "
            "(train_evaluator.steps)"
        )


def normalised(caption: str) -> str:
    """A caption in lower case with single spaces: equal for captions that are the same word for word."""
    return " ".join(caption.lower().split())
