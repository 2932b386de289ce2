"""epsilon, v and sample are three ways of saying one thing."""

from collections.abc import Callable
from typing import Any, get_args

import pytest
import torch
from torch import Tensor

from darkroom.core.choices import PredictionType
from darkroom.diffusion.denoiser import Condition, Denoiser
from darkroom.diffusion.prediction import loss_scale, target, to_x0
from darkroom.diffusion.schedule import DiscreteVP, Level

PREDICTIONS = get_args(PredictionType)
SCHEDULE = DiscreteVP("cosine", 0.0001, 0.02, 1000)
TIMES = [0, 100, 500, 900]


@pytest.mark.parametrize("prediction_type", PREDICTIONS)
@pytest.mark.parametrize("t", TIMES)
def test_the_right_answer_leads_back_to_x0(
    prediction_type: PredictionType, t: int, draw: Callable[..., Tensor]
) -> None:
    level, x0, eps = SCHEDULE.level(t), draw(2, 1, 4, 4), draw(2, 1, 4, 4, seed=1)
    x = level.alpha * x0 + level.sigma * eps
    answer = target(prediction_type, x0, eps, level)
    torch.testing.assert_close(to_x0(prediction_type, answer, x, level), x0, rtol=1e-9, atol=1e-9)


def test_v_is_the_velocity_on_the_circle(draw: Callable[..., Tensor]) -> None:
    """Salimans & Ho 2022, appendix D: v = dx/dphi for alpha = cos(phi), sigma = sin(phi)."""
    x0, eps = draw(8), draw(8, seed=1)
    phi = torch.tensor(0.6, dtype=torch.float64)
    _, derivative = torch.func.jvp(lambda p: p.cos() * x0 + p.sin() * eps, (phi,), (torch.ones_like(phi),))
    torch.testing.assert_close(target("v_prediction", x0, eps, Level(phi.cos(), phi.sin())), derivative)


@pytest.mark.parametrize("t", TIMES)
def test_one_denoiser_in_three_words_denoises_alike(t: int, gaussian: Any, draw: Callable[..., Tensor]) -> None:
    world, x, level = gaussian(0.3, 0.5), draw(2, 1, 4, 4).float(), SCHEDULE.level(t)

    def network(prediction_type: PredictionType) -> Callable[[Tensor, Tensor, Any], Tensor]:
        def answer(x: Tensor, times: Tensor, condition: Any) -> Tensor:
            assert times.tolist() == pytest.approx([t] * len(x), abs=1e-3)
            here = SCHEDULE.level(float(times[0]))
            x0 = world.denoise(x.double(), here, condition)
            return target(prediction_type, x0, (x - here.alpha * x0) / here.sigma, here)

        return answer

    expected = world.denoise(x, level, Condition())
    for prediction_type in PREDICTIONS:
        found = Denoiser(network(prediction_type), SCHEDULE, prediction_type)(x, level, Condition())
        torch.testing.assert_close(found.float(), expected, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("prediction_type", PREDICTIONS)
@pytest.mark.parametrize("t", TIMES)
def test_an_error_of_x0_counts_in_each_of_them_as_loss_scale_says(
    prediction_type: PredictionType, t: int, draw: Callable[..., Tensor]
) -> None:
    level, x, x0, off = SCHEDULE.level(t), draw(64), draw(64, seed=1), 0.1 * draw(64, seed=2)

    def answer(x0: Tensor) -> Tensor:
        return target(prediction_type, x0, (x - level.alpha * x0) / level.sigma, level)

    snr = torch.tensor(level.alpha**2 / level.sigma**2, dtype=torch.float64)
    counted = (answer(x0 + off) - answer(x0)).square().mean() / off.square().mean()
    torch.testing.assert_close(counted, loss_scale(prediction_type, snr), rtol=1e-8, atol=0)
