"""Condition dropout and guidance: exact at their ends, linear between, two halves in one call."""

from collections.abc import Callable

import pytest
import torch
from torch import Tensor

from darkroom.config.choices import PredictionType
from darkroom.core.errors import DarkroomError
from darkroom.diffusion.denoiser import Condition, Denoiser
from darkroom.diffusion.guidance import drop_condition, dropout_mask, guided
from darkroom.diffusion.schedule import DiscreteVP, Level
from tests.support.noting import noted

SCHEDULE = DiscreteVP("cosine", 0.0001, 0.02, 1000)
LEVEL = SCHEDULE.level(400)
WANTED, NULL = Condition(class_ids=torch.tensor([1, 2])), Condition(class_ids=torch.tensor([9, 9]))


class Network:
    """A denoiser that answers by the class, and counts its calls."""

    def __init__(self) -> None:
        self.batches: list[list[int]] = []

    def eps(self, x: Tensor, ids: Tensor) -> Tensor:
        return torch.sin(x * ids.view(-1, 1, 1, 1))

    def __call__(self, x: Tensor, level: Level, condition: Condition) -> Tensor:
        assert condition.class_ids is not None
        self.batches.append(condition.class_ids.tolist())
        return (x - level.sigma * self.eps(x, condition.class_ids)) / level.alpha


def test_scale_1_is_the_conditional_model_itself() -> None:
    network = Network()
    assert guided(network, NULL, 1.0) is network


def test_scale_0_is_the_unconditional_model(draw: Callable[..., Tensor]) -> None:
    network, x = Network(), draw(2, 1, 4, 4)
    torch.testing.assert_close(guided(network, NULL, 0.0)(x, LEVEL, WANTED), network(x, LEVEL, NULL))


@pytest.mark.parametrize("scale", [0.5, 2.0, 7.5])
def test_guiding_x0_is_guiding_epsilon(scale: float, draw: Callable[..., Tensor]) -> None:
    """Ho & Salimans 2022, eq. 6, with w = scale - 1."""
    network, x = Network(), draw(2, 1, 4, 4)
    assert WANTED.class_ids is not None
    assert NULL.class_ids is not None
    eps = scale * network.eps(x, WANTED.class_ids) + (1 - scale) * network.eps(x, NULL.class_ids)
    expected = (x - LEVEL.sigma * eps) / LEVEL.alpha
    torch.testing.assert_close(guided(network, NULL, scale)(x, LEVEL, WANTED), expected)


@pytest.mark.parametrize("prediction_type", ["epsilon", "v_prediction", "sample"])
def test_rescaled_guidance_has_the_spread_of_the_conditional_output(
    prediction_type: PredictionType, draw: Callable[..., Tensor]
) -> None:
    """Lin et al. 2024, eq. 14-16, on what the network answers."""

    def network(x: Tensor, t: Tensor, condition: Condition) -> Tensor:
        assert condition.class_ids is not None
        return torch.sin(x * condition.class_ids.view(-1, 1, 1, 1)).float()

    denoiser, x = Denoiser(network, SCHEDULE, prediction_type), draw(2, 1, 4, 4).float()
    wanted, null = (denoiser.output(x, LEVEL, condition) for condition in (WANTED, NULL))
    plain = null + 3.0 * (wanted - null)
    for rescale in (0.0, 0.7, 1.0):
        shrunk = plain * (wanted.std(dim=(1, 2, 3)) / plain.std(dim=(1, 2, 3))).view(-1, 1, 1, 1)
        expected = denoiser.x0(rescale * shrunk + (1 - rescale) * plain, x, LEVEL)
        found = guided(denoiser, NULL, 3.0, rescale)(x, LEVEL, WANTED)
        torch.testing.assert_close(found, expected, rtol=1e-4, atol=1e-5)
    assert guided(denoiser, NULL, 1.0, 0.7) is denoiser  # without guidance there is nothing to bring back


def test_guidance_is_rescaled_only_where_the_networks_output_is_known() -> None:
    with pytest.raises(DarkroomError, match=r"guidance_rescale = 0\.7: is defined on a network's output"):
        guided(Network(), NULL, 3.0, 0.7)


def test_both_halves_are_one_batch_joined_once(monkeypatch: pytest.MonkeyPatch, draw: Callable[..., Tensor]) -> None:
    joined: list[int] = []
    cat = Condition.cat
    monkeypatch.setattr(Condition, "cat", lambda self, other: noted(joined, 1, cat(self, other)))
    network, x = Network(), draw(2, 1, 4, 4)
    denoise = guided(network, NULL, 3.0)
    for _ in range(5):
        denoise(x, LEVEL, WANTED)
    assert network.batches == [[9, 9, 1, 2]] * 5
    assert len(joined) == 1


def test_another_condition_is_not_taken_for_the_last_one(draw: Callable[..., Tensor]) -> None:
    network, x = Network(), draw(2, 1, 4, 4)
    denoise = guided(network, NULL, 3.0)
    denoise(x, LEVEL, WANTED)
    denoise(x, LEVEL, Condition(class_ids=torch.tensor([3, 4])))
    assert network.batches == [[9, 9, 1, 2], [9, 9, 3, 4]]


def test_conditions_join_by_sample() -> None:
    def keys_values(n: int) -> list[tuple[Tensor, Tensor]]:
        return [(torch.rand(n, 2, 3, 4), torch.rand(n, 2, 3, 4)) for _ in range(2)]

    first, second = keys_values(2), keys_values(3)
    both = Condition(first).cat(Condition(second))
    assert both.context is not None
    for (k, v), (k1, v1), (k2, v2) in zip(both.context, first, second, strict=True):
        assert torch.equal(k, torch.cat([k1, k2]))
        assert torch.equal(v, torch.cat([v1, v2]))
    assert Condition().cat(Condition()) == Condition()


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
