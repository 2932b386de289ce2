"""The gate before `candidate`, as a function of figures.

Caught is a gate that lets something through it should not: a judge that cannot judge, pictures at chance or like spoilt
ones, figures that are withheld, missing or no numbers, a step back, and a comparison of what does not compare.
"""

import json
from dataclasses import replace
from typing import Any

import pytest

from darkroom.serving.gate import AliasHolder, Estimate, Thresholds, Verdict, decide, difference, estimate

DEMANDS = Thresholds(
    valid_judge=True, above_chance=0.1, fid_below="mean_colour", vae_psnr=25.0, not_below_candidate=True
)
NOTHING = Thresholds(valid_judge=False, above_chance=None, fid_below=None, vae_psnr=None, not_below_candidate=False)


def around(value: float, half: float = 0.02) -> dict[str, Any]:
    return {"value": value, "low": value - half, "high": value + half, "n": 100}


def good() -> dict[str, Any]:
    """A good model that draws from captions."""
    split = {
        "attribute_accuracy": around(0.9),
        "exact_match": around(0.7),
        "by_attribute": {"shape": around(0.9)},
        "unseen_captions": {"exact_match": around(0.65)},
        "chance": {"attribute_accuracy": 0.3, "exact_match": 0.01},
    }
    return {
        "alignment": {"test": split, "novel": json.loads(json.dumps(split))},
        "evaluator": {"valid": True, "reason": "", "real": {"test": {"exact_match": around(0.97)}}},
        "fidelity": {
            "fid": around(0.5, 0.1),
            "scale": {"fid": {"real": 0.4, "noise": 50.0, "mean_colour": 9.0, "blurred": 4.0}},
            "features": "a judge",
        },
        "withheld": {},
        "judged_with": {"data/prepared": "d.dir", "artifacts/evaluator": "e.dir"},
        "vae": {"psnr": around(30.0, 0.1), "ssim": around(0.9)},
        "sampling": {"num_inference_steps": 12},
    }


def unasked() -> dict[str, Any]:
    """A good model that draws without being asked for anything, in pixels."""
    return {**good(), "alignment": {"test": {}}, "vae": {}}


def put(figures: dict[str, Any], name: str, value: Any) -> dict[str, Any]:
    *path, last = name.split(".")
    place = figures
    for part in path:
        place = place[part]
    place[last] = value
    return figures


def test_a_good_model_passes_with_or_without_being_asked() -> None:
    assert decide(good(), DEMANDS) == Verdict()
    assert decide(unasked(), DEMANDS) == Verdict()
    assert decide(unasked(), DEMANDS, AliasHolder("version 1", unasked())) == Verdict()


FAULTS = {
    "the judge is at chance": (
        "evaluator",
        {"valid": False, "reason": "reads .25"},
        "the judge is not valid (reads .25)",
    ),
    "nothing is said of the judge": ("evaluator", {}, "the judge is not valid"),
    "valid is a word": ("evaluator.valid", "no", "the judge is not valid"),
    "pictures at chance": (
        "alignment.test.exact_match",
        around(0.02),
        "exact_match 0.02 [0, 0.04] is not above chance",
    ),
    "above chance, not by the interval": ("alignment.test.exact_match", around(0.2, 0.1), "is not above chance"),
    "an unknown chance": ("alignment.test.chance", {}, "the chance of alignment.test.attribute_accuracy is not known"),
    "no such split": ("alignment", {"novel": {"exact_match": around(0.7)}}, "alignment.test is not known"),
    "alignment is a list": ("alignment", [], "evaluation.json is not as evaluate writes it"),
    "like its mean colours": ("fidelity.fid", around(8.5, 0.6), "fidelity.fid 8.5 [7.9, 9.1] is not below 9"),
    "no such scale": ("fidelity.scale", {}, "fidelity.scale.fid.mean_colour is not known"),
    "a poor autoencoder": ("vae.psnr", around(24.9), "vae.psnr 24.9 dB is below register.vae_psnr = 25"),
    "no figure of the autoencoder": ("vae", {"ssim": around(0.9)}, "vae.psnr is not known"),
    "a figure is text": ("vae.psnr", {"value": "30", "low": 1, "high": 2}, "vae.psnr is not known"),
    "a figure is no number": (
        "fidelity.kid",
        {"value": float("nan"), "low": 0.0, "high": 1.0},
        "fidelity.kid.value is nan",
    ),
    "an endless interval": ("vae.ssim", {"value": 0.9, "low": 0.0, "high": float("inf")}, "vae.ssim.high is inf"),
    "a figure is null": ("vae.ssim", {"value": None, "low": 0.0, "high": 0.1}, "vae.ssim.value is not a number"),
}


@pytest.mark.parametrize("fault", FAULTS)
def test_a_fault_is_a_reason_that_names_the_figure(fault: str) -> None:
    name, value, said = FAULTS[fault]
    verdict = decide(put(good(), name, value), DEMANDS)
    assert not verdict.passed
    assert any(said in reason for reason in verdict.reasons), verdict.reasons
    assert all("\n" not in reason for reason in verdict.reasons)


@pytest.mark.parametrize("name", ["alignment", "alignment.test", "alignment.test.exact_match"])
@pytest.mark.parametrize("left", ["shown all the same", "taken away"])
def test_what_is_withheld_does_not_let_a_model_pass(name: str, left: str) -> None:
    """As a figure, a split, or all of alignment; a gate that looks at the figures alone takes it for a model that is
    asked for nothing."""
    figures = good()
    if left == "taken away":
        figures = put(figures, name, {}) if name != "alignment.test.exact_match" else figures
        figures["alignment"].get("test", {}).pop("exact_match", None)
    figures["withheld"] = {name: "the judge is at chance"}
    reasons = decide(figures, DEMANDS).reasons
    assert any("is withheld (the judge is at chance)" in reason for reason in reasons), reasons


def test_fidelity_that_is_withheld_lets_no_model_pass_that_has_no_other_figure() -> None:
    figures = {**unasked(), "withheld": {"fidelity": "noise is near"}}
    assert decide(figures, DEMANDS).reasons == ("fidelity.fid is withheld (noise is near)",)


def test_all_reasons_are_told_at_once() -> None:
    figures = put(put(good(), "evaluator.valid", False), "vae.psnr", around(3.0))
    reasons = decide(figures, DEMANDS, losses={"train/loss of train_unet": float("nan"), "held_out/loss": 0.1}).reasons
    assert len(reasons) == 3
    assert "train/loss of train_unet is nan" in reasons


@pytest.mark.parametrize("figures", [None, "text", [], {}, {"alignment": None}])
def test_a_model_without_figures_does_not_pass_whatever_is_demanded(figures: Any) -> None:
    assert not decide(figures, NOTHING).passed


def test_where_nothing_is_demanded_finite_figures_pass() -> None:
    poor = put(put(good(), "evaluator.valid", False), "alignment.test.exact_match", around(0.0, 0.0))
    assert decide(poor, NOTHING, AliasHolder("version 1", good())) == Verdict()
    assert not decide(put(poor, "vae.ssim.value", float("inf")), NOTHING).passed


@pytest.mark.parametrize("split", ["test", "novel"])
def test_a_step_back_in_any_split_does_not_pass(split: str) -> None:
    name = f"alignment.{split}.exact_match"
    verdict = decide(put(good(), name, around(0.6)), DEMANDS, AliasHolder("version 4", good()))
    assert verdict.reasons == (f"{name} 0.6 [0.58, 0.62] is below the 0.7 [0.68, 0.72] of version 4, by 0.1",)
    assert decide(put(good(), name, around(0.69)), DEMANDS, AliasHolder("version 4", good())).passed, (
        "within the interval"
    )
    assert decide(put(good(), name, around(0.8)), DEMANDS, AliasHolder("version 4", good())).passed, "a step forward"
    assert decide(
        put(good(), name, around(0.6)), replace(DEMANDS, not_below_candidate=False), AliasHolder("4", good())
    ).passed


def test_without_alignment_fidelity_is_compared_the_lower_the_better() -> None:
    rival = AliasHolder("version 2", unasked())
    (reason,) = decide(put(unasked(), "fidelity.fid", around(1.5, 0.1)), DEMANDS, rival).reasons
    assert "fidelity.fid 1.5 [1.4, 1.6] is above the 0.5 [0.4, 0.6] of version 2" in reason
    assert decide(put(unasked(), "fidelity.fid", around(0.1, 0.05)), DEMANDS, rival).passed


@pytest.mark.parametrize(
    ("path", "said"),
    [
        ("judged_with.data/prepared", "judged with another data/prepared"),
        ("judged_with.artifacts/evaluator", "judged with another artifacts/evaluator"),
    ],
)
def test_figures_of_other_data_or_another_judge_are_not_compared_and_that_is_said(path: str, said: str) -> None:
    other = good()
    other["judged_with"][path.partition(".")[2]] = "other.dir"
    worse = put(good(), "alignment.test.exact_match", around(0.3))
    verdict = decide(worse, DEMANDS, AliasHolder("version 4", other))
    assert verdict == Verdict((), (f"not compared with version 4: {said}",))


@pytest.mark.parametrize("other", [None, "unreadable", {}, {"alignment": {}}])
def test_a_rival_without_usable_figures_is_not_compared_and_that_is_said(other: Any) -> None:
    verdict = decide(good(), DEMANDS, AliasHolder("version 4", other))
    assert verdict.passed
    (note,) = verdict.notes
    assert note.startswith("not compared with version 4: ")


def test_a_difference_is_certain_where_intervals_are_apart_and_not_where_one_holds_the_other_figure() -> None:
    """By intervals that touch: the difference's own is narrower than the sum of both."""
    assert difference(Estimate(0.5, 0.4, 0.6), Estimate(0.71, 0.61, 0.81)).high < 0
    assert difference(Estimate(0.5, 0.4, 0.6), Estimate(0.55, 0.45, 0.65)).high > 0
    change = difference(Estimate(0.5, 0.4, 0.53), Estimate(0.3, 0.26, 0.7))
    assert change.value == pytest.approx(0.2)
    assert change.low == pytest.approx(0.2 - (0.1**2 + 0.4**2) ** 0.5), "the new one's low, the old one's high"
    assert change.high == pytest.approx(0.2 + (0.03**2 + 0.04**2) ** 0.5)
    back = difference(Estimate(0.3, 0.26, 0.7), Estimate(0.5, 0.4, 0.53))
    assert (-back.high, -back.value, -back.low) == pytest.approx((change.low, change.value, change.high))


def test_an_estimate_is_three_numbers_or_none() -> None:
    assert estimate(good(), "vae.psnr") == Estimate(30.0, 29.9, 30.1)
    for broken in ({"value": True, "low": 0, "high": 1}, {"value": 1}, 3.0, None):
        assert estimate({"vae": {"psnr": broken}}, "vae.psnr") is None
