"""epsilon, v, x0, the score and the flow's velocity are five ways of saying one thing, on every process."""

from collections.abc import Callable
from typing import Any, cast, get_args

import pytest
import torch
from torch import Tensor

from darkroom.config.choices import PredictionType
from darkroom.diffusion.denoiser import Denoiser, Network
from darkroom.diffusion.prediction import loss_scale, target, to_x0
from darkroom.diffusion.process import Process
from darkroom.diffusion.schedule import Level
from tests.support.diffusion import make_flow, make_ve, make_vp

PREDICTIONS = get_args(PredictionType)
PROCESSES = [make_vp("cosine", 0.0001, 0.02, 1000), make_ve(25.0, 1e-5), make_flow(0.001)]
TIMES = [1, 100, 500, 900]


@pytest.mark.parametrize("process", PROCESSES)
@pytest.mark.parametrize("prediction_type", PREDICTIONS)
@pytest.mark.parametrize("t", TIMES)
def test_the_right_answer_leads_back_to_x0(
    process: Process, prediction_type: PredictionType, t: int, draw: Callable[..., Tensor]
) -> None:
    level, x0, eps = process.level(t), draw(2, 1, 4, 4), draw(2, 1, 4, 4, seed=1)
    x = level.alpha * x0 + level.sigma * eps
    answer = target(prediction_type, x0, eps, level)
    torch.testing.assert_close(to_x0(prediction_type, answer, x, level), x0, rtol=1e-9, atol=1e-9)


def test_v_is_the_velocity_on_the_circle(draw: Callable[..., Tensor]) -> None:
    """Salimans & Ho 2022, appendix D: v = dx/dphi for alpha = cos(phi), sigma = sin(phi)."""
    x0, eps = draw(8), draw(8, seed=1)
    phi = torch.tensor(0.6, dtype=torch.float64)
    _, derivative = torch.func.jvp(lambda p: p.cos() * x0 + p.sin() * eps, (phi,), (torch.ones_like(phi),))
    torch.testing.assert_close(target("v_prediction", x0, eps, Level(phi.cos(), phi.sin())), derivative)


def test_the_score_is_the_gradient_of_the_log_density(gaussian: Any, draw: Callable[..., Tensor]) -> None:
    """Of a Gaussian world, times sigma; eps is the mean noise there."""
    world, x, level = gaussian(0.3, 0.5), draw(8), PROCESSES[1].level(700)
    score = -(x - 0.3) / world.variance(level)
    x0 = world.denoise(x, level)
    torch.testing.assert_close(target("score", x0, (x - x0) / level.sigma, level), level.sigma * score)


def test_the_flows_velocity_is_that_of_its_path(draw: Callable[..., Tensor]) -> None:
    x0, eps, t = draw(8), draw(8, seed=1), torch.tensor(0.3, dtype=torch.float64)
    _, derivative = torch.func.jvp(lambda t: (1 - t) * x0 + t * eps, (t,), (torch.ones_like(t),))
    torch.testing.assert_close(target("flow_prediction", x0, eps, Level(0.7, 0.3)), derivative)


@pytest.mark.parametrize("process", PROCESSES)
@pytest.mark.parametrize("t", TIMES)
def test_one_denoiser_in_five_words_denoises_alike(
    process: Process, t: int, gaussian: Any, draw: Callable[..., Tensor]
) -> None:
    world, level = gaussian(0.3, 0.5), process.level(t)
    x = level.alpha * 0.3 + world.variance(level) ** 0.5 * draw(2, 1, 4, 4).float()

    def network(prediction_type: PredictionType) -> Callable[[Tensor, Tensor, Any], Tensor]:
        def answer(x: Tensor, times: Tensor, prepared: None) -> Tensor:
            assert times.tolist() == pytest.approx([t] * len(x), abs=1e-3)
            here = process.level(float(times[0]))
            x0 = world.denoise(x.double(), here)
            return target(prediction_type, x0, (x - here.alpha * x0) / here.sigma, here)

        return answer

    expected = world.denoise(x, level)
    for prediction_type in PREDICTIONS:
        found = Denoiser(cast(Network, network(prediction_type)), process, prediction_type)(x, level, None)
        torch.testing.assert_close(found.float(), expected, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("process", PROCESSES)
@pytest.mark.parametrize("prediction_type", PREDICTIONS)
@pytest.mark.parametrize("t", TIMES)
def test_an_error_of_x0_counts_in_each_of_them_as_loss_scale_says(
    process: Process, prediction_type: PredictionType, t: int, draw: Callable[..., Tensor]
) -> None:
    level, x, x0, off = process.level(t), draw(64), draw(64, seed=1), 0.1 * draw(64, seed=2)

    def answer(x0: Tensor) -> Tensor:
        return target(prediction_type, x0, (x - level.alpha * x0) / level.sigma, level)

    counted = (answer(x0 + off) - answer(x0)).square().mean() / off.square().mean()
    assert float(counted) == pytest.approx(float(loss_scale(prediction_type, level)), rel=1e-5)
