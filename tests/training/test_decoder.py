"""The decoder of previews: of the latents' own autoencoder, gone between uses.

What these tests would catch: previews decoded by a foreign autoencoder, one that is replaced while the U-Net trains,
latents scaled twice or not at all, and a decoder that stays in memory or moves PyTorch's generator.
"""

import gc
from pathlib import Path

import pytest
import torch

from darkroom.core.artifact import provenance, write_json
from darkroom.core.errors import DarkroomError
from darkroom.core.rng import seeded
from darkroom.core.weights import DIFFUSERS_WEIGHTS, write_network
from darkroom.nn.autoencoder.vae import AutoencoderKL
from darkroom.training.decoder import LatentDecoder
from tests.support.networks import built, kl

CPU, VAE, LATENTS = torch.device("cpu"), Path("artifacts/vae"), Path("data/latents")


def write_vae(seed: int) -> AutoencoderKL:
    with seeded(seed, "vae"):
        vae: AutoencoderKL = built(kl((8, 8), groups=1)).eval()
    config = {"kind": "kl", "network": vae.config.model_dump(), "sizes": vae.sizes.model_dump(), "scaling_factor": None}
    write_network(VAE, DIFFUSERS_WEIGHTS, vae, config, {"inputs": {}})
    return vae


@pytest.fixture
def decoder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> tuple[LatentDecoder, AutoencoderKL]:
    monkeypatch.chdir(tmp_path)
    vae = write_vae(0)
    LATENTS.mkdir(parents=True)
    write_json(LATENTS / "provenance.json", provenance(VAE))
    return LatentDecoder(VAE, LATENTS, 0.5, CPU), vae


def test_it_decodes_scaled_latents_and_leaves_nothing_behind(decoder: tuple[LatentDecoder, AutoencoderKL]) -> None:
    decode, vae = decoder
    latents, before = torch.ones(3, 4, 4, 4), torch.get_rng_state()
    gc.collect()
    networks = sum(type(one) is AutoencoderKL for one in gc.get_objects())
    assert torch.equal(decode(latents), vae.decode(latents / 0.5))
    gc.collect()
    assert sum(type(one) is AutoencoderKL for one in gc.get_objects()) == networks
    assert torch.equal(torch.get_rng_state(), before)


def test_a_foreign_autoencoder_is_refused_at_the_start_and_later(decoder: tuple[LatentDecoder, AutoencoderKL]) -> None:
    write_vae(1)
    message = r"data/latents: was made from artifacts/vae \w+\.dir, but artifacts/vae is now .*dvc repro"
    with pytest.raises(DarkroomError, match=message):
        LatentDecoder(VAE, LATENTS, 0.5, CPU)
    with pytest.raises(DarkroomError, match=message):
        decoder[0](torch.ones(1, 4, 4, 4))
