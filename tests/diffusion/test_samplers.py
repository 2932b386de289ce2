"""Samplers against denoisers whose answer is known: exact where they must be, and of their order elsewhere."""

import math
from collections.abc import Callable
from itertools import pairwise
from typing import Any, get_args

import pytest
import torch
from torch import Tensor

from darkroom.config.sampling import CONTINUOUS_SPACINGS, Spacing
from darkroom.config.sampling import SAMPLERS as KINDS
from darkroom.diffusion.denoiser import Condition, Conditions, Denoiser
from darkroom.diffusion.generate import generate
from darkroom.diffusion.grids import level_grid
from darkroom.diffusion.prediction import target
from darkroom.diffusion.process import Process, starts_without_signal
from darkroom.diffusion.samplers._base import Denoise
from darkroom.diffusion.samplers.pndm import ADAMS_BASHFORTH
from darkroom.diffusion.schedule import CLEAN, DiscreteVP, Level
from tests.support.diffusion import make_sampling, make_vp, sample

SAMPLERS = tuple(KINDS.classes)
NOISE_ONLY = [name for name in SAMPLERS if KINDS.of(name).needs_noise_prediction]
ORDER = {"ddim": 1, "euler": 1, "heun": 2, "dpmpp_2m": 2, "pndm": 2}
CALLS = {name: {"heun": 2 * 6 - 1, "pndm": 6 + 1, "predictor_corrector": 2 * 6}.get(name, 6) for name in SAMPLERS}
SCHEDULE = make_vp("linear", 0.0001, 0.02, 1000)

# Where the walk of `test_a_walk_ends_where_it_ended_before` ends.
BEFORE = {
    "ddpm": [-0.240892728705, -0.67136327765, -0.667179755514, -0.217146475918],
    "ddim": [-0.867823859832, -0.445133812023, 0.445133812023, 0.867823859832],
    "euler": [-0.867823859832, -0.445133812023, 0.445133812023, 0.867823859832],
    "euler_ancestral": [-0.240892728705, -0.67136327765, -0.667179755514, -0.217146475918],
    "heun": [-0.902706539592, -0.547718995474, 0.547718995474, 0.902706539592],
    "dpmpp_2m": [-0.89070443385, -0.487229223121, 0.487229223121, 0.89070443385],
    "dpmpp_2m_sde": [-0.229000261361, -0.736518267372, -0.733274947584, -0.205247838598],
    "pndm": [-0.834394427275, -0.55739286856, 0.55739286856, 0.834394427275],
}


def no_noise(step: int) -> Tensor:
    raise AssertionError("a deterministic sampler asked for noise")


def walk(name: str, denoise: Denoise, x: Tensor, levels: list[Level], process: Process = SCHEDULE) -> Tensor:
    return sample(name, denoise, x, levels, no_noise, at_ratio=process.at_ratio)


@pytest.mark.parametrize("name", ORDER)
def test_the_error_falls_with_the_order_of_the_method(
    name: str, process: Process, gaussian: Any, draw: Callable[..., Tensor], even_levels: Any
) -> None:
    world, x = gaussian(0.4, 1.0), draw(1, 1, 4, 4)
    errors = []
    for n in (32, 64, 128):
        levels = even_levels(n, process)
        exact = world.flow(x, levels[0], levels[-1])
        errors.append(float((walk(name, world.denoise, x, levels) - exact).norm() / exact.norm()))
    orders = [math.log2(coarse / fine) for coarse, fine in pairwise(errors)]
    assert orders == pytest.approx([ORDER[name]] * 2, abs=0.1), errors
    assert errors[-1] < (2e-2 if ORDER[name] == 1 else 1e-3)


@pytest.mark.parametrize("name", [*ORDER, "ode"])
@pytest.mark.parametrize("spacing", get_args(Spacing))
def test_a_whole_walk_ends_where_the_flow_ends(
    name: str, spacing: Spacing, process: Process, gaussian: Any, draw: Callable[..., Tensor]
) -> None:
    if spacing not in CONTINUOUS_SPACINGS and not isinstance(process, DiscreteVP):
        pytest.skip("no such times")
    if name in NOISE_ONLY and starts_without_signal(process):
        pytest.skip("no epsilon")
    levels, world = level_grid(process, 200, spacing), gaussian(0.4, 0.3)
    x = process.spread * draw(1, 1, 4, 4)
    exact = world.flow(x, levels[0], CLEAN)
    found = walk(name, world.denoise, x, levels, process)
    assert float((found - exact).norm() / exact.norm()) < 0.04


@pytest.mark.parametrize("name", SAMPLERS)
@pytest.mark.parametrize("steps", [1, 2, 10])
def test_a_single_picture_is_found_in_any_number_of_steps(
    name: str, steps: int, process: Process, gaussian: Any, draw: Callable[..., Tensor]
) -> None:
    if name in NOISE_ONLY and starts_without_signal(process):
        pytest.skip("no epsilon")
    world, x, levels = gaussian(0.4, 0.0), draw(2, 1, 4, 4), level_grid(process, steps, "trailing")

    def noise(number: int) -> Tensor:
        return draw(2, 1, 4, 4, seed=number)

    found = sample(name, world.denoise, x, levels, noise, at_ratio=process.at_ratio)
    torch.testing.assert_close(found, torch.full_like(x, 0.4), rtol=0, atol=1e-12)


@pytest.mark.parametrize("name", ["ddim", "heun", "dpmpp_2m"])
def test_a_walk_out_of_pure_noise_stays_where_the_pictures_are(
    name: str, gaussian: Any, draw: Callable[..., Tensor]
) -> None:
    """A cosine schedule begins at sigma / alpha = 20,000; a network is imprecise there."""
    world = gaussian(0.4, 0.3)

    def denoise(x: Tensor, level: Level) -> Tensor:
        result: Tensor = world.denoise(x, level) + (0.1 if level.alpha < 1e-3 else 0.0)
        return result

    levels = level_grid(make_vp("cosine", 0.0001, 0.02, 1000), 20, "trailing")
    found = walk(name, denoise, draw(8, 1, 4, 4), levels)
    assert float(found.mean()) == pytest.approx(0.4, abs=0.15)
    assert 0.15 < float(found.std()) < 0.6


@pytest.mark.parametrize("name", BEFORE)
def test_a_walk_ends_where_it_ended_before(name: str) -> None:
    """Pictures that were drawn once are drawn again by later versions."""
    x = torch.linspace(-2, 2, 4, dtype=torch.float64).view(1, 1, 2, 2)

    def noise(number: int) -> Tensor:
        return torch.cos((number + 1) * x)

    def denoise(x: Tensor, level: Level) -> Tensor:
        return torch.tanh(level.alpha * x)

    end = sample(name, denoise, x, level_grid(SCHEDULE, 6, "trailing"), noise)
    assert end.flatten().tolist() == pytest.approx(BEFORE[name], abs=1e-10)


def test_ddim_and_eulers_method_are_one_rule(gaussian: Any, draw: Callable[..., Tensor], even_levels: Any) -> None:
    """Euler's method on d(x / alpha) / d(sigma / alpha) = eps (Song et al. 2021, section 4.3)."""
    world, x, levels = gaussian(0.4, 0.3), draw(1, 1, 4, 4), even_levels(5, SCHEDULE)
    scaled, s = x / levels[0].alpha, levels[0].sigma / levels[0].alpha
    for now, after in pairwise(levels):
        here = scaled * now.alpha
        eps = (here - now.alpha * world.denoise(here, now)) / now.sigma
        scaled, s = scaled + (after.sigma / after.alpha - s) * eps, after.sigma / after.alpha
    for name in ("ddim", "euler"):
        torch.testing.assert_close(walk(name, world.denoise, x, levels), scaled * levels[-1].alpha)


def test_multistep_weights_are_exact_on_polynomials() -> None:
    """Adams and Bashforth: k weights integrate polynomials of degree k - 1 over the step ahead."""
    for weights in ADAMS_BASHFORTH:
        for degree in range(len(weights)):
            area = sum(w * (-k) ** degree for k, w in enumerate(weights))
            assert area == pytest.approx(1 / (degree + 1))


@pytest.mark.parametrize(("name", "calls"), CALLS.items())
def test_every_step_is_shown_and_the_network_asked_no_more_than_needed(
    name: str, calls: int, gaussian: Any, draw: Callable[..., Tensor]
) -> None:
    world, seen, asked = gaussian(0.4, 0.3), [], []

    def denoise(x: Tensor, level: Level) -> Tensor:
        asked.append(level)
        result: Tensor = world.denoise(x, level)
        return result

    levels = level_grid(SCHEDULE, 6, "trailing")
    found = sample(
        name,
        denoise,
        draw(1, 1, 2, 2),
        levels,
        lambda step: draw(1, 1, 2, 2, seed=step),
        lambda step, x, x0: seen.append((step, x)),
        at_ratio=SCHEDULE.at_ratio,
    )
    assert len(asked) == calls or (name == "ode" and len(asked) < 100)
    assert [step for step, _ in seen] == list(range(6))
    assert torch.equal(seen[-1][1], found)


def test_noise_reaches_the_samplers_unchanged(draw: Callable[..., Tensor]) -> None:
    steps = []

    def noise(step: int) -> Tensor:
        steps.append(step)
        return torch.zeros(1, 1, 2, 2)

    sample("ddpm", lambda x, level: torch.zeros_like(x), draw(1, 1, 2, 2), level_grid(SCHEDULE, 4), noise)
    assert steps == [0, 1, 2]  # the last step ends at the clean picture, which needs none


@pytest.mark.parametrize("name", ["ddim", "euler", "heun", "dpmpp_2m"])
def test_generating_walks_the_grid_with_guidance(name: str, gaussian: Any, draw: Callable[..., Tensor]) -> None:
    world, wanted, null = gaussian(0.0, 0.5), Condition(class_ids=torch.ones(2)), Condition(class_ids=torch.zeros(2))

    class Network:
        """v of a world whose mean is the class."""

        def prepare(self, *conditions: Condition) -> Tensor:
            return torch.cat([one.class_ids for one in conditions if one.class_ids is not None])

        def __call__(self, x: Tensor, t: Tensor, prepared: Tensor) -> Tensor:
            level = SCHEDULE.level(float(t[0]))
            mean = prepared.view(-1, 1, 1, 1).double()
            x0 = mean + world.denoise(x - level.alpha * mean, level)
            return target("v_prediction", x0, (x - level.alpha * x0) / level.sigma, level)

    denoiser, start = Denoiser(Network(), SCHEDULE, "v_prediction"), draw(2, 1, 4, 4)
    levels = level_grid(SCHEDULE, 20, "linspace")
    for scale in (1.0, 3.0):
        found = generate(
            denoiser, make_sampling(name, 20, scale, "linspace"), start, Conditions(wanted, null), no_noise
        )

        def by_hand(x: Tensor, level: Level, scale: float = scale) -> Tensor:
            without, with_condition = (denoiser(x, level, one.class_ids) for one in (null, wanted))
            return without + scale * (with_condition - without)

        torch.testing.assert_close(found, walk(name, by_hand, start, levels), rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("name", [name for name in SAMPLERS if name != "ode"])
def test_a_sample_does_not_depend_on_its_batch(name: str, gaussian: Any, draw: Callable[..., Tensor]) -> None:
    world, levels = gaussian(0.4, 0.3), level_grid(SCHEDULE, 8, "trailing")

    def end(rows: slice) -> Tensor:
        def noise(number: int) -> Tensor:
            return draw(3, 1, 4, 4, seed=number)[rows]

        start = (draw(3, 1, 4, 4) * torch.tensor([0.1, 1.0, 10.0]).view(3, 1, 1, 1))[rows]
        return sample(name, world.denoise, start, levels, noise)

    alone = torch.cat([end(slice(i, i + 1)) for i in range(3)])
    torch.testing.assert_close(end(slice(0, 3)), alone, rtol=1e-12, atol=1e-12)
