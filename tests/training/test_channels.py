"""Dead latent channels are found, with exact figures; the preview map leaves them alone.

What these tests would catch: channels that are counted by their total spread (a dead one has it from its posterior
alone), a wrong share or divergence, and a map fitted on means, which gives dead channels large weights.
"""

import math

import pytest
import torch

from darkroom.core.rng import generator
from darkroom.data.latents import Latents, PreviewMap
from darkroom.nn.autoencoder.vae import Moments
from darkroom.training.autoencoder import kl_divergence
from darkroom.training.channels import AT_ONCE, Channels


def moments(n: int) -> Moments:
    """Means ±a in equal parts, with one posterior variance v, by channel: (a², v)."""
    made = torch.tensor([(0.01, 0.99), (1.0, 0.25), (0.11, 0.9), (0.05, 0.5)])
    signs = torch.tensor([1.0, -1.0]).repeat(n // 2).view(-1, 1, 1, 1).expand(n, 4, 2, 2)
    mean = signs * made[:, 0].sqrt().view(1, -1, 1, 1)
    return Moments(mean, made[:, 1].log().view(1, -1, 1, 1).expand(n, 4, 2, 2))


@pytest.mark.parametrize("n", [2, AT_ONCE + 2])
def test_the_figures_of_made_moments_are_exact(n: int) -> None:
    found = Channels.of(*moments(n))
    assert found.signal == pytest.approx([0.01, 0.8, 0.11 / 1.01, 0.05 / 0.55], rel=1e-5)
    expected = [0.5 * (a2 + v - 1 - math.log(v)) for a2, v in ((0.01, 0.99), (1.0, 0.25), (0.11, 0.9), (0.05, 0.5))]
    assert found.kl == pytest.approx(expected, rel=1e-4)
    assert sum(found.kl) / 4 == pytest.approx(float(kl_divergence(moments(n)).mean()), rel=1e-4)
    assert found.dead == [0, 3]
    assert found.as_json()["dead_latent_channels"] == 2
    assert found.summary(pretrained=False) == {
        "dead latent channels": "2 of 4 (0, 3): lower train_vae.kl_weight or train_vae.latent_channels"
    }


def test_an_offset_of_the_means_is_no_signal_and_channels_that_live_need_no_remedy() -> None:
    mean, logvar = moments(4)
    assert Channels.of(mean + 3, logvar).dead == [0, 3]
    assert Channels.of(mean[:, 1:2], logvar[:, 1:2]).summary(False) == {"dead latent channels": "0 of 1"}


def test_the_map_fitted_on_samples_gives_dead_channels_next_to_no_weight() -> None:
    """Means of a dead channel tell a trace of the picture: fitted on them its weight would be the largest."""
    draw = generator(0, "map")
    pictures = torch.rand(400, 3, 8, 8, generator=draw) * 2 - 1
    small = torch.nn.functional.avg_pool2d(pictures, 2)
    mean = torch.cat([small + 0.3 * torch.randn(small.shape, generator=draw), 0.05 * small[:, :1]], dim=1)
    logvar = torch.tensor([0.01, 0.01, 0.01, 0.98]).log().view(1, 4, 1, 1).expand_as(mean)
    assert Channels.of(mean, logvar).dead == [3]
    samples = Latents(mean, logvar, 1.0).sample(torch.arange(400), torch.randn(mean.shape, generator=draw))
    on_samples, on_means = (PreviewMap.fit(x, pictures) for x in (samples, mean))
    assert float(on_means.weight[:, 3].abs().max()) > 1
    assert float(on_samples.weight[:, 3].abs().max()) < 0.05
    assert on_samples.psnr(samples, pictures) > on_means.psnr(samples, pictures) + 3
