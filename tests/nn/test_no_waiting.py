"""A step of drawing never reads a number from the device, for which the processor would wait.

Tensors of the meta device have no numbers: reading one, by `float`, `.cpu()` or a copy, is an error there, as the
planted reads show. So a whole walk on it, guided, with every sampler that has no solver of its own, reads none.
"""

from collections.abc import Callable
from contextlib import nullcontext
from typing import Any, get_args

import pytest
import torch
from torch import Tensor

from darkroom.config.choices import SamplerName
from darkroom.diffusion.denoiser import Condition, Denoiser
from darkroom.diffusion.generate import Sampling, generate
from darkroom.diffusion.schedule import DiscreteVP
from darkroom.inference.captured import CapturedNetwork
from darkroom.inference.packed_unet import PackedUNet
from tests.support.networks import built
from tests.support.unets import TINY

META = torch.device("meta")


@pytest.fixture
def walk(monkeypatch: pytest.MonkeyPatch) -> Callable[..., Tensor]:
    """Draws two pictures without numbers; plant: what else is done to each answer of the network."""
    monkeypatch.setattr(torch, "autocast", lambda *_, **__: nullcontext())  # which knows no meta device

    def drawn(sampler: SamplerName, plant: Callable[[Tensor], Any] = lambda output: None) -> Tensor:
        unet = PackedUNet(built(TINY).to(META).eval().requires_grad_(False))
        made = CapturedNetwork(unet, META, "fp32")

        def network(x: Tensor, t: Tensor, condition: Condition) -> Tensor:
            output = made(x, t, condition.context, condition.class_ids)
            plant(output)
            return output

        width = TINY.sizes.cross_attention_dim
        assert width is not None
        condition, null = (Condition(unet.prepare_context(torch.empty(2, 5, width, device=META))) for _ in range(2))
        start = torch.empty(2, TINY.sizes.in_channels, 16, 16, device=META)
        how = Sampling(sampler, 6, 3.0, "leading", steps_offset=1)
        denoiser = Denoiser(network, DiscreteVP("scaled_linear", 0.00085, 0.012, 1000), "epsilon")
        with torch.no_grad():
            return generate(denoiser, how, start, condition, null, lambda step: torch.empty_like(start))

    return drawn


@pytest.mark.parametrize("sampler", [name for name in get_args(SamplerName) if name != "ode"])
def test_no_sampler_reads_from_the_device(sampler: SamplerName, walk: Callable[..., Tensor]) -> None:
    assert walk(sampler).device == META


@pytest.mark.parametrize("plant", [lambda y: float(y.sum()), lambda y: y.cpu(), lambda y: bool(y.isfinite().all())])
def test_a_planted_read_is_found(plant: Callable[[Tensor], Any], walk: Callable[..., Tensor]) -> None:
    with pytest.raises((RuntimeError, NotImplementedError)):
        walk("ddim", plant)
