"""What is minimised: which times, which weight, which error."""

from collections.abc import Callable
from typing import get_args

import pytest
import torch
from torch import Tensor

from darkroom.core.choices import PredictionType
from darkroom.diffusion.objective import Objective
from darkroom.diffusion.prediction import loss_scale, target
from darkroom.diffusion.schedule import DiscreteVP

PREDICTIONS = get_args(PredictionType)
SCHEDULE = DiscreteVP("linear", 0.0001, 0.02, 1000)
TIMES = torch.tensor([0, 50, 200, 500, 999])
SNR = (SCHEDULE.alphas_cumprod / (1 - SCHEDULE.alphas_cumprod))[TIMES].float()


def seeded(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


@pytest.mark.parametrize("prediction_type", PREDICTIONS)
def test_uniform_weights_are_one(prediction_type: PredictionType) -> None:
    assert Objective(SCHEDULE, prediction_type, "uniform").weight(TIMES).tolist() == [1.0] * 5


def test_min_snr_weights_are_the_published_ones() -> None:
    """Hang et al. 2023, section 3.4, gamma = 5."""
    expected = {
        "sample": SNR.clamp(max=5),
        "epsilon": SNR.clamp(max=5) / SNR,
        "v_prediction": SNR.clamp(max=5) / (SNR + 1),
    }
    assert float(SNR[0]) > 5 > float(SNR[-1])
    for prediction_type in PREDICTIONS:
        weight = Objective(SCHEDULE, prediction_type, "min_snr").weight(TIMES)
        torch.testing.assert_close(weight, expected[prediction_type], rtol=1e-4, atol=0)


def test_min_snr_asks_the_same_of_x0_whatever_is_predicted() -> None:
    asked = [Objective(SCHEDULE, p, "min_snr").weight(TIMES) * loss_scale(p, SNR) for p in PREDICTIONS]
    for other in asked[1:]:
        torch.testing.assert_close(asked[0], other, rtol=1e-4, atol=0)


@pytest.mark.parametrize("n", [1, 10, 64])
def test_times_are_drawn_one_from_each_part_of_the_range(n: int) -> None:
    times = Objective(SCHEDULE, "epsilon", "uniform").draw_times(n, seeded())
    assert times.dtype == torch.int64
    assert (times.sort().values * n // 1000).tolist() == pytest.approx(list(range(n)), abs=1)
    assert 0 <= int(times.min()) <= int(times.max()) <= 999


def test_times_are_a_function_of_the_generator_and_each_is_uniform() -> None:
    objective = Objective(SCHEDULE, "epsilon", "uniform")
    assert objective.draw_times(32, seeded(1)).tolist() == objective.draw_times(32, seeded(1)).tolist()
    assert objective.draw_times(32, seeded(1)).tolist() != objective.draw_times(32, seeded(2)).tolist()
    firsts = torch.stack([objective.draw_times(4, seeded(i))[0] for i in range(400)]).float()
    assert float(firsts.mean()) == pytest.approx(499.5, abs=60)  # 4 standard errors
    assert float(firsts.std()) == pytest.approx(288.7, rel=0.1)


@pytest.mark.parametrize("prediction_type", PREDICTIONS)
def test_the_loss_is_the_weighted_error_of_each_sample(
    prediction_type: PredictionType, draw: Callable[..., Tensor]
) -> None:
    objective = Objective(SCHEDULE, prediction_type, "min_snr")
    x0, eps = draw(5, 2, 3, 3).float(), draw(5, 2, 3, 3, seed=1).float()
    level = SCHEDULE.at(TIMES)
    right = target(prediction_type, x0, eps, level)
    off = torch.arange(5.0).view(5, 1, 1, 1)

    def network(x: Tensor, t: Tensor) -> Tensor:
        torch.testing.assert_close(x, level.alpha * x0 + level.sigma * eps)
        assert t.tolist() == TIMES.tolist()
        assert t.is_floating_point()
        return right + off

    loss = objective.loss(network, x0, eps, TIMES)
    torch.testing.assert_close(loss, objective.weight(TIMES) * torch.arange(5.0) ** 2, rtol=1e-4, atol=1e-6)
