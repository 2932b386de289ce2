"""Training the U-Net on caches: what a sample sees is a function of seed, purpose, step and place alone."""

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from darkroom.config.training import Optimization
from darkroom.core.rng import batch_indices, generator, randn_rows, seeded
from darkroom.core.tensors import to_float
from darkroom.data.latents import Latents
from darkroom.training.autoencoder import encode
from darkroom.training.engine.ema import EMA
from darkroom.training.engine.loop import Loop, Phase
from tests.support.diffusion import make_flow, make_objective, make_ve
from tests.support.networks import built, kl
from tests.support.noting import noted

KINDS = ["text", "class", "none"]
ALL = slice(0, 8)


def value(task: Any, step: int = 0, rows: slice = ALL) -> float:
    return float(task.loss(step, rows)["loss"].detach())


@pytest.mark.parametrize("kind", KINDS)
def test_a_loss_does_not_depend_on_the_way_to_its_step(kind: str, world: Callable[[str], Any]) -> None:
    task = world(kind).task()
    straight = [value(task, step) for step in range(4)]
    assert [value(task, step) for step in (3, 1, 0, 2)] == [straight[step] for step in (3, 1, 0, 2)]
    assert len(set(straight)) == 4


@pytest.mark.parametrize("kind", KINDS)
def test_a_batch_is_the_sum_of_its_parts(kind: str, world: Callable[[str], Any]) -> None:
    task = world(kind).task(condition_dropout=0.5)
    parts = [value(task, 2, rows) * (rows.stop - rows.start) / 8 for rows in (slice(0, 3), slice(3, 4), slice(4, 8))]
    assert sum(parts) == pytest.approx(value(task, 2), rel=1e-5)


def test_the_loss_from_cached_moments_is_the_loss_on_the_fly(world: Callable[[str], Any]) -> None:
    """The cache holds the moments in half precision, which is all that may differ."""
    images = torch.randint(0, 256, (24, 3, 16, 16), dtype=torch.uint8, generator=generator(0, "images"))
    with seeded(0, "vae"):
        vae = built(kl((16, 16), groups=1))
    vae.requires_grad_(False)
    task, factor = world("text").task(), 1.7
    context, step = task.context, 3
    moments = encode(vae, lambda rows: images[rows], 24, 10, "fp32", context.device, "encode")
    task.data.train = Latents(*moments, factor)

    indices = batch_indices(24, 8, step, context.seed)
    posterior = vae.encode(to_float(images[indices]))
    x0 = factor * posterior.sample(randn_rows(slice(0, 8), (4, 8, 8), context.seed, "posterior", step))
    eps = randn_rows(slice(0, 8), (4, 8, 8), context.seed, "noise", step)
    times = task.objective.draw_times(8, generator(context.seed, "time", step))
    dropped = torch.rand(8, generator=generator(context.seed, "dropout", step)) < task.data.condition_dropout
    words = task.data.conditioning.of_rows(task.data.conditioning.rows("train", indices))
    words[dropped] = task.data.conditioning.null
    losses = task.objective.loss(lambda x, t: task.network(x, t, task.network.prepare_context(words)), x0, eps, times)
    assert value(task, step) == pytest.approx(float(losses.mean().detach()), rel=1e-3)


@pytest.mark.parametrize("kind", ["text", "class"])
def test_dropping_all_or_nothing_is_exact(kind: str, world: Callable[[str], Any]) -> None:
    never, always = (world(kind).task(condition_dropout=p) for p in (0.0, 1.0))
    before = [[value(task, step) for step in range(3)] for task in (never, always)]
    for task in (never, always):  # another null: only the one that drops may notice
        null = task.data.conditioning.null
        task.data.conditioning.null = null + 1 if kind == "text" else torch.zeros_like(null)
    after = [[value(task, step) for step in range(3)] for task in (never, always)]
    assert after[0] == before[0]
    assert all(a != b for a, b in zip(after[1], before[1], strict=True))
    for task in (never, always):  # other conditions: only the one that keeps them may notice
        task.data.conditioning.index["train"] = (task.data.conditioning.index["train"] + 1) % 3
    last = [[value(task, step) for step in range(3)] for task in (never, always)]
    assert last[1] == after[1]
    assert all(a != b for a, b in zip(last[0], after[0], strict=True))


class Watched:
    """In the place of an objective: remembers the clean samples."""

    def draw_times(self, n: int, generator: torch.Generator) -> Tensor:
        return torch.zeros(n, dtype=torch.int64)

    def loss(self, network: Any, x0: Tensor, eps: Tensor, t: Tensor) -> Tensor:
        self.x0 = x0
        return torch.zeros(len(x0))


def clean_samples(task: Any, step: int, rows: slice = ALL) -> Tensor:
    task.loss(step, rows)
    result: Tensor = task.objective.x0
    return result


def test_half_of_the_samples_are_mirrored_each_by_a_function_of_its_own_step_and_place(
    world: Callable[[str], Any],
) -> None:
    plain, flipping = (world("none").task(horizontal_flip=flip) for flip in (False, True))
    assert flipping.validate(flipping.network) == plain.validate(plain.network)
    plain.objective, flipping.objective = Watched(), Watched()
    mirrored = []
    for step in range(40):
        for x, y in zip(clean_samples(plain, step), clean_samples(flipping, step), strict=True):
            mirrored.append(torch.equal(y, x.flip(2)))
            assert mirrored[-1] or torch.equal(y, x)
    assert 130 < sum(mirrored) < 190  # of 320
    assert torch.equal(clean_samples(flipping, 7, slice(3, 6)), clean_samples(flipping, 7)[3:6])


@pytest.mark.parametrize(
    ("process", "prediction_type"),
    [(make_ve(25.0, 1e-5), "score"), (make_flow(0.001), "flow_prediction")],
    ids=["ve", "flow"],
)
def test_a_process_in_continuous_time_is_learnt_and_measured_like_any_other(
    process: Any, prediction_type: Any, world: Callable[[str], Any]
) -> None:
    task = world("class").task()
    task.objective = make_objective(process, prediction_type, "uniform", "l1", "sum")
    assert value(task) > 0
    found = task.validate(task.network)
    by_time = [found[f"held_out_by_time/{r}_percent"] for r in ("00_to_25", "25_to_50", "50_to_75", "75_to_100")]
    assert found["held_out/loss"] == pytest.approx(sum(by_time) / 4, rel=1e-4)  # 20 samples, 5 in each quarter
    assert task.validate(task.network) == found


@pytest.mark.parametrize("kind", KINDS)
def test_held_out_loss_is_the_same_at_every_call_and_tells_the_levels_apart(
    kind: str, world: Callable[[str], Any]
) -> None:
    task = world(kind).task()
    found = task.validate(task.network)
    assert found == task.validate(task.network)
    assert set(found) == {
        "held_out/loss",
        *(f"held_out_by_time/{r}_percent" for r in ("00_to_25", "25_to_50", "50_to_75", "75_to_100")),
    }
    by_time = [v for name, v in found.items() if name != "held_out/loss"]
    assert found["held_out/loss"] == pytest.approx(sum(by_time) / 4, rel=1e-4)  # 20 samples, 5 in each quarter
    data = replace(task.data, context=replace(task.context, batch_size=3), condition_dropout=0.9, horizontal_flip=True)
    smaller = task.__class__(task.network, task.objective, data)
    assert smaller.validate(task.network)["held_out/loss"] == pytest.approx(found["held_out/loss"], rel=1e-5)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("precision", ["fp32", "bf16"])
def test_trained_twice_the_weights_are_the_same_bytes(
    kind: str,
    precision: str,
    world: Callable[[str], Any],
    optimizer: Callable[..., Optimization],
    flat: Callable[[nn.Module], Tensor],
) -> None:
    def trained() -> tuple[Tensor, Tensor]:
        here = world(kind)
        here.context = replace(here.context, precision=precision)
        unet = here.unet()
        task, ema = here.task(unet), EMA(unet, 50)
        phase = Phase("", unet, optimizer(), task.loss)
        Loop([phase], ema, steps=3, batch_size=8, accumulation=2, hooks=[], description="unet").run()
        return flat(unet), flat(ema.network)

    first, second = trained(), trained()
    assert torch.equal(first[0], second[0])
    assert torch.equal(first[1], second[1])
    assert not torch.equal(first[0], flat(world(kind).unet()))


def test_a_mirrored_latent_has_the_condition_of_its_picture(world: Callable[[str], Any]) -> None:
    """Twice the latents and the same conditions: each step asks for those of the pictures."""
    here = world("class")
    once = here.latents()
    asked: list[Any] = []
    n = len(once)
    here.latents = lambda purpose="train": type(once)(once.mean.in_memory().repeat(2, 1, 1, 1), None, 1.0, variants=2)
    task = here.task(condition_dropout=0.0)
    rows_of = task.data.conditioning.rows
    task.data.conditioning.rows = lambda split, rows: noted(asked, rows, rows_of(split, rows))
    for step in range(8):
        task.loss(step, ALL)
    rows = torch.cat(asked)
    assert int(rows.max()) < n
    assert set(rows.tolist()) == set(range(n))
