"""What is minimised: which times, which weight, which error."""

import math
from collections.abc import Callable
from typing import get_args

import pytest
import torch
from pydantic import ValidationError
from torch import Tensor

from darkroom.config.choices import NOISE_PREDICTIONS, PredictionType
from darkroom.config.diffusion import EDMWeighting, LossName, Reduction
from darkroom.core.errors import DarkroomError
from darkroom.diffusion.continuous import VE, Flow
from darkroom.diffusion.objective import Objective
from darkroom.diffusion.prediction import loss_scale, target
from darkroom.diffusion.process import Process
from tests.support.diffusion import make_flow, make_objective, make_ve, make_vp

PREDICTIONS = get_args(PredictionType)
SCHEDULE = make_vp("linear", 0.0001, 0.02, 1000)
CONTINUOUS = [make_ve(25.0, 1e-5), make_flow(0.001)]
ZERO_SNR = make_vp("linear", 0.0001, 0.02, 1000, rescale_betas_zero_snr=True)
TIMES = torch.tensor([0, 50, 200, 500, 999])
SNR = (SCHEDULE.alphas_cumprod / (1 - SCHEDULE.alphas_cumprod))[TIMES].float()


def plain(process: Process, prediction_type: PredictionType, weighting: str = "uniform") -> Objective:
    return make_objective(process, prediction_type, weighting, "l2", "mean")


def seeded(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


@pytest.mark.parametrize("prediction_type", PREDICTIONS)
def test_uniform_weights_are_one(prediction_type: PredictionType) -> None:
    assert plain(SCHEDULE, prediction_type).weight(TIMES).tolist() == [1.0] * 5


def test_min_snr_weights_are_the_published_ones() -> None:
    """Hang et al. 2023, section 3.4, gamma = 5."""
    expected: dict[PredictionType, Tensor] = {
        "sample": SNR.clamp(max=5),
        "epsilon": SNR.clamp(max=5) / SNR,
        "v_prediction": SNR.clamp(max=5) / (SNR + 1),
    }
    assert float(SNR[0]) > 5 > float(SNR[-1])
    for prediction_type, weight in expected.items():
        found = plain(SCHEDULE, prediction_type, "min_snr").weight(TIMES)
        torch.testing.assert_close(found, weight, rtol=1e-4, atol=0)


def test_p2_weights_are_the_published_ones() -> None:
    """Choi et al. 2022, k = gamma = 1: of the noise's error 1 / (1 + SNR)."""
    found = plain(SCHEDULE, "epsilon", "p2").weight(TIMES)
    torch.testing.assert_close(found, 1 / (1 + SNR), rtol=1e-4, atol=0)


def test_edm_weights_are_the_published_ones() -> None:
    """Karras et al. 2022, table 1: of x0's error (s^2 + sd^2) / (s sd)^2 for x0 + s eps, with sd = 0.5.

    At sd = 1, in a variance-preserving frame, their preconditioned network predicts v, with a weight of 1.
    """
    process = make_ve(25.0, 1e-5)
    times = process.training_times(torch.tensor([0.0, 0.3, 0.9]))
    s = torch.as_tensor(process.levels(times).sigma).flatten()
    found = plain(process, "sample", "edm").weight(times)
    torch.testing.assert_close(found, (s**2 + 0.25) / (0.5 * s) ** 2, rtol=1e-4, atol=0)
    weighting = EDMWeighting(kind="edm", sigma_data=1.0)
    config = plain(SCHEDULE, "v_prediction", "edm").config.model_copy(update={"weighting": weighting})
    unit = Objective(SCHEDULE, config).weight(TIMES)
    torch.testing.assert_close(unit, torch.ones(5), rtol=1e-4, atol=0)


@pytest.mark.parametrize("process", [SCHEDULE, *CONTINUOUS])
@pytest.mark.parametrize("weighting", ["min_snr", "p2", "edm"])
def test_a_weighting_asks_the_same_of_x0_whatever_is_predicted(process: Process, weighting: str) -> None:
    allowed = [p for p in PREDICTIONS if not (isinstance(process, Flow) and p in NOISE_PREDICTIONS)]
    times = process.training_times(torch.tensor([0.0, 0.3, 0.7, 0.999]))
    level = process.levels(times)
    asked = [plain(process, p, weighting).weight(times) * loss_scale(p, level).flatten() for p in allowed]
    assert torch.stack(asked).isfinite().all()
    for other in asked[1:]:
        torch.testing.assert_close(asked[0], other, rtol=1e-4, atol=0)


@pytest.mark.parametrize("weighting", ["min_snr", "p2", "edm"])
@pytest.mark.parametrize("prediction_type", ["v_prediction", "sample", "flow_prediction"])
def test_weights_are_finite_without_signal(weighting: str, prediction_type: PredictionType) -> None:
    weight = plain(ZERO_SNR, prediction_type, weighting).weight(TIMES)
    assert weight.isfinite().all()
    assert float(weight[-1]) == (4 if weighting == "edm" else 0)


@pytest.mark.parametrize("n", [1, 10, 64])
def test_times_are_drawn_one_from_each_part_of_the_range(n: int) -> None:
    times = plain(SCHEDULE, "epsilon").draw_times(n, seeded())
    assert times.dtype == torch.int64
    assert (times.sort().values * n // 1000).tolist() == pytest.approx(list(range(n)), abs=1)
    assert 0 <= int(times.min()) <= int(times.max()) <= 999


def test_times_are_a_function_of_the_generator_and_each_is_uniform() -> None:
    objective = plain(SCHEDULE, "epsilon")
    assert objective.draw_times(32, seeded(1)).tolist() == objective.draw_times(32, seeded(1)).tolist()
    assert objective.draw_times(32, seeded(1)).tolist() != objective.draw_times(32, seeded(2)).tolist()
    firsts = torch.stack([objective.draw_times(4, seeded(i))[0] for i in range(400)]).float()
    assert float(firsts.mean()) == pytest.approx(499.5, abs=60)  # 4 standard errors
    assert float(firsts.std()) == pytest.approx(288.7, rel=0.1)


@pytest.mark.parametrize("process", CONTINUOUS)
def test_continuous_times_are_stratified_and_uniform_between_their_ends(process: VE | Flow) -> None:
    objective, t_min = plain(process, "sample"), process.t_min
    times = objective.draw_times(64, seeded()) / 1000
    assert ((times.sort().values - t_min) / (1 - 2 * t_min) * 64).long().tolist() == pytest.approx(range(64), abs=1)
    assert t_min <= float(times.min()) <= float(times.max()) <= 1 - t_min
    firsts = torch.stack([objective.draw_times(4, seeded(i))[0] for i in range(400)])
    assert float(firsts.mean()) == pytest.approx(500, abs=60)  # 4 standard errors


@pytest.mark.parametrize("prediction_type", PREDICTIONS)
def test_the_loss_is_the_weighted_error_of_each_sample(
    prediction_type: PredictionType, draw: Callable[..., Tensor]
) -> None:
    objective = plain(SCHEDULE, prediction_type, "min_snr")
    x0, eps = draw(5, 2, 3, 3).float(), draw(5, 2, 3, 3, seed=1).float()
    level = SCHEDULE.levels(TIMES)
    right = target(prediction_type, x0, eps, level)
    off = torch.arange(5.0).view(5, 1, 1, 1)

    def network(x: Tensor, t: Tensor) -> Tensor:
        torch.testing.assert_close(x, level.alpha * x0 + level.sigma * eps)
        assert t.tolist() == TIMES.tolist()
        assert t.is_floating_point()
        return right + off

    loss = objective.loss(network, x0, eps, TIMES)
    torch.testing.assert_close(loss, objective.weight(TIMES) * torch.arange(5.0) ** 2, rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize(("loss", "power"), [("l2", 2), ("l1", 1)])
@pytest.mark.parametrize(("reduction", "elements"), [("mean", 1), ("sum", 18)])
def test_errors_are_measured_and_added_up_as_asked(
    loss: LossName, power: int, reduction: Reduction, elements: int, draw: Callable[..., Tensor]
) -> None:
    objective = make_objective(SCHEDULE, "epsilon", "uniform", loss, reduction)
    x0, eps, off = draw(5, 2, 3, 3).float(), draw(5, 2, 3, 3, seed=1).float(), torch.arange(-2.0, 3.0)
    found = objective.loss(lambda x, t: eps + off.view(5, 1, 1, 1), x0, eps, TIMES)
    torch.testing.assert_close(found, elements * off.abs() ** power)


def test_the_published_loss_of_a_score_network(draw: Callable[..., Tensor]) -> None:
    """Of Song et al.'s tutorial: the sum over pixels of (std * score + z)^2 at x0 + std * z, times in [0, 1]."""
    process = CONTINUOUS[0]
    x0, z = draw(4, 1, 3, 3).float(), draw(4, 1, 3, 3, seed=1).float()
    times = torch.tensor([0.01, 250.0, 600.0, 990.0])
    std = ((25 ** (2 * times / 1000) - 1) / (2 * math.log(25))).sqrt().view(-1, 1, 1, 1)

    def score(x: Tensor, t: Tensor) -> Tensor:
        return torch.sin(x) / std + t.view(-1, 1, 1, 1)

    expected = (score(x0 + std * z, times / 1000) * std + z).square().sum(dim=(1, 2, 3))
    objective = make_objective(process, "score", "uniform", "l2", "sum")
    found = objective.loss(lambda x, t: std * score(x, t / 1000), x0, z, times)
    torch.testing.assert_close(found, expected, rtol=1e-4, atol=0)


def test_what_does_not_go_together_is_refused() -> None:
    with pytest.raises(ValidationError, match=r"weighting\.kind = 'p2' weighs squared errors, but loss = 'l1'; use l2"):
        make_objective(SCHEDULE, "epsilon", "p2", "l1", "mean")
    with pytest.raises(DarkroomError, match="prediction_type = 'score': says nothing of the picture where alpha is 0"):
        make_objective(CONTINUOUS[1], "score", "uniform", "l2", "mean")
