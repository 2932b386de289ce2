"""Processes in continuous time: the published formulas, and times and levels as two names of one thing."""

import math
from itertools import pairwise
from typing import Any

import pytest
import torch
from pydantic import ValidationError

from darkroom.config.choices import NOISE_PREDICTIONS
from darkroom.config.diffusion import FlowProcess, VEProcess, VPProcess
from darkroom.core.errors import DarkroomError
from darkroom.diffusion.continuous import VE, Flow
from darkroom.diffusion.process import Process, check_prediction, process_of, starts_without_signal
from darkroom.diffusion.schedule import CLEAN, DiscreteVP, Level
from tests.support.diffusion import make_flow, make_ve, vp_config

KINDS: dict[str, VPProcess | VEProcess | FlowProcess] = {
    "vp": vp_config("linear"),
    "zero snr": vp_config("linear", rescale_betas_zero_snr=True),
    "ve": VEProcess(kind="ve", sigma=25.0, t_min=1e-5),
    "flow": FlowProcess(kind="flow", t_min=0.001),
}
CONTINUOUS = [make_ve(25.0, 1e-5), make_flow(0.001)]


def test_the_spread_of_the_published_sde() -> None:
    """std(t) = sqrt((sigma^(2t) - 1) / (2 ln sigma)) with sigma = 25, 9.845 at t = 1."""
    process = make_ve(25.0, 1e-5)
    assert process.spread == pytest.approx(9.845, abs=5e-4)
    for t in (1e-5, 1e-3, 0.2, 0.9, 1.0):
        level = process.level(1000 * t)
        assert level.alpha == 1
        assert level.sigma == pytest.approx(math.sqrt((25 ** (2 * t) - 1) / (2 * math.log(25))), rel=1e-9)


def test_the_variance_grows_as_the_sde_says() -> None:
    """dx = sigma^t dw: d sigma(t)^2 / dt = sigma^(2t)."""
    process, h = make_ve(25.0, 1e-5), 1e-3
    for t in (0.1, 0.5, 0.9):
        before, after = (float(process.level(1000 * (t + side)).sigma) ** 2 for side in (-h, h))
        assert (after - before) / (2 * h) == pytest.approx(25 ** (2 * t), rel=1e-4)


def test_rectified_flow_is_a_straight_line() -> None:
    process = make_flow(0.001)
    for t in (0.0, 0.25, 1.0):
        assert process.level(1000 * t) == (1 - t, t)
    assert process.level(0.0) == CLEAN


@pytest.mark.parametrize("process", CONTINUOUS)
@pytest.mark.parametrize("t", [0.0, 0.01, 1.0, 333.3, 999.0, 1000.0])
def test_time_and_level_are_each_others_inverse(process: VE | Flow, t: float) -> None:
    level = process.level(t)
    assert process.timestep(level) == pytest.approx(t, rel=1e-9)
    scaled = Level(0.3 * level.alpha, 0.3 * level.sigma)  # of the same sigma / alpha
    assert process.timestep(scaled) == pytest.approx(t, rel=1e-9)
    assert process.timestep(Level(0.0, 1.0)) == 1000
    assert process.timestep(CLEAN) == 0


@pytest.mark.parametrize("kind", KINDS)
def test_a_level_is_found_by_its_ratio(kind: str) -> None:
    process = process_of(KINDS[kind])
    for t in (1.0, 300.0, 998.0):
        level = process.level(t)
        assert process.at_ratio(float(level.sigma / level.alpha)) == pytest.approx(level, rel=1e-9)


@pytest.mark.parametrize("kind", KINDS)
def test_levels_of_training_are_those_of_sampling_and_grow_noisier(kind: str) -> None:
    process = process_of(KINDS[kind])
    times = process.training_times(torch.arange(0, 1, 0.125))
    trained = process.levels(times)
    assert trained.alpha.shape == trained.sigma.shape == (8, 1, 1, 1)
    levels = [process.level(t) for t in times.tolist()]
    assert trained.alpha.flatten().tolist() == pytest.approx([level.alpha for level in levels], rel=1e-5)
    assert trained.sigma.flatten().tolist() == pytest.approx([level.sigma for level in levels], rel=1e-5)
    assert all(a.sigma / a.alpha < b.sigma / b.alpha for a, b in pairwise(levels))


@pytest.mark.parametrize("process", CONTINUOUS)
def test_training_keeps_off_both_ends(process: VE | Flow) -> None:
    times = process.training_times(torch.tensor([0.0, 0.5, 1.0])) / 1000
    assert times.tolist() == pytest.approx([process.t_min, 0.5, 1 - process.t_min])


@pytest.mark.parametrize(("kind", "bare"), [("vp", False), ("zero snr", True), ("ve", False), ("flow", True)])
def test_a_prediction_of_noise_needs_signal_everywhere(kind: str, bare: bool) -> None:
    process = process_of(KINDS[kind])
    assert starts_without_signal(process) == bare
    for prediction_type in ("v_prediction", "sample", "flow_prediction"):
        check_prediction(process, prediction_type)
    for prediction_type in NOISE_PREDICTIONS:
        if bare:
            with pytest.raises(DarkroomError, match=f"prediction_type = '{prediction_type}': says nothing of the pict"):
                check_prediction(process, prediction_type)
        else:
            check_prediction(process, prediction_type)


@pytest.mark.parametrize("kind", KINDS)
def test_a_description_makes_its_process(kind: str) -> None:
    made: Process = process_of(KINDS[kind])
    assert type(made) is {"vp": DiscreteVP, "zero snr": DiscreteVP, "ve": VE, "flow": Flow}[kind]


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: make_ve(1.0, 1e-5), r"sigma\n.*greater than 1"),
        (lambda: make_ve(25.0, 0.0), r"t_min\n.*greater than 0"),
        (lambda: make_flow(0.5), r"t_min\n.*less than 0\.5"),
        (lambda: make_flow(float("nan")), r"t_min\n.*finite number"),
    ],
)
def test_impossible_numbers_are_refused(make: Any, message: str) -> None:
    with pytest.raises(ValidationError, match=message):
        make()
