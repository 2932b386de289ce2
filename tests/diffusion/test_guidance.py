"""Condition dropout and guidance: exact at their ends, linear between, two halves in one call."""

from collections.abc import Callable

import pytest
import torch
from torch import Tensor

from darkroom.config.choices import PredictionType
from darkroom.diffusion.denoiser import Condition, Conditions, Denoiser
from darkroom.diffusion.guidance import drop_condition, dropout_mask, guided
from tests.support.diffusion import make_vp

SCHEDULE = make_vp("cosine", 0.0001, 0.02, 1000)
LEVEL = SCHEDULE.level(400)
ASKED, NULL = torch.tensor([1, 2]), torch.tensor([9, 9])
BOTH = Conditions(Condition(class_ids=ASKED), Condition(class_ids=NULL))


class Network:
    """Answers by the class, and counts its calls and what it prepares."""

    def __init__(self) -> None:
        self.batches: list[list[int]] = []
        self.prepared = 0

    def prepare(self, *conditions: Condition) -> Tensor:
        self.prepared += 1
        return torch.cat([one.class_ids for one in conditions if one.class_ids is not None])

    def __call__(self, x: Tensor, t: Tensor, prepared: Tensor) -> Tensor:
        self.batches.append(prepared.tolist())
        return answer(x, prepared)


def answer(x: Tensor, ids: Tensor) -> Tensor:
    return torch.sin(x * ids.view(-1, 1, 1, 1)).float()


def denoiser_of(prediction_type: PredictionType = "epsilon") -> Denoiser:
    return Denoiser(Network(), SCHEDULE, prediction_type)


@pytest.mark.parametrize("rescale", [0.0, 0.7])
def test_scale_1_is_the_conditional_model_itself(rescale: float, draw: Callable[..., Tensor]) -> None:
    """Fails if the null condition is evaluated, or the output rescaled, where there is no guidance."""
    denoiser, x = denoiser_of(), draw(2, 1, 4, 4).float()
    found = guided(denoiser, BOTH, 1.0, rescale)(x, LEVEL)
    assert torch.equal(found, denoiser(x, LEVEL, ASKED))


def test_scale_0_is_the_unconditional_model(draw: Callable[..., Tensor]) -> None:
    denoiser, x = denoiser_of(), draw(2, 1, 4, 4).float()
    torch.testing.assert_close(guided(denoiser, BOTH, 0.0)(x, LEVEL), denoiser(x, LEVEL, NULL))


@pytest.mark.parametrize("scale", [0.5, 2.0, 7.5])
def test_guiding_x0_is_guiding_epsilon(scale: float, draw: Callable[..., Tensor]) -> None:
    """Ho & Salimans 2022, eq. 6, with w = scale - 1."""
    x = draw(2, 1, 4, 4).float()
    eps = scale * answer(x, ASKED) + (1 - scale) * answer(x, NULL)
    expected = (x - LEVEL.sigma * eps) / LEVEL.alpha
    torch.testing.assert_close(guided(denoiser_of(), BOTH, scale)(x, LEVEL), expected, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("prediction_type", ["epsilon", "v_prediction", "sample"])
def test_rescaled_guidance_has_the_spread_of_the_conditional_output(
    prediction_type: PredictionType, draw: Callable[..., Tensor]
) -> None:
    """Lin et al. 2024, eq. 14-16, on what the network answers."""
    denoiser, x = denoiser_of(prediction_type), draw(2, 1, 4, 4).float()
    wanted, null = (denoiser.output(x, LEVEL, ids) for ids in (ASKED, NULL))
    plain = null + 3.0 * (wanted - null)
    for rescale in (0.0, 0.7, 1.0):
        shrunk = plain * (wanted.std(dim=(1, 2, 3)) / plain.std(dim=(1, 2, 3))).view(-1, 1, 1, 1)
        expected = denoiser.x0(rescale * shrunk + (1 - rescale) * plain, x, LEVEL)
        found = guided(denoiser, BOTH, 3.0, rescale)(x, LEVEL)
        torch.testing.assert_close(found, expected, rtol=1e-4, atol=1e-5)


def test_both_halves_are_one_batch_prepared_once(draw: Callable[..., Tensor]) -> None:
    """Fails if conditions are prepared at every step."""
    network, x = Network(), draw(2, 1, 4, 4)
    denoise = guided(Denoiser(network, SCHEDULE, "epsilon"), BOTH, 3.0)
    for _ in range(5):
        denoise(x, LEVEL)
    assert network.batches == [[9, 9, 1, 2]] * 5
    assert network.prepared == 1


def test_dropout_is_exact_at_both_ends() -> None:
    for seed in range(20):
        generator = torch.Generator().manual_seed(seed)
        assert not dropout_mask(5000, 0.0, generator).any()
        assert dropout_mask(5000, 1.0, generator).all()


def test_dropout_drops_the_share_asked_for() -> None:
    mask = dropout_mask(10_000, 0.1, torch.Generator().manual_seed(0))
    assert float(mask.float().mean()) == pytest.approx(0.1, abs=0.012)  # 4 standard errors


def test_dropped_rows_are_the_null_and_others_untouched() -> None:
    mask = torch.tensor([True, False, True])
    embeddings, null = torch.rand(3, 4, 5), torch.rand(4, 5)
    dropped = drop_condition(embeddings, null, mask)
    assert torch.equal(dropped[0], null)
    assert torch.equal(dropped[1], embeddings[1])
    assert torch.equal(dropped[2], null)
    assert drop_condition(torch.tensor([3, 4, 5]), torch.tensor(9), mask).tolist() == [9, 4, 9]
