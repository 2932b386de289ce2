"""Model folders name nothing outside themselves, neither by links nor by what their files say."""

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from darkroom import Pipeline
from darkroom.core.errors import DarkroomError
from darkroom.core.symlinks import check_inside
from darkroom.core.weights import load_weights
from darkroom.inference.folder import PipelineInfo
from darkroom.interop.configs import read_unet_config
from darkroom.interop.diffusers import folder_weights
from darkroom.interop.pretrained import check_imported
from darkroom.interop.source import read_model
from darkroom.interop.tokenizer import read_tokenizer
from tests.support import pipelines

WEIGHTS = "unet/diffusion_pytorch_model.safetensors"
CPU = torch.device("cpu")


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A pipeline that is a diffusers folder too. Leave it as it is."""
    made: Path = pipelines.assembled(tmp_path_factory.mktemp("made"))
    return made


@pytest.fixture
def folder(made: Path, tmp_path: Path) -> Path:
    """A copy of it to work in."""
    return Path(shutil.copytree(made, tmp_path / "model"))


def diffusers_only(folder: Path) -> Path:
    (folder / "pipeline.json").unlink()
    return folder


READERS: dict[str, tuple[str, Callable[[Path], Any]]] = {
    "a pipeline": (WEIGHTS, lambda f: Pipeline.from_pretrained(f, device="cpu")),
    "a pipeline's tokenizer": ("tokenizer/vocab.json", lambda f: Pipeline.from_pretrained(f, device="cpu")),
    "a pipeline's description": ("pipeline.json", PipelineInfo.read),
    "what is no part of it": ("notes.txt", PipelineInfo.read),
    "a diffusers folder": (WEIGHTS, lambda f: read_model(diffusers_only(f))),
    "its scheduler": ("scheduler/scheduler_config.json", lambda f: read_model(diffusers_only(f))),
    "a tokenizer": ("tokenizer/merges.txt", lambda f: read_tokenizer(f / "tokenizer")),
    "a network of other tools": (
        WEIGHTS,
        lambda f: folder_weights(read_unet_config(f / "unet"), f / "unet", Path(WEIGHTS).name),
    ),
    "a network of our own": (WEIGHTS, lambda f: load_weights(torch.nn.Linear(1, 1), f / WEIGHTS, CPU)),
    "an imported part": ("vae/config.json", lambda f: check_imported(f / "unet")),
}


@pytest.mark.parametrize(("name", "read"), READERS.values(), ids=READERS)
@pytest.mark.parametrize("relative", [True, False], ids=["relative", "absolute"])
def test_a_link_that_leads_out_is_refused(relative: bool, name: str, read: Callable[[Path], Any], folder: Path) -> None:
    outside = folder.parent / "secret"
    file = folder / name
    if file.exists():
        file.rename(outside)
    else:
        outside.write_text("secret")
    up = Path(*[".."] * len(Path(name).parts)) / outside.name
    file.symlink_to(up if relative else outside)
    with pytest.raises(DarkroomError) as caught:
        read(folder)
    assert f"{file}: is a link that leads out of {folder}" in str(caught.value)
    assert "\n" not in str(caught.value)


def test_a_folder_that_is_a_link_leads_out_too(folder: Path) -> None:
    (folder / "unet").rename(folder.parent / "elsewhere")
    (folder / "unet").symlink_to("../elsewhere")
    with pytest.raises(DarkroomError, match=r"model/unet: is a link that leads out of"):
        PipelineInfo.read(folder)


def test_links_in_a_circle_or_to_nothing_are_no_way_in(folder: Path) -> None:
    (folder / "circle").symlink_to("circle")
    check_inside(folder)
    (folder / "nothing").symlink_to("/nowhere/at/all")
    with pytest.raises(DarkroomError, match="nothing: is a link"):
        check_inside(folder)


def test_links_within_the_folder_and_to_the_folder_are_followed(folder: Path) -> None:
    (folder / "unet" / "copy").symlink_to("config.json")
    (folder.parent / "named").symlink_to("model")
    assert PipelineInfo.read(folder.parent / "named") == PipelineInfo.read(folder)


@pytest.mark.parametrize(
    "stored", ["blobs/" + "a" * 40, "blobs/" + "0" * 64, "cache/files/md5/ab/" + "c" * 30], ids=["git", "lfs", "dvc"]
)
def test_links_to_content_are_followed(stored: str, folder: Path) -> None:
    """As in Hugging Face's cache, and where DVC links into its own."""
    content = folder.parent / stored
    content.parent.mkdir(parents=True)
    (folder / WEIGHTS).rename(content)
    (folder / WEIGHTS).symlink_to(content)
    check_inside(folder)
    Pipeline.from_pretrained(folder, device="cpu")


@pytest.mark.parametrize("place", ["../secret", "/etc/passwd", "../../../../etc/passwd"])
def test_what_files_say_names_no_file(place: str, folder: Path, made: Path) -> None:
    """Paths in configurations and indexes are not followed: the model is the same, or not whole."""
    said: dict[str, dict[str, Any]] = {
        "model_index.json": {
            "_name_or_path": place,
            "unet": [place, "UNet2DConditionModel"],
            "vae": [place, "AutoencoderKL"],
        },
        "unet/config.json": {"_name_or_path": place},
        "vae/config.json": {"_name_or_path": place},
        "text_encoder/config.json": {"_name_or_path": place},
        "tokenizer/tokenizer_config.json": {"name_or_path": place, "tokenizer_file": place, "vocab_file": place},
    }
    for file, changes in said.items():
        values = json.loads((folder / file).read_text())
        (folder / file).write_text(json.dumps({**values, **changes}))
    expected = read_model(made)
    found = read_model(folder)
    assert (found.unet, found.vae, found.text) == (expected.unet, expected.vae, expected.text)
    assert [part.file.path for part in found.weights] == [
        folder / part.file.path.relative_to(made) for part in expected.weights
    ]
    (folder / WEIGHTS).unlink()
    with pytest.raises(
        DarkroomError, match=r"no such file; give a folder with its weights as \.safetensors in one file"
    ):
        read_model(folder)
    (folder / f"{WEIGHTS}.index.json").write_text(json.dumps({"weight_map": {"conv_in.weight": place}}))
    with pytest.raises(DarkroomError, match=r"index\.json: lists weights that lie in several files"):
        read_model(folder)


@pytest.mark.parametrize("place", ["../secret", "/etc/passwd"])
def test_a_place_instead_of_a_class_is_refused(place: str, folder: Path) -> None:
    values = json.loads((folder / "model_index.json").read_text())
    (folder / "model_index.json").write_text(json.dumps({**values, "vae": place}))
    with pytest.raises(DarkroomError, match=r"model_index\.json: vae = .* is not supported, only AutoencoderKL"):
        read_model(folder)
