"""AutoencoderKL: the same network as diffusers', identity at initialisation, shapes, refusals."""

import json
from typing import Any

import pytest
import torch

from darkroom.config.networks import AutoencoderKLConfig, AutoencoderSpec, read_section
from darkroom.core.errors import DarkroomError
from darkroom.interop.configs import vae_config
from darkroom.nn.autoencoder.vae import Moments
from darkroom.nn.layers.blocks import ResnetBlock2D
from tests.support.measures import Difference, Epsilons, Randomise
from tests.support.networks import built, kl

TINY = kl()
CONFIGS = [
    kl((32, 64, 64, 64), layers=2, groups=32),  # Stable Diffusion's, narrower
    kl((8, 20), latent=3, channels=1),
    kl((12,), layers=3, groups=3, latent=8),
    kl((6, 18, 12, 6), layers=2, groups=6, latent=1),
    kl((10, 5), groups=5, latent=16, channels=4),
]


@pytest.mark.parametrize("config", CONFIGS)
def test_is_diffusers_autoencoder(
    diffusers: Any,
    randomise: Randomise,
    relative_difference: Difference,
    config: AutoencoderSpec,
) -> None:
    ours, theirs = built(config).eval(), diffusers.AutoencoderKL(**vae_config(config, 32, 1.0)).eval()
    randomise(ours)
    theirs.load_state_dict(ours.state_dict(), strict=True)
    images = torch.rand(2, config.sizes.in_channels, 24, 16) * 2 - 1
    with torch.no_grad():
        moments, expected = ours.encode(images), theirs.encode(images).latent_dist
        latents = torch.randn_like(moments.mean)
        assert relative_difference(moments.mean, expected.mean) <= 1e-5
        assert relative_difference(moments.logvar, expected.logvar) <= 1e-5
        assert relative_difference(ours.decode(latents), theirs.decode(latents).sample) <= 1e-5


@pytest.mark.parametrize("config", CONFIGS)
def test_takes_diffusers_weights(diffusers: Any, epsilons: Epsilons, config: AutoencoderSpec) -> None:
    theirs = diffusers.AutoencoderKL(**vae_config(config, 32, 1.0))
    ours = built(config)
    ours.load_state_dict(theirs.state_dict(), strict=True)
    assert all(torch.equal(value, theirs.state_dict()[key]) for key, value in ours.state_dict().items())
    assert epsilons(ours) == epsilons(theirs)


def test_fresh_blocks_are_exactly_the_identity() -> None:
    vae = built(TINY)
    x = torch.randn(2, 16, 4, 4)
    assert torch.equal(vae.encoder.mid_block(x), x)
    assert torch.equal(vae.decoder.mid_block(x), x)
    for block in (m for m in vae.modules() if isinstance(m, ResnetBlock2D) and m.conv_shortcut is None):
        x = torch.randn(1, block.conv1.in_channels, 3, 3)
        assert torch.equal(block(x), x)


def test_shapes() -> None:
    vae = built(TINY)
    moments = vae.encode(torch.randn(2, 3, 12, 8))
    assert vae.downscale == 2
    assert moments.mean.shape == moments.logvar.shape == (2, 4, 6, 4)
    assert vae.decode(moments.mean).shape == (2, 3, 12, 8)


def test_logvar_is_clamped() -> None:
    vae = built(TINY)
    with torch.no_grad():
        bias: Any = vae.quant_conv.bias
        bias[4:6], bias[6:] = 1e4, -1e4
    logvar = vae.encode(torch.randn(1, 3, 4, 4)).logvar
    assert logvar.max() == 20
    assert logvar.min() == -30


def test_sample_is_mean_plus_std_times_noise() -> None:
    moments = Moments(torch.full((1, 1, 1, 1), 3.0), torch.full((1, 1, 1, 1), 4.0).log())
    torch.testing.assert_close(moments.sample(torch.full((1, 1, 1, 1), -0.5)), torch.full((1, 1, 1, 1), 2.0))


def test_every_weight_learns(randomise: Randomise) -> None:
    vae = built(TINY)
    randomise(vae)
    moments = vae.encode(torch.randn(2, 3, 8, 8))
    loss = vae.decode(moments.sample(torch.randn(2, 4, 4, 4))).square().mean()
    loss.backward()
    assert [n for n, p in vae.named_parameters() if p.grad is None or not p.grad.abs().max() > 0] == []
    (grad,) = torch.autograd.grad(vae.decode(torch.randn(1, 4, 2, 2)).mean(), [vae.last_layer])
    assert grad.abs().max() > 0


def test_config_survives_json() -> None:
    assert AutoencoderSpec.read(json.loads(json.dumps(TINY.model_dump())), "config.json", "") == TINY


@pytest.mark.parametrize(
    ("widths", "groups", "message"),
    [
        ([8, 18], 4, r"block_out_channels\.1 = 18 is not divisible by norm_num_groups = 4"),
        ([8], 0, "norm_num_groups = 0"),
        ([], 4, "block_out_channels"),
    ],
)
def test_bad_configs_are_refused_in_one_line(widths: list[int], groups: int, message: str) -> None:
    values = {**TINY.network.model_dump(), "block_out_channels": widths, "norm_num_groups": groups}
    with pytest.raises(DarkroomError, match=message) as caught:
        read_section(AutoencoderKLConfig, values, "file", "fix it")
    assert "\n" not in str(caught.value)
