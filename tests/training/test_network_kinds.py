"""Training networks of every kind: what is frozen stays, norms with a memory keep it, the same seeds the same bytes."""

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from darkroom.config.denoisers import DenoiserSpec
from darkroom.config.training import Optimization
from darkroom.core.rng import generator, seeded
from darkroom.data.latents import Latents
from darkroom.nn.denoiser.base import DenoisingNetwork
from darkroom.training.engine.ema import EMA
from darkroom.training.engine.loop import Loop, Phase
from darkroom.training.previews import LatentView, preview
from darkroom.view.sheet import GUTTER, LINE, PICTURE
from tests.support.diffusion import make_sampling
from tests.support.networks import batch_norm, built, layer_norm, score

N = 24
KINDS: dict[str, tuple[DenoiserSpec, str, int]] = {  # with the condition and the side of what it is trained on
    "score": (score("concat", 20), "none", 20),
    "score of classes": (score("transformer", 20, classes=3), "class", 20),
    "layer norm": (layer_norm(12), "none", 12),
    "batch norm": (batch_norm(), "none", 8),
}
Optimizers = Callable[..., Optimization]
PIXELS = LatentView(lambda latents: latents, 0.0, [""] * N)


@pytest.fixture
def task(world: Callable[[str], Any]) -> Callable[[str], Any]:
    """A task on pictures of one channel, with a network of this kind."""

    def make(name: str) -> Any:
        spec, condition, side = KINDS[name]
        with seeded(0, "unet"):
            network = built(spec).stored()
        made = world(condition).task(network, condition_dropout=0.3)
        for split in ("train", "held_out"):
            mean = torch.rand(N, 1, side, side, generator=generator(0, split)).half()
            setattr(made.data, split, Latents(mean, None, 1.0))
        return made

    return make


def trained(task: Any, config: Optimization, steps: int = 3) -> EMA[DenoisingNetwork]:
    ema = EMA(task.network, 50)
    phase = Phase("", task.network, config, task.loss)
    Loop([phase], ema, steps=steps, batch_size=8, accumulation=1, hooks=[], description="unet").run()
    return ema


def state(network: DenoisingNetwork) -> dict[str, Tensor]:
    return {name: value.clone() for name, value in network.state_dict().items()}


@pytest.mark.parametrize("name", KINDS)
@pytest.mark.parametrize("optimizer_name", ["adamw", "muon"])
def test_everything_learns_but_what_is_frozen(
    name: str, optimizer_name: str, task: Callable[[str], Any], optimizer: Optimizers
) -> None:
    here = task(name)
    before = state(here.network)
    ema = trained(here, optimizer(optimizer=optimizer_name, weight_decay=0.1))
    frozen = {n for n, p in here.network.named_parameters() if not p.requires_grad}
    assert frozen <= {"frequencies", "times"}
    frozen |= {n for n in before if n.endswith(("norm2.weight", "norm2.bias")) and n.startswith("transformers")}  # idle
    for network in (here.network, ema.network):
        for weight, value in network.state_dict().items():
            assert torch.equal(value, before[weight]) == (weight in frozen), weight


@pytest.mark.parametrize("name", KINDS)
def test_trained_twice_the_weights_are_the_same_bytes(
    name: str, task: Callable[[str], Any], optimizer: Optimizers
) -> None:
    first, second = (state(trained(task(name), optimizer()).network) for _ in range(2))
    assert all(torch.equal(first[weight], second[weight]) for weight in first)


def test_the_average_carries_the_memory_of_batch_norms_and_is_never_in_training_mode(
    task: Callable[[str], Any], optimizer: Optimizers
) -> None:
    here = task("batch norm")
    ema = trained(here, optimizer())
    pairs = list(zip(here.network.buffers(), ema.network.buffers(), strict=True))
    assert len(pairs) > 3
    assert all(torch.equal(now, average) for now, average in pairs)
    before = state(ema.network)
    first, second = (here.validate(ema.network) for _ in range(2))
    preview(ema.network, here, PIXELS, make_sampling("ddim", 2, 1.0, "trailing"), 2, "after 7 steps")
    assert first == second
    assert not any(module.training for module in ema.network.modules())
    assert all(torch.equal(before[name], value) for name, value in ema.network.state_dict().items())


@pytest.mark.parametrize("name", KINDS)
def test_a_preview_of_pictures_of_one_channel_is_grey(name: str, task: Callable[[str], Any]) -> None:
    here = task(name)
    here.network.eval()
    grid, _ = preview(here.network, here, PIXELS, make_sampling("ddim", 2, 2.0, "trailing"), 4, "after 7 steps")
    drawn = np.asarray(grid)[GUTTER + LINE + 4 :, GUTTER:][:PICTURE, :PICTURE].astype(int)
    assert drawn.std() > 0
    assert np.ptp(drawn, axis=-1).max() == 0
