"""How far drawn pictures are from real ones, in the features of both judges, with the scale to read that on."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor

from darkroom.core.rng import generator
from darkroom.core.seeds import numpy_rng
from darkroom.core.tensors import batches
from darkroom.data.halves import halves
from darkroom.data.prepared import PreparedSplit
from darkroom.evaluation import distances
from darkroom.evaluation.distances import closeness_to_training, nearest
from darkroom.evaluation.drawing import Drawn
from darkroom.evaluation.estimates import Estimate, TooFewError, from_halves, mean_of_independent
from darkroom.evaluation.judge import Judge
from darkroom.evaluation.report import Measured
from darkroom.evaluation.scale import BAD, bad_pictures, describe_blur, fault

TRAINING_PICTURES = 10_000  # at most, among which nearest neighbours are sought
ROWS_AT_ONCE = 1000
CLOSENESS = "closer_to_training_than_test"


@dataclass(frozen=True)
class Metric:
    """One figure: its value on two sets of features; a distance (less is better), or a share (more is better).

    floor: of real pictures against real ones, for `scale.fault`.
    """

    name: str
    value: Callable[[Tensor, Tensor], float]
    estimate: Callable[[Tensor, Tensor], Estimate]
    floor: Callable[[Tensor, Tensor], float]
    is_distance: bool


def metrics(seed: int) -> list[Metric]:
    """FID, KID, precision and recall; cuts and subsets by `seed`.

    KID is unbiased, so that of two sets of real pictures it is about 0, and often below: its floor is the upper end of
    its interval.
    """

    def cut(name: str, value: Callable[[Tensor, Tensor], float], is_distance: bool) -> Metric:
        def estimate(real: Tensor, other: Tensor) -> Estimate:
            return from_halves(value, real, other, numpy_rng(seed, "halves", name))

        return Metric(name, value, estimate, value, is_distance)

    def kid(real: Tensor, other: Tensor) -> Estimate:
        return distances.kid(real, other, numpy_rng(seed, "kid"))

    return [
        cut("fid", distances.fid, True),
        Metric("kid", lambda real, other: kid(real, other).value, kid, lambda real, other: kid(real, other).high, True),
        cut("precision", distances.precision, False),
        cut("recall", distances.recall, False),
    ]


@dataclass
class _Compared:
    """One judge's figures and their scale, by metric; why one says nothing."""

    figures: dict[str, Estimate] = field(default_factory=dict)
    scale: dict[str, dict[str, float]] = field(default_factory=dict)
    faults: dict[str, str] = field(default_factory=dict)


def fidelity(judges: Sequence[Judge], drawn: Drawn, train: PreparedSplit, seed: int) -> Measured:
    """Drawn pictures against the real ones of the same captions, in the features of both judges.

    A judge compares the real pictures that it has not seen with those drawn of their captions, so each picture counts
    with one judge, and the two judges' figures are independent; a figure is their mean. Beside each stand, at the same
    number of pictures, that of unseen real training pictures, and those of BAD. Where these are not well apart for
    both judges, the figure is withheld. Test splits hold no crops, so crops of training pictures count only where
    nearest neighbours are sought. Of a real picture with several captions, what was drawn of the first one counts.
    """
    drawn = drawn.distinct()
    chosen, uncropped = (rows[_spread(len(rows))] for rows in (train.first_rows, train.uncropped()))
    half = {
        "train": halves(train, chosen),
        "uncropped": halves(train, uncropped),
        "test": drawn.halves,
    }
    found = {}
    for judge in judges:
        rows, unseen = ((half[of] != judge.half).nonzero().flatten() for of in ("test", "uncropped"))
        order = torch.randperm(len(unseen), generator=generator(seed, "real against real"))
        real, spare = drawn.real[rows], train.squares(uncropped[unseen[order[: len(rows)]]])
        found[judge.name] = _compare(judge, real, drawn.pictures[rows], spare, seed)
    figures: dict[str, Any] = {"scale": {}, "judges": {name: {} for name in found}}
    withheld = {}
    for metric in metrics(seed):
        name = metric.name
        faults = {of: compared.faults[name] for of, compared in found.items() if name in compared.faults}
        if all(name in compared.scale for compared in found.values()):
            lines = [compared.scale[name] for compared in found.values()]
            figures["scale"][name] = {line: sum(each[line] for each in lines) / len(lines) for line in lines[0]}
        if faults:
            withheld[f"fidelity.{name}"] = "; ".join(f"judge {of}: {reason}" for of, reason in faults.items())
            continue
        least, most = (float("-inf") if name == "kid" else 0.0), (float("inf") if metric.is_distance else 1.0)
        figures[name] = mean_of_independent([compared.figures[name] for compared in found.values()], least, most)
        for of, compared in found.items():
            figures["judges"][of][name] = compared.figures[name]
    try:
        figures[CLOSENESS] = _closeness(judges, drawn, train, chosen, half["train"])
    except TooFewError as error:
        withheld[f"fidelity.{CLOSENESS}"] = str(error)
    width = judges[0].features(drawn.real[:1]).shape[1]
    figures |= {
        "features": f"darkroom evaluator ({judges[0].kind}, two judges, {width} features each, mean square 1)",
        "blur": describe_blur(drawn.real.shape[-1]),
        "n_generated": len(drawn),
        "n_real": len(drawn),
    }
    return Measured(figures, withheld)


def _spread(n: int) -> Tensor:
    """TRAINING_PICTURES of n, or all, evenly spread: int64."""
    return torch.linspace(0, n - 1, min(n, TRAINING_PICTURES)).long()


def _compare(judge: Judge, real: Tensor, generated: Tensor, spare: Tensor, seed: int) -> _Compared:
    """All metrics of one judge, in features scaled to mean square 1 on the real pictures: distances of two judges then
    have like units, and the cube of KID's kernel does not run away."""
    found, measured = _Compared(), metrics(seed)
    if not len(real):
        found.faults = {metric.name: "has seen every test picture; give more test pictures" for metric in measured}
        return found
    others = {"generated": generated, "real": spare, **bad_pictures(real, seed)}
    reference = judge.features(real)
    unit = reference.square().mean().sqrt()
    reference = reference / unit
    features = {name: judge.features(images) / unit for name, images in others.items() if len(images)}
    for metric in measured:
        name = metric.name
        try:
            if "real" not in features:
                raise TooFewError("has seen every training picture; give more of them")
            found.scale[name] = {line: metric.value(reference, features[line]) for line in ("real", *BAD)}
            floor = metric.floor(reference, features["real"])
            reason = fault(floor, {line: found.scale[name][line] for line in BAD}, metric.is_distance)
            found.figures[name] = metric.estimate(reference, features["generated"])
        except TooFewError as error:
            reason = str(error)
        if reason:
            found.faults[name] = reason
    return found


def _closeness(judges: Sequence[Judge], drawn: Drawn, train: PreparedSplit, chosen: Tensor, half: Tensor) -> Estimate:
    """`closeness_to_training` over rows `chosen` of train, each by the judge that was not trained on it.

    The distance of a picture to the training set is the smaller of the two to its halves, in units of each judge's
    features.
    """
    nearest_drawn, nearest_real = [], []
    for judge in judges:
        unseen = chosen[half != judge.half]
        if not len(unseen):
            continue
        features = torch.cat(
            [judge.features(train.squares(unseen[rows])) for rows in batches(len(unseen), ROWS_AT_ONCE)]
        )
        unit = features.square().mean().sqrt()
        nearest_drawn.append(nearest(judge.features(drawn.pictures), features) / unit)
        nearest_real.append(nearest(judge.features(drawn.real), features) / unit)
    if len(drawn) < 2:
        raise TooFewError(f"a comparison needs 2 pictures, and {len(drawn)} came; give more test pictures")
    return closeness_to_training(torch.stack(nearest_drawn).amin(dim=0), torch.stack(nearest_real).amin(dim=0))
