"""Every recipe is sound, complete, and its networks can be built."""

import os
import shutil
import subprocess
from pathlib import Path

import pytest
import torch

from darkroom.config.autoencoder import TrainedVAE
from darkroom.config.denoisers import DenoiserSizes
from darkroom.config.merging import complete_text
from darkroom.config.networks import PictureSizes
from darkroom.config.params import load as params
from darkroom.config.params import problems
from darkroom.data.manifest import Manifest, scan
from darkroom.data.sources.base import OutsideSource
from darkroom.data.sources.scenes import ScenesSource
from darkroom.data.sources.torchvision_sets import Torchvision
from darkroom.nn.autoencoder.vae import AutoencoderKL
from darkroom.nn.denoiser.base import build

ROOT = Path(__file__).parents[2]
YOUR_OWN_DATA = {  # whose manifest `darkroom data scan` writes
    "captioned",
    "emoji",
    "scenes-lora",
    "sd15-lora",
    "sd15-lora-tiny",
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
    p = params(file)
    sizes = DenoiserSizes(in_channels=4, sample_size=4, cross_attention_dim=None, num_classes=None)
    with torch.device("meta"):
        if isinstance(p.train_vae, TrainedVAE):
            AutoencoderKL(p.train_vae.autoencoder, PictureSizes(in_channels=p.prepare_data.channels))
        if p.train_unet.unet.kind == "unet_2d_condition":
            build(p.train_unet.unet, sizes)


@pytest.mark.parametrize("name", PARAMETERS)
def test_the_denoiser_of_a_published_system_has_the_published_number_of_weights(name: str) -> None:
    p = params(ROOT / "recipes" / f"{name}.yaml")
    classes = 10 if p.setup_text_encoder.kind == "class" else None
    channels, side = p.prepare_data.channels, p.prepare_data.image_size
    sizes = DenoiserSizes(in_channels=channels, sample_size=side, cross_attention_dim=None, num_classes=classes)
    with torch.device("meta"):
        network = build(p.train_unet.unet, sizes)
    assert sum(weight.numel() for weight in network.parameters()) == PARAMETERS[name]


@pytest.mark.parametrize("file", RECIPES, ids=lambda file: file.stem)
def test_a_recipe_asks_for_no_more_than_its_data_have(file: Path) -> None:
    p = params(file)
    source = p.prepare_data.source
    if isinstance(source, ScenesSource):
        assert p.evaluate.n_test <= source.n_test
        assert p.evaluate.n_novel <= source.n_novel
        assert p.train_unet.held_out <= source.n_validation
    elif isinstance(source, OutsideSource):
        assert p.evaluate.n_novel == 0 or file.stem in ("emoji", "scenes-lora")  # whose scripts write a split novel
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
