"""No bad picture gets a flattering figure: judges trained on toy pictures, and pictures that nobody would call good."""

from dataclasses import replace
from typing import cast

import pytest
import torch
from torch import Tensor

from darkroom.core.rng import seeded
from darkroom.data.head import Head
from darkroom.data.prepared import Info
from darkroom.evaluation.alignment import Asked
from darkroom.evaluation.drawing import Drawn
from darkroom.evaluation.estimates import Estimate
from darkroom.evaluation.fidelity import fidelity
from darkroom.evaluation.judge import Judge
from darkroom.evaluation.judging import Judges, normalised
from darkroom.evaluation.scale import bad_pictures, fault
from darkroom.nn.judge.classifier import JUDGES, Classifier
from darkroom.training.engine.context import TrainingContext
from darkroom.training.judge import make_judges
from tests.support import networks
from tests.support.splits import Split

CPU, SIZE, CLASSES = torch.device("cpu"), 16, ("red", "green", "blue")
HEADS = (Head("color", CLASSES), Head("side", ("left", "right")))


def split(name: str, n: int, seed: int) -> Split:
    """A square of one of three colours left or right of the middle, on grey, with a little noise."""
    g = torch.Generator().manual_seed(seed)
    labels = torch.stack([torch.randint(0, k, (n,), generator=g) for k in (3, 2)], dim=1)
    pictures = torch.randint(100, 140, (n, 3, SIZE, SIZE), generator=g, dtype=torch.uint8)
    for i, (color, side) in enumerate(labels.tolist()):
        x = 2 + 7 * side
        pictures[i, :, 5:11, x : x + 5] = 10
        pictures[i, color, 5:11, x : x + 5] = 240
    captions = [
        f"{CLASSES[c]} {HEADS[1].classes[s]} {i if name == 'test' and i % 2 else ''}"
        for i, (c, s) in enumerate(labels.tolist())
    ]
    info = Info("toy", SIZE, 3, {}, (), (), {}, HEADS, True)
    return Split(name, pictures, captions, labels, torch.ones_like(labels, dtype=torch.bool), info)


def trained(splits: dict[str, Split], steps: int) -> list[Judge]:
    image, text = networks.tower(), networks.captions()
    with seeded(0, "evaluator"):
        judges = make_judges(splits["train"].info, splits, image, text, TrainingContext(32, 0, "fp32", CPU))  # type: ignore[arg-type]
    for judge in judges.each.values():
        optimizer = torch.optim.Adam(judge.network.parameters(), lr=3e-3)
        for step in range(steps):
            optimizer.zero_grad()
            judge.loss(step, slice(0, 32))["loss"].backward()
            optimizer.step()
        judge.network.requires_grad_(False)
    return [
        Judge(name, i, "classifier", HEADS, cast(Classifier, judges.each[name].network.eval()), None, CPU)
        for i, name in enumerate(JUDGES)
    ]


@pytest.fixture(scope="module")
def splits() -> dict[str, Split]:
    return {"train": split("train", 600, 0), "test": split("test", 400, 1)}


@pytest.fixture(scope="module")
def judges(splits: dict[str, Split]) -> list[Judge]:
    return trained(splits, 60)


def drawn(test: Split, pictures: Tensor) -> Drawn:
    n = len(test)
    asked = Asked(test.captions, test.labels, test.mentioned)
    return Drawn(True, asked, test.captions, [*range(n)], test.pictures, pictures, 1.0)


def value(figure: object) -> float:
    assert isinstance(figure, Estimate)
    return figure.value


def test_good_judges_are_believed_and_bad_pictures_get_bad_figures(
    splits: dict[str, Split], judges: list[Judge], monkeypatch: pytest.MonkeyPatch
) -> None:
    """A model that drew brown clouds was given a flattering distance, with nothing beside it to read it against."""
    both, test = Judges(judges, 0, 200), splits["test"]
    validity = both.validity(splits)  # type: ignore[arg-type]
    assert validity.valid, validity.reason
    good = split("other", 400, 2)
    order = torch.tensor([int((good.labels == labels).all(dim=1).nonzero()[0]) for labels in test.labels])
    train = {*map(normalised, splits["train"].captions)}
    fine = both.alignment(drawn(test, good.pictures[order]), "test", train, validity).figures
    assert value(fine["exact_match"]) > 0.95
    assert fine["unseen_captions"]["exact_match"].n == 200
    assert fine["exact_match"].n == 400
    assert fine["chance"]["exact_match"] == pytest.approx(1 / 6, abs=0.05)
    assert value(fine["disagreement"]) < 0.05
    monkeypatch.setattr("darkroom.evaluation.scale.CLEARANCE", 0.0)  # toy judges may be blind to the blur
    for name, bad in bad_pictures(test.pictures, 5).items():
        if name == "blurred":
            continue
        figures = both.alignment(drawn(test, bad), "test", train, validity).figures
        if name == "noise":  # a mean still tells this toy's colour
            assert value(figures["exact_match"]) < figures["chance"]["exact_match"] + 0.1
        far = fidelity(judges, drawn(test, bad), splits["train"], 0).figures  # type: ignore[arg-type]
        assert value(far["fid"]) == pytest.approx(far["scale"]["fid"][name], rel=0.3)
        assert value(far["fid"]) > 5 * far["scale"]["fid"]["real"]


def test_judges_that_learned_nothing_are_not_believed(splits: dict[str, Split]) -> None:
    """Judges that read real pictures no better than chance gave figures like any others."""
    both, test = Judges(trained(splits, 0), 0, 200), splits["test"]
    validity = both.validity(splits)  # type: ignore[arg-type]
    assert not validity.valid
    assert "does not clear chance" in validity.reason
    found = both.alignment(drawn(test, test.pictures), "test", set(), validity)
    assert found.figures == {}
    assert set(found.withheld) == {"alignment.test.attribute_accuracy", "alignment.test.exact_match"}
    assert both.verdicts(drawn(test, test.pictures), validity) == [None] * len(test)
    assert both.fidelity(drawn(test, test.pictures), splits["train"], validity).figures == {}  # type: ignore[arg-type]


def test_a_judge_is_measured_on_what_it_has_not_seen(splits: dict[str, Split]) -> None:
    """A judge that saw the pictures it is measured on cannot be checked: no picture may be in both of its sets."""
    with seeded(0, "evaluator"):
        image, text, context = networks.tower(), networks.captions(), TrainingContext(32, 0, "fp32", CPU)
        made = make_judges(splits["train"].info, splits, image, text, context)  # type: ignore[arg-type]
    for name in splits:
        first, second = ({x.numpy().tobytes() for x in made.unseen[name][judge].images()} for judge in JUDGES)
        assert not first & second
        assert len(first) + len(second) == len(splits[name])
        assert min(len(first), len(second)) > 0.3 * len(splits[name])


def test_few_pictures_withhold_figures_and_not_the_evaluation(splits: dict[str, Split], judges: list[Judge]) -> None:
    """60 pictures ended in an error after six stages: KID needs 20."""
    test = splits["test"]
    few = drawn(test, test.pictures).take(torch.arange(9))
    found = fidelity(judges, few, splits["train"], 0)  # type: ignore[arg-type]
    assert "KID needs 20 pictures" in found.withheld["fidelity.kid"]
    assert "kid" not in found.figures
    assert found.figures["n_generated"] == 9


def test_a_distance_is_shown_only_where_bad_pictures_are_far() -> None:
    """FID .056 stood for brown clouds: in features where noise, mean colours or blurs are as near as real pictures."""
    bad = {"noise": 90.0, "mean_colour": 80.0, "blurred": 9.0}
    assert fault(1.5, bad, closer_is_better=True) == ""
    assert "blurred has 9 and real pictures have 2" in fault(2.0, bad, closer_is_better=True)
    assert fault(-0.1, bad, closer_is_better=True) == "", "an unbiased distance of like sets may be negative"
    shares = {"noise": 0.0, "mean_colour": 0.1, "blurred": 0.15}
    assert fault(0.9, shares, closer_is_better=False) == ""
    assert "noise has 0.97" in fault(0.95, {**shares, "noise": 0.97}, closer_is_better=False)


def test_a_share_that_bad_pictures_have_is_not_shown_however_little_real_ones_lack() -> None:
    """By what they lack of 1, .06 and .01, they would be well apart: precision .94 for blurred pictures."""
    assert "blurred has 0.94" in fault(
        0.99, {"noise": 0.0, "mean_colour": 0.0, "blurred": 0.94}, closer_is_better=False
    )
    assert "blurred has 0.83" in fault(1.0, {"noise": 0.0, "mean_colour": 0.0, "blurred": 0.83}, closer_is_better=False)
    assert "real pictures have 0 " in fault(0.0, {"noise": 0.0}, closer_is_better=False)
    assert fault(0.6, {"noise": 0.0, "mean_colour": 0.1, "blurred": 0.12}, closer_is_better=False) == ""


def test_how_pictures_are_blurred_is_told(splits: dict[str, Split], judges: list[Judge]) -> None:
    test = splits["test"]
    found = fidelity(judges, drawn(test, test.pictures), splits["train"], 0)  # type: ignore[arg-type]
    assert found.figures["blur"] == "a Gaussian with a standard deviation of 0.125 of the side, 2 pixels"


def test_a_real_picture_counts_once_whatever_the_number_of_its_captions(
    splits: dict[str, Split], judges: list[Judge]
) -> None:
    """Catches real pictures that stand three times among those that distances and shares are taken of."""
    test = splits["test"]
    once = drawn(test, test.pictures.flip(3))
    thrice = replace(once, of=torch.arange(len(test))).take(torch.arange(len(test)).repeat_interleave(3))
    found, wanted = (fidelity(judges, of, splits["train"], 0) for of in (thrice, once))  # type: ignore[arg-type]
    assert found == wanted
    assert found.figures["n_real"] == len(test)
