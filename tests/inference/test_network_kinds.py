"""Pipelines whose denoiser is none of diffusers': the same weights, the same laws of drawing, sizes refused by name."""

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from PIL import Image

from darkroom.core.artifact import load_tensors
from darkroom.core.errors import DarkroomError
from darkroom.inference.folder import check_exportable
from darkroom.inference.pipeline import Pipeline
from darkroom.nn.layers.lora import halve
from tests.support.networks import batch_norm, built, layer_norm, score

WEIGHTS = "unet/diffusion_pytorch_model.safetensors"
HOW: dict[str, dict[str, Any]] = {
    "score_unet": {"network": score("residual", 20, 3), "kind": "none", "size": 20},
    "score_unet of classes": {"network": score("transformer", 20, 3, 3), "kind": "class", "size": 20},
    "layer_norm_unet": {"network": layer_norm(12, 3), "kind": "none", "size": 12},
    "batch_norm_unet": {"network": batch_norm(channels=3), "kind": "none", "size": 16},
}
FIXED = ("score_unet", "layer_norm_unet")
Make = Callable[..., Pipeline]


@pytest.fixture(params=HOW)
def pipeline(request: pytest.FixtureRequest, make: Make) -> Pipeline:
    return make(autoencoder="identity", **HOW[request.param])


def prompts(pipeline: Pipeline) -> list[str]:
    return (pipeline.info.condition.classes or [""] * 3)[:3]


def test_the_weights_are_those_of_the_artifact(pipeline: Pipeline) -> None:
    trained = load_tensors(pipeline.path.parent / WEIGHTS)
    found = pipeline.unet.state_dict()
    assert found.keys() == trained.keys()
    assert all(torch.equal(found[name], trained[name]) for name in trained)
    assert not pipeline.unet.training
    assert pipeline.unet.sizes.in_channels == 3


@pytest.mark.parametrize("how", HOW.values(), ids=HOW)
def test_weights_rounded_once_are_those_that_autocast_rounds_at_every_call(how: dict[str, Any]) -> None:
    """As a GPU holds them in bf16; would catch a weight that is also used as it is, outside of a product."""
    network = built(how["network"]).eval().requires_grad_(False)
    of, labels = network.sizes, torch.tensor([0, 2]) if how["kind"] == "class" else None
    for weight in network.parameters():  # zeros would hide what feeds them
        torch.nn.init.normal_(weight, std=0.1)
    x = torch.randn(2, of.in_channels, how["size"], how["size"])
    given = x, torch.tensor([20.0, 900.0]), None, labels
    with torch.no_grad(), torch.autocast("cpu", torch.bfloat16):
        expected = network(*given)
        assert torch.equal(halve(network)(*given), expected)
    assert any(weight.dtype == torch.bfloat16 for weight in network.parameters())


@pytest.mark.parametrize("how", HOW.values(), ids=HOW)
def test_no_call_reads_from_the_device(how: dict[str, Any]) -> None:
    """The meta device has no numbers to read; so the call can be recorded on a GPU."""
    network = built(how["network"]).to("meta").eval().requires_grad_(False)
    labels = torch.zeros(2, dtype=torch.int64, device="meta") if how["kind"] == "class" else None
    x = torch.empty(2, network.sizes.in_channels, how["size"], how["size"], device="meta")
    assert network(x, torch.empty(2, device="meta"), None, labels).shape == x.shape


def test_a_picture_depends_on_its_own_prompt_and_seed_and_not_on_its_batch(pipeline: Pipeline, apart: Any) -> None:
    how: dict[str, Any] = {"guidance_scale": 2.0, "sampler": "ddpm"}
    asked = prompts(pipeline)
    together = pipeline.text_to_image(asked, seeds=[0, 1, 2], **how).tensor
    side = pipeline.info.image_size
    assert together.shape == (3, 3, side, side)
    alone = torch.cat([pipeline.text_to_image(p, seeds=[s], **how).tensor for s, p in enumerate(asked)])
    assert apart(together, alone) <= 1
    assert apart(together[0], together[1]) > 20


def test_a_class_asked_for_is_drawn_otherwise_than_another(make: Make, apart: Any) -> None:
    drawn = (
        make(autoencoder="identity", **HOW["score_unet of classes"])
        .text_to_image(["zero", "two"], seeds=[0, 0], guidance_scale=1.0)
        .tensor
    )
    assert apart(drawn[0], drawn[1]) > 2


def test_other_sizes_are_drawn_or_refused_by_name(pipeline: Pipeline) -> None:
    asked, side = prompts(pipeline)[0], pipeline.info.image_size
    if pipeline.info.network not in FIXED:
        assert pipeline.text_to_image(asked, height=9).tensor.shape == (1, 3, 9, side)
        return
    with pytest.raises(DarkroomError, match=rf"height = 9: this model's network takes {side} x {side} pixels alone"):
        pipeline.text_to_image(asked, height=9)
    picture = Image.new("RGB", (side + 8, side))
    with pytest.raises(DarkroomError, match=rf"width = {side + 8}: this model's network takes {side} x {side} pixels"):
        pipeline.image_to_image(asked, picture)
    with pytest.raises(DarkroomError, match=rf"width = {side + 8}"):
        pipeline.inpaint(asked, picture, Image.new("L", picture.size))
    given = Image.new("RGB", (side, side), "gray")
    same = pipeline.image_to_image(asked, given, strength=0.0).tensor
    assert torch.equal(same, torch.full_like(same, 128))


def test_it_is_no_folder_of_diffusers_and_is_not_exported(pipeline: Pipeline) -> None:
    assert not pipeline.info.for_diffusers
    assert not (pipeline.path / "model_index.json").exists()
    with pytest.raises(DarkroomError, match=rf"network = '{pipeline.info.network}': diffusers' pipeline has only"):
        check_exportable(pipeline.path)


def test_what_does_not_belong_together_is_refused(make: Make, tmp_path: Path) -> None:
    folder = tmp_path / "copy"
    shutil.copytree(make(autoencoder="identity", **HOW["batch_norm_unet"]).path, folder)
    config, description = (json.loads((folder / name).read_text()) for name in ("unet/config.json", "pipeline.json"))
    for name, value, message in (
        (
            "unet/config.json",
            {**config, "network": {**config["network"], "widths": [8, 24]}},
            "the weights do not fit the network: 17 of another shape",
        ),
        ("unet/config.json", {**config, "network": {**config["network"], "depth": 1}}, "depth = 1 is an unknown key"),
        ("pipeline.json", {**description, "network": "score_unet"}, r"'batch_norm_unet', but pipeline\.json says"),
    ):
        before = (folder / name).read_text()
        (folder / name).write_text(json.dumps(value))
        with pytest.raises(DarkroomError, match=message):
            Pipeline.from_pretrained(folder, device="cpu")
        (folder / name).write_text(before)
    Pipeline.from_pretrained(folder, device="cpu")
