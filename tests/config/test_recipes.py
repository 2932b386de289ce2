"""Every recipe is sound, complete, and its networks can be built."""

import os
import shutil
import subprocess
from pathlib import Path

import pytest
import torch

from darkroom.config.autoencoder import TrainedVAE
from darkroom.config.merging import complete_text
from darkroom.config.networks import UNet2DCondition
from darkroom.config.params import load as params
from darkroom.config.params import problems
from darkroom.config.text_encoder import TextEncoder, TrainedTextEncoder
from darkroom.data.manifest import Manifest, scan
from darkroom.data.sources.base import OutsideSource
from darkroom.data.sources.scenes import ScenesSource
from darkroom.data.sources.torchvision_sets import Torchvision
from darkroom.nn.autoencoder.discriminator import DiscriminatorConfig
from darkroom.nn.autoencoder.vae import AutoencoderKLConfig
from darkroom.nn.denoiser.kinds import build
from darkroom.nn.denoiser.shapes import denoiser
from darkroom.nn.denoiser.unet import UNetConfig
from darkroom.nn.judge.conv_tower import ConvTowerConfig
from darkroom.nn.text.clip import CLIPTextConfig

ROOT = Path(__file__).parents[2]
YOUR_OWN_DATA = {  # whose manifest `darkroom data scan` writes
    "captioned",
    "fashion-ddpm",
    "photos-ddpm",
    "photos-ddpm-small",
    "sd15-finetune",
    "sd15-finetune-tiny",
}
PARAMETERS = {  # of the denoisers, as published
    "fashion-ddpm": 606_852,
    "mnist-score-concat": 1_115_425,
    "mnist-score-residual": 1_022_977,
    "mnist-score-transformer": 2_045_185,
    "photos-ddpm": 62_438_883,
}
RECIPES = sorted((ROOT / "recipes").glob("*.yaml"))


@pytest.mark.parametrize("file", RECIPES, ids=lambda file: file.stem)
def test_a_recipe_is_sound_and_says_what_it_is_for(file: Path) -> None:
    assert problems(file) == []
    first = file.read_text(encoding="utf-8").splitlines()[0]
    assert first.startswith("# ")
    assert len(first) > 30


def test_the_default_recipe_is_the_params_file() -> None:
    if shutil.which("git") and (ROOT / ".git").exists():
        changed = subprocess.run(["git", "diff", "--quiet", "HEAD", "--", "params.yaml"], cwd=ROOT, check=False)
        if changed.returncode:
            pytest.skip("params.yaml has changes of your own")
    assert (ROOT / "params.yaml").read_bytes() == complete_text(ROOT / "recipes" / "scenes.yaml").encode()


@pytest.mark.parametrize("file", RECIPES, ids=lambda file: file.stem)
def test_the_networks_of_a_recipe_can_be_built(file: Path) -> None:
    """The networks check their own shapes; a params file must be refused before they would be."""
    p = params(file)
    v, t, u, channels = p.train_vae, p.setup_text_encoder, p.train_unet.unet, p.prepare_data.channels
    if isinstance(v, TrainedVAE):
        AutoencoderKLConfig(channels, channels, **v.autoencoder.model_dump())
        if v.adversarial is not None:
            DiscriminatorConfig(channels, v.adversarial.channels, v.adversarial.n_layers)
    trained = t if isinstance(t, TrainedTextEncoder) else p.train_evaluator
    if u.kind == "unet_2d_condition":
        _check_unet(u, trained.text.hidden_size)
    for shape in (trained, p.train_evaluator):
        ConvTowerConfig(channels, shape.image.width, shape.image.depth)
        assert _text(shape.text).hidden_size == shape.text.hidden_size


@pytest.mark.parametrize("name", PARAMETERS)
def test_the_denoiser_of_a_published_system_has_the_published_number_of_weights(name: str) -> None:
    p = params(ROOT / "recipes" / f"{name}.yaml")
    classes = [str(i) for i in range(10)] if p.setup_text_encoder.kind == "class" else []
    latent = (p.prepare_data.channels, p.prepare_data.image_size, p.prepare_data.image_size)
    with torch.device("meta"):
        network = build(denoiser(p.train_unet, latent, None, len(classes)))
    assert sum(weight.numel() for weight in network.parameters()) == PARAMETERS[name]


def _check_unet(u: UNet2DCondition, cross_attention_dim: int) -> None:
    unet = UNetConfig(
        down_block_types=tuple(u.down_block_types),
        up_block_types=tuple(u.up_block_types),
        block_out_channels=tuple(u.block_out_channels),
        layers_per_block=u.layers_per_block,
        cross_attention_dim=cross_attention_dim,
        attention_head_dim=u.attention_head_dim,
        transformer_layers_per_block=u.transformer_layers_per_block,
        norm_num_groups=u.norm_num_groups,
    )
    assert unet.heads == (u.attention_head_dim,) * len(u.block_out_channels)


def _text(t: TextEncoder) -> CLIPTextConfig:
    return CLIPTextConfig(
        vocab_size=t.vocab_size,
        hidden_size=t.hidden_size,
        intermediate_size=t.intermediate_size,
        num_hidden_layers=t.num_hidden_layers,
        num_attention_heads=t.num_attention_heads,
        max_position_embeddings=t.max_length,
        bos_token_id=t.vocab_size - 2,
        eos_token_id=t.vocab_size - 1,
        pad_token_id=t.vocab_size - 1,
    )


@pytest.mark.parametrize("file", RECIPES, ids=lambda file: file.stem)
def test_a_recipe_asks_for_no_more_than_its_data_have(file: Path) -> None:
    p = params(file)
    source = p.prepare_data.source
    if isinstance(source, ScenesSource):
        assert p.evaluate.n_test <= source.n_test
        assert p.evaluate.n_novel <= source.n_novel
        assert p.train_unet.held_out <= source.n_validation
    elif isinstance(source, OutsideSource):
        assert p.evaluate.n_novel == 0
        manifest = source.manifest_file
        assert manifest is not None
        if file.stem not in YOUR_OWN_DATA:
            assert Manifest.load(ROOT / manifest).files


def test_the_manifest_of_mnist_is_that_of_the_real_files() -> None:
    root = os.environ.get("DARKROOM_DATA")
    if not root or not (Path(root) / "MNIST").is_dir():
        pytest.skip("DARKROOM_DATA names no folder with MNIST")
    source = params(ROOT / "recipes" / "mnist.yaml").prepare_data.source
    assert isinstance(source, OutsideSource)
    assert source.manifest is not None
    files = Torchvision("MNIST", source.root, "", download=False).files
    committed = Manifest.load(ROOT / source.manifest)
    assert scan(files, committed.path) == committed
