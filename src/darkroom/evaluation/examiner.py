"""What is measured of drawn pictures, and whether the judges that measure it are to be believed."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor

from darkroom.core.rng import generator
from darkroom.core.seeds import numpy_rng
from darkroom.core.tensors import batches, to_float
from darkroom.data.halves import half_of
from darkroom.data.prepared import PreparedSplit
from darkroom.evaluation.alignment import Asked, Check, Scores, differ, joined, mean_of, top
from darkroom.evaluation.drawing import Drawn
from darkroom.evaluation.estimates import Estimate, bootstrap_mean, least_of_share
from darkroom.evaluation.features import Judge
from darkroom.evaluation.fidelity import CLOSENESS, Fidelity, fidelity, metrics
from darkroom.evaluation.reconstruction import psnr, ssim
from darkroom.inference.pipeline import Pipeline

REAL_PICTURES = 2500  # of a split at most, on which the judges are measured
FAULTS_SHOWN = 3  # of a judge
SHUFFLES = 20  # of captions among pictures, whose mean is the chance level
UNSEEN = "unseen_captions"


@dataclass(frozen=True)
class Bench:
    """What metrics.json says of the judges: whether their word counts, and why not; their accuracy on real pictures of
    each split, each read by the judge that has not seen it; what somebody gets right on the test pictures who does not
    look, the better of always saying the same and of a reading of another picture."""

    valid: bool
    reason: str
    real: dict[str, Any] = field(default_factory=dict)
    chance: dict[str, float] = field(default_factory=dict)


@dataclass(frozen=True)
class Alignment:
    """What metrics.json says under one split of `alignment`, and of each figure that is not in it why."""

    figures: dict[str, Any]
    withheld: dict[str, str]


@dataclass(frozen=True)
class Examiner:
    """Measures with two judges, one seed and so many bootstrap resamples."""

    judges: Sequence[Judge]
    seed: int
    resamples: int

    def bench(self, splits: Mapping[str, PreparedSplit]) -> Bench:
        """The judges on real pictures, test among the splits.

        Their word counts if, of each judge, every figure and every one of its `checks` lies above its own chance level
        on unseen test pictures, by its interval.
        """
        real, chance, faults = {}, {}, []
        for name, split in splits.items():
            chosen = self._lot(len(split), REAL_PICTURES, "real", name)
            images = split.images(chosen)
            half, asked = half_of(images), _everything(split, chosen)
            parts: list[Scores] = []
            levels: list[tuple[int, dict[str, float]]] = []
            for judge in self.judges:
                rows = (half != judge.half).nonzero().flatten()
                if not len(rows):
                    faults += [f"judge {judge.name} has seen every test picture"] if name == "test" else []
                    continue
                reading, wanted = judge.read(images[rows]), asked.take(rows)
                scores = judge.score(reading, wanted)
                parts.append(scores)
                if name != "test":
                    continue
                shuffled, blind = self._shuffled(judge, reading, wanted), judge.blind(wanted)
                level = {of: max(blind.get(of, 0.0), value) for of, value in shuffled.items()}
                levels.append((len(rows), level))
                fault = self._fault(judge, scores, judge.checks(reading, wanted), level)
                faults += [fault] if fault else []
            if parts:
                real[name] = joined(parts).estimates(self.resamples, numpy_rng(self.seed, "alignment", f"real {name}"))
            if levels:
                n = sum(count for count, _ in levels)
                chance = {of: sum(count * each[of] for count, each in levels) / n for of in levels[0][1]}
        return Bench(not faults, "; ".join(faults), real, chance)

    def of_drawn(self, drawn: Drawn, split: str, trained_on: set[str], bench: Bench) -> Alignment:
        """How well what was drawn shows what was asked; empty where nothing was.

        Args:
            trained_on: the `words` of all training captions; figures over other captions stand apart, too. Empty: what
                is asked for are no captions.
        """
        if not drawn.asked or self.judges[0].kind == "selfsupervised":
            return Alignment({}, {})
        asked = drawn.wanted
        readings = [judge.read(drawn.pictures) for judge in self.judges]
        each = [judge.score(reading, asked) for judge, reading in zip(self.judges, readings, strict=True)]
        both, rng = mean_of(each), numpy_rng(self.seed, "alignment", split)
        figures: dict[str, Any] = dict(both.estimates(self.resamples, rng))
        names = top(figures)
        if not names:
            return Alignment({}, {f"alignment.{split}": "nothing that the judges can read is asked for"})
        if not bench.valid:
            return Alignment({}, {f"alignment.{split}.{name}": bench.reason for name in names})
        withheld = {}
        if trained_on:
            unseen = torch.tensor([words(caption) not in trained_on for caption in asked.captions])
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
        return Alignment(figures, withheld)

    def verdicts(self, drawn: Drawn, bench: Bench) -> list[bool | None]:
        """Of each picture whether all that was asked is there; None where the judges disagree or nobody can tell."""
        if self.judges[0].kind != "classifier" or not drawn.asked or not bench.valid:
            return [None] * len(drawn)
        each = [judge.score(judge.read(drawn.pictures), drawn.wanted) for judge in self.judges]
        column = 0 if self.judges[0].class_labelled else each[0].names.index("exact_match")
        first, second = (scores.right[:, column] == scores.asked[:, column] for scores in each)
        return [bool(x) if x == y else None for x, y in zip(first.tolist(), second.tolist(), strict=True)]

    def fidelity(self, drawn: Drawn, train: PreparedSplit, bench: Bench) -> Fidelity:
        """See `fidelity.fidelity`; nothing by judges whose word does not count."""
        if bench.valid:
            return fidelity(self.judges, drawn, train, self.seed)
        names = [*(metric.name for metric in metrics(self.seed)), CLOSENESS]
        return Fidelity({}, {f"fidelity.{name}": bench.reason for name in names})

    def autoencoder(self, pipeline: Pipeline, test: PreparedSplit) -> dict[str, Estimate]:
        """PSNR (dB) and SSIM of all real test pictures and their reconstructions, means over pictures.

        Empty where there is no autoencoder: then nothing is lost.
        """
        if pipeline.info.autoencoder == "identity":
            return {}
        pairs = [(x, pipeline.reconstruct(to_float(x))) for x in map(test.images, batches(len(test), 250))]
        return {
            name: bootstrap_mean(
                torch.cat([likeness(*pair) for pair in pairs]).numpy(), self.resamples, numpy_rng(self.seed, name)
            )
            for name, likeness in (("psnr", psnr), ("ssim", ssim))
        }

    def _lot(self, n: int, most: int, *purpose: str) -> Tensor:
        """Rows of n, `most` at most, drawn by lot, in order."""
        return torch.randperm(n, generator=generator(self.seed, *purpose))[:most].sort().values

    def _shuffled(self, judge: Judge, reading: Tensor, asked: Asked) -> dict[str, float]:
        """The figures, groups aside, of pictures held against what was asked of others among them."""
        if judge.kind == "selfsupervised":
            return judge.blind(asked)
        total: dict[str, float] = {}
        for i in range(SHUFFLES):
            order = torch.randperm(len(asked), generator=generator(self.seed, "chance", i))
            for name, value in judge.score(reading, asked.take(order)).values().items():
                total[name] = total.get(name, 0.0) + value / SHUFFLES
        return {name: value for name, value in total.items() if "." not in name}

    def _fault(self, judge: Judge, scores: Scores, checks: Sequence[Check], chance: Mapping[str, float]) -> str:
        """What a judge cannot tell of real pictures by its interval, the worst first; "" where there is nothing.

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
                told = f"{name} {figure.value:.3g} [{low:.3g}, {figure.high:.3g}] of {figure.n} (chance {level:.3g})"
                faults.append((low - level, told))
        if not faults:
            return ""
        worst = [told for _, told in sorted(faults)]
        more = f" and {len(worst) - FAULTS_SHOWN} more" if len(worst) > FAULTS_SHOWN else ""
        return (
            f"judge {judge.name} does not clear chance on real test pictures that it has not seen: "
            f"{', '.join(worst[:FAULTS_SHOWN])}{more}; give more test pictures, or train the judges longer "
            "(train_evaluator.steps)"
        )


def words(caption: str) -> str:
    """A caption's words: two captions with the same say the same word for word."""
    return " ".join(caption.lower().split())


def _everything(split: PreparedSplit, rows: Tensor) -> Asked:
    return Asked([split.captions[i] for i in rows.tolist()], split.labels[rows], split.mentioned[rows])
