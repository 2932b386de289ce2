"""A step of drawing never reads a number from the device, for which the processor would wait.

Tensors of the meta device have no numbers: reading one, by `float`, `.cpu()` or a copy, is an error there, as the
planted reads show. So a whole walk on it, guided, with every sampler that has no solver of its own, reads none.
"""

from collections.abc import Callable
from contextlib import nullcontext
from typing import Any

import pytest
import torch
from torch import Tensor

from darkroom.config.sampling import SAMPLERS
from darkroom.diffusion.denoiser import Condition, Conditions, Denoiser
from darkroom.diffusion.generate import generate
from darkroom.inference.captured import CapturedNetwork
from darkroom.inference.packed_unet import PackedUNet
from darkroom.nn.denoiser.base import Prepared
from tests.support.diffusion import make_sampling, make_vp
from tests.support.networks import built
from tests.support.unets import TINY

META = torch.device("meta")


@pytest.fixture
def walk(monkeypatch: pytest.MonkeyPatch) -> Callable[..., Tensor]:
    """Draws two pictures without numbers; plant: what else is done to each answer of the network."""
    monkeypatch.setattr(torch, "autocast", lambda *_, **__: nullcontext())  # which knows no meta device

    def drawn(sampler: str, plant: Callable[[Tensor], Any] = lambda output: None) -> Tensor:
        unet = PackedUNet(built(TINY).to(META).eval().requires_grad_(False))
        made = CapturedNetwork(unet, META, "fp32")

        class Planted:
            def prepare(self, *conditions: Condition) -> Prepared:
                return made.prepare(*conditions)

            def __call__(self, x: Tensor, t: Tensor, prepared: Prepared) -> Tensor:
                output = made(x, t, *prepared)
                plant(output)
                return output

        width = TINY.sizes.cross_attention_dim
        assert width is not None
        conditions = Conditions(*(Condition(torch.empty(2, 5, width, device=META)) for _ in range(2)))
        start = torch.empty(2, TINY.sizes.in_channels, 16, 16, device=META)
        sampling = make_sampling(sampler, 6, 3.0, "leading", steps_offset=1)
        denoiser = Denoiser(Planted(), make_vp("scaled_linear", 0.00085, 0.012, 1000), "epsilon")
        with torch.no_grad():
            return generate(denoiser, sampling, start, conditions, lambda step: torch.empty_like(start))

    return drawn


@pytest.mark.parametrize("sampler", [name for name in SAMPLERS.classes if name != "ode"])
def test_no_sampler_reads_from_the_device(sampler: str, walk: Callable[..., Tensor]) -> None:
    assert walk(sampler).device == META


@pytest.mark.parametrize("plant", [lambda y: float(y.sum()), lambda y: y.cpu(), lambda y: bool(y.isfinite().all())])
def test_a_planted_read_is_found(plant: Callable[[Tensor], Any], walk: Callable[..., Tensor]) -> None:
    with pytest.raises((RuntimeError, NotImplementedError)):
        walk("ddim", plant)
