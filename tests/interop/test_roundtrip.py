"""Both directions, to the bit: files, folders, number types, and what diffusers makes of them."""

import hashlib
import json
import shutil
import sys
from collections.abc import Callable
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
import torch
from torch import Tensor

from darkroom.core.artifact import content_hash, load_tensors, save_tensors
from darkroom.core.errors import DarkroomError
from darkroom.inference.folder import PipelineInfo, write_imported
from darkroom.inference.pipeline import Pipeline
from darkroom.interop.diffusers import read_vae, write_folder
from darkroom.interop.model import Weights
from darkroom.interop.single_file import unsaid, write_single_file
from darkroom.interop.source import read_model
from tests.support import pipelines
from tests.support.diffusion import make_sampling


def numbers(weights: Weights) -> dict[str, Tensor]:
    return {key: weights.tensor(key) for key in weights.keys}


def same(ours: dict[str, Tensor], theirs: dict[str, Tensor]) -> bool:
    theirs = {key.removeprefix("text_model."): value for key, value in theirs.items()}
    return ours.keys() == theirs.keys() and all(torch.equal(ours[key], theirs[key]) for key in ours)


def bytes_of(folder: Path) -> dict[str, str]:
    """{path in the folder: hash} of the weights of its three networks."""
    files = {file.relative_to(folder).as_posix(): file for file in folder.rglob("*.safetensors")}
    assert {name.split("/")[0] for name in files} == {"unet", "vae", "text_encoder"}
    return {name: hashlib.sha256(file.read_bytes()).hexdigest() for name, file in files.items()}


@pytest.mark.parametrize("dtype", ["fp32", "fp16", "bf16"])
def test_export_import_export_is_the_same_to_the_byte(tiny: Path, tmp_path: Path, dtype: Any) -> None:
    words = tiny.parent / "tokenizer"
    write_single_file(read_model(tiny), tmp_path / "one.safetensors", dtype)
    write_imported(read_model(tmp_path / "one.safetensors", words), tmp_path / "one.safetensors", tmp_path / "imported")
    write_single_file(read_model(tmp_path / "imported"), tmp_path / "two.safetensors", dtype)
    assert (tmp_path / "one.safetensors").read_bytes() == (tmp_path / "two.safetensors").read_bytes()
    write_folder(read_model(tmp_path / "imported"), tmp_path / "first", dtype)
    write_imported(read_model(tmp_path / "first"), tmp_path / "first", tmp_path / "again")
    write_folder(read_model(tmp_path / "again"), tmp_path / "second", dtype)
    assert content_hash(tmp_path / "first") == content_hash(tmp_path / "second")
    assert bytes_of(tmp_path / "first") == bytes_of(tmp_path / "second")


def test_what_is_exported_as_fp16_is_half_as_large_and_comes_back_as_fp32(tiny: Path, tmp_path: Path) -> None:
    model = read_model(tiny)
    write_single_file(model, tmp_path / "half.safetensors", "fp16")
    held = load_tensors(tmp_path / "half.safetensors")
    assert {value.dtype for value in held.values()} == {torch.float16}
    back = read_model(tmp_path / "half.safetensors", tiny.parent / "tokenizer")
    for before, after in zip(model.parts, back.parts, strict=True):
        for key in before.keys:
            assert after.tensor(key).dtype == torch.float32
            assert torch.equal(after.tensor(key), before.tensor(key).half().float())


def test_a_weight_beyond_fp16_is_not_exported_as_infinity(tiny: Path, tmp_path: Path) -> None:
    tensors = load_tensors(tiny)
    tensors["model.diffusion_model.out.2.bias"] = torch.full_like(tensors["model.diffusion_model.out.2.bias"], 1e6)
    save_tensors(tmp_path / "model.safetensors", tensors)
    model = read_model(tmp_path / "model.safetensors", tiny.parent / "tokenizer")
    with pytest.raises(DarkroomError, match=r"conv_out\.bias is too large for fp16; export with --dtype bf16"):
        write_folder(model, tmp_path / "folder", "fp16")


def test_the_averaged_copy_and_the_schedule_of_a_published_file_are_passed_over(tiny: Path) -> None:
    held = load_tensors(tiny)
    model = read_model(tiny)
    read = {name for part in model.parts for name in part.keys.values()}
    assert len(held) > 1.3 * len(read)
    assert all(name.startswith(("model.diffusion_model.", "first_stage_model.", "cond_stage_model.")) for name in read)
    stem = held["model.diffusion_model.input_blocks.0.0.weight"]
    assert torch.equal(model.unet_weights.tensor("conv_in.weight"), stem)


def test_a_ckpt_is_the_same_model_as_its_safetensors(
    tiny: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As training wrote them: the weights in state_dict, and beside it a mention of a class that is not installed."""
    name, saved = "pytorch_lightning.callbacks.model_checkpoint", tmp_path / "model.ckpt"
    mentioned = type("ModelCheckpoint", (), {"__module__": name})
    with monkeypatch.context() as patch:
        for package in ("pytorch_lightning", "pytorch_lightning.callbacks", name):
            patch.setitem(sys.modules, package, ModuleType(package))
        patch.setattr(sys.modules[name], "ModelCheckpoint", mentioned, raising=False)
        callbacks = {mentioned: {"best_model_score": None}}
        torch.save({"state_dict": load_tensors(tiny), "global_step": 470000, "callbacks": callbacks}, saved)
    found, expected = read_model(saved, tiny.parent / "tokenizer"), read_model(tiny)
    assert found.unet == expected.unet
    for ours, theirs in zip(found.parts, expected.parts, strict=True):
        assert same(numbers(ours), numbers(theirs))


def test_diffusers_loads_the_folder_and_the_file_with_our_weights(
    diffusers: Any, transformers: Any, tiny: Path, made_folder: Path
) -> None:
    model = read_model(tiny)
    folder = diffusers.StableDiffusionPipeline.from_pretrained(made_folder, local_files_only=True)
    file = diffusers.StableDiffusionPipeline.from_single_file(str(tiny), config=str(made_folder), local_files_only=True)
    for theirs in (folder, file):
        for name, weights in zip(("unet", "vae", "text_encoder"), model.parts, strict=True):
            assert same(numbers(weights), getattr(theirs, name).state_dict())
        assert theirs.vae.config.scaling_factor == 0.18215
        assert theirs.scheduler.config.set_alpha_to_one is False
        assert theirs.scheduler.config.steps_offset == 1
        ids = theirs.tokenizer(["a small red circle"], padding="max_length", truncation=True).input_ids
        assert ids == model.tokenizer(["a small red circle"]).tolist()


def test_a_folder_that_diffusers_wrote_is_read_bit_by_bit(
    diffusers: Any, transformers: Any, made_folder: Path, tmp_path: Path
) -> None:
    theirs = diffusers.StableDiffusionPipeline.from_pretrained(made_folder, local_files_only=True)
    theirs.save_pretrained(tmp_path / "theirs")
    found, expected = read_model(tmp_path / "theirs"), read_model(made_folder)
    for key in ("unet", "vae", "text", "scaling_factor", "process", "prediction_type", "sampling"):
        assert getattr(found, key) == getattr(expected, key), key
    for ours, before in zip(found.parts, expected.parts, strict=True):
        assert same(numbers(ours), numbers(before))


def test_a_folder_as_published_is_read_in_spite_of_its_age(folder: Path, made_folder: Path) -> None:
    """Old names of the autoencoder's attention, position_ids, end token 2, configurations without new keys."""
    expected = read_model(made_folder)
    vae = load_tensors(folder / "vae" / "diffusion_pytorch_model.safetensors")
    old = {".to_q.": ".query.", ".to_k.": ".key.", ".to_v.": ".value.", ".to_out.0.": ".proj_attn."}
    for new, name in old.items():
        vae = {key.replace(new, name): value for key, value in vae.items()}
    save_tensors(folder / "vae" / "diffusion_pytorch_model.safetensors", vae)
    text = load_tensors(folder / "text_encoder" / "model.safetensors")
    text["text_model.embeddings.position_ids"] = torch.arange(77)[None]
    save_tensors(folder / "text_encoder" / "model.safetensors", text)
    (folder / "tokenizer" / "tokenizer_config.json").unlink()
    for file, change, gone in (
        ("text_encoder/config.json", {"bos_token_id": 0, "eos_token_id": 2, "pad_token_id": 1}, ()),
        ("vae/config.json", {}, ("scaling_factor",)),
        ("unet/config.json", {"center_input_sample": False}, ("num_class_embeds", "use_linear_projection")),
        ("scheduler/scheduler_config.json", {"_class_name": "PNDMScheduler", "skip_prk_steps": True}, ("clip_sample",)),
        ("model_index.json", {"scheduler": ["diffusers", "PNDMScheduler"]}, ()),
    ):
        values = {**json.loads((folder / file).read_text()), **change}
        (folder / file).write_text(json.dumps({key: value for key, value in values.items() if key not in gone}))
    found = read_model(folder)
    assert found.sampling.sampler.kind == "pndm"
    assert found.sampling.set_alpha_to_one is False
    assert (found.unet, found.vae, found.text) == (expected.unet, expected.vae, expected.text)
    assert (found.scaling_factor, found.tokenizer.max_length) == (0.18215, 77)
    for ours, before in zip(found.parts, expected.parts, strict=True):
        assert same(numbers(ours), numbers(before))


def test_file_folder_and_import_draw_the_same_picture(tiny: Path, made_folder: Path, tmp_path: Path) -> None:
    shutil.copytree(made_folder, tmp_path / "small")
    unet = tmp_path / "small" / "unet" / "config.json"
    unet.write_text(json.dumps({**json.loads(unet.read_text()), "sample_size": 8}))
    write_imported(read_model(tmp_path / "small"), tmp_path / "small", tmp_path / "imported")
    words = tiny.parent / "tokenizer"
    opened = [
        Pipeline.from_pretrained(tmp_path / "small", device="cpu"),
        Pipeline.from_pretrained(tmp_path / "imported", device="cpu"),
        Pipeline.from_pretrained(tiny, device="cpu", tokenizer=words, config=tmp_path / "small"),
    ]
    assert Pipeline.from_pretrained(tiny, device="cpu").info.image_size == 512
    pictures = [p.text_to_image("a small red circle", num_inference_steps=2).tensor for p in opened]
    assert pictures[0].shape == (1, 3, 32, 32)
    assert pictures[0].float().std() > 1
    assert torch.equal(pictures[0], pictures[1])
    assert torch.equal(pictures[0], pictures[2])


def test_our_own_pipeline_travels_to_a_folder_and_back(tmp_path: Path) -> None:
    ours = pipelines.assembled(tmp_path / "ours")
    write_folder(read_model(ours), tmp_path / "out")
    write_imported(read_model(tmp_path / "out"), tmp_path / "out", tmp_path / "back")
    assert bytes_of(ours) == bytes_of(tmp_path / "back")
    before, after = PipelineInfo.read(ours), PipelineInfo.read(tmp_path / "back")
    for key in ("process", "prediction_type", "scaling_factor", "image_size", "channels", "condition"):
        assert getattr(before, key) == getattr(after, key), key
    assert unsaid(read_model(ours))[0].startswith("process.schedule = ")


@pytest.mark.parametrize(
    ("how", "message"),
    [
        ({"kind": "class"}, r"condition\.kind = 'class': diffusers' pipeline has only 'text'"),
        ({"null": "zeros"}, r"condition\.null = 'zeros'"),
        ({"autoencoder": "identity"}, "autoencoder = 'identity'"),
        (
            {"sampling": make_sampling("ddim", 4, 3.0, "linspace")},
            r"pipeline\.json: sampling\.spacing = 'linspace' would be taken by DDIMScheduler, .*; draw with trailing",
        ),
        (
            {"sampling": make_sampling("heun", 4, 3.0, "leading")},
            r"pipeline\.json: sampling\.steps_offset = 0 becomes 1 in",
        ),
        ({"process": {"kind": "flow", "t_min": 0.001}}, r"process\.kind = 'flow': diffusers' pipeline has only 'vp'"),
        ({"prediction_type": "flow_prediction"}, "prediction_type = 'flow_prediction': diffusers' pipeline has only"),
    ],
)
def test_what_diffusers_cannot_express_is_named(
    how: dict[str, Any], message: str, tmp_path: Path, command: Callable[..., tuple[int, str]]
) -> None:
    ours = pipelines.assembled(tmp_path / "ours", **how)
    assert not (ours / "model_index.json").exists()
    status, said = command("export", str(tmp_path / "out"), "--pipeline", str(ours))
    assert status == 1
    with pytest.raises(DarkroomError, match=message):
        raise DarkroomError(said)
    assert not (tmp_path / "out").exists()


def test_a_shape_that_a_single_file_cannot_say_is_named(tmp_path: Path) -> None:
    with pytest.raises(DarkroomError, match=r"unet\.attention_head_dim = 2: a single file cannot say so"):
        write_single_file(read_model(pipelines.assembled(tmp_path)), tmp_path / "model.safetensors")


def test_the_encoder_is_read_when_it_is_first_needed(made_folder: Path) -> None:
    vae, _ = read_vae(made_folder / "vae", torch.device("cpu"))
    encoder = list(vae.encoder.parameters())
    assert all(p.is_meta for p in encoder)
    vae.decode(torch.zeros(1, 4, 4, 4))
    assert all(p.is_meta for p in vae.encoder.parameters())
    picture = torch.rand(1, 3, 32, 32)
    first = vae.encode(picture).mean
    assert not any(p.is_meta or p.requires_grad for p in vae.encoder.parameters())
    assert torch.equal(first, vae.encode(picture).mean)
    assert len(encoder) > 0
