"""What a diffusers folder brings is read, left aside by name, or refused; and what a model draws with travels."""

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch

from darkroom.core.artifact import load_tensors, save_tensors
from darkroom.core.errors import DarkroomError
from darkroom.inference.folder import PipelineInfo
from darkroom.inference.pipeline import Pipeline
from darkroom.interop.diffusers import write_folder
from darkroom.interop.source import read_model
from tests.support import pipelines
from tests.support.diffusion import make_sampling

ADDED = {"id": 999, "content": "<cat-toy>", "special": False, "lstrip": False, "rstrip": False, "normalized": True}
REFUSED: dict[str, tuple[str, Any, str]] = {
    "added tokens": ("tokenizer/added_tokens.json", {"<cat-toy>": 999}, "adds the token '<cat-toy>' (999)"),
    "added, newer": ("tokenizer/tokenizer_config.json", {"added_tokens_decoder": {"999": ADDED}}, "'<cat-toy>' (999)"),
    "added, whole": ("tokenizer/tokenizer.json", {"added_tokens": [ADDED]}, "'<cat-toy>' (999)"),
    "by name": ("tokenizer/special_tokens_map.json", {"additional_special_tokens": ["<x>"]}, "adds the token '<x>'"),
    "another pad": ("tokenizer/special_tokens_map.json", {"pad_token": "!"}, "pad_token = '!' is not supported"),
    "padded left": ("tokenizer/tokenizer_config.json", {"padding_side": "left"}, "padding_side = 'left'"),
    "another tokenizer": ("tokenizer/tokenizer_config.json", {"tokenizer_class": "T5Tokenizer"}, "tokenizer_class ="),
    "not lowered": ("tokenizer/tokenizer.json", {"normalizer": None}, "as other tokens than CLIP's tokenizer does"),
    "sharded": ("unet/diffusion_pytorch_model.safetensors.index.json", {}, "lists weights that lie in several files"),
    "a lora": ("pytorch_lora_weights.safetensors", None, "is a LoRA, which is not applied here"),
    "an adapter": ("text_encoder/adapter_config.json", {}, "is a LoRA, which is not applied here"),
    "an embedding": ("learned_embeds.safetensors", None, "holds words that were learned"),
    "a second encoder": ("model_index.json", {"text_encoder_2": ["transformers", "CLIPTextModel"]}, "text_encoder_2 ="),
    "another vae": ("model_index.json", {"vae": ["diffusers", "AutoencoderTiny"]}, "vae = ['diffusers', 'Autoenc"),
    "another scheduler": ("model_index.json", {"scheduler": ["diffusers", "PNDMScheduler"]}, "name one class in both"),
    "a key of the future": ("scheduler/scheduler_config.json", {"warp": 9}, "warp = 9 is not known here"),
    "betas in words": ("scheduler/scheduler_config.json", {"beta_end": "much"}, "beta_end = 'much': give a number"),
    "quantised": ("text_encoder/config.json", {"quantization_config": {"bits": 4}}, "quantization_config ="),
}


@pytest.mark.parametrize(("file", "change", "message"), REFUSED.values(), ids=REFUSED)
def test_what_would_change_the_pictures_is_refused_by_name(file: str, change: Any, message: str, folder: Path) -> None:
    """Catches: a folder that imports in silence and then reads prompts as other tokens, or without its LoRA."""
    path = folder / file
    if change is None:
        path.write_bytes(b"")
    else:
        path.write_text(json.dumps({**(json.loads(path.read_text()) if path.exists() else {}), **change}))
    with pytest.raises(DarkroomError) as caught:
        read_model(folder)
    assert message in str(caught.value)
    assert str(folder) in str(caught.value)
    assert "\n" not in str(caught.value)


def test_what_is_left_aside_is_named_and_what_a_system_left_is_not(
    folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("safety_checker/model.safetensors", "unet/diffusion_pytorch_model.bin", "v1.ckpt", "unet/.DS_Store",
                 "README.md", "strange/x", "vae/mystery.json"):  # fmt: skip
        (folder / name).parent.mkdir(exist_ok=True)
        (folder / name).write_bytes(b"")
    assert read_model(folder).aside == (
        "safety_checker/ (looks at finished pictures; none does so here)",
        "strange/ (not known here)",
        "unet/diffusion_pytorch_model.bin (other weights than those read)",
        "v1.ckpt (other weights than those read)",
        "vae/mystery.json (not known here)",
    )


@pytest.mark.parametrize("where", ["single", "folder", "ckpt"])
@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_weights_that_are_not_finite_are_refused_with_their_name(
    where: str, value: float, tiny: Path, folder: Path, tmp_path: Path, command: Callable[..., tuple[int, str]]
) -> None:
    """Catches: a decoder of NaN, which imported, drew a black picture, and exited with 0."""
    file, key = tiny, "first_stage_model.decoder.conv_out.bias"
    if where == "folder":
        file, key = folder / "vae" / "diffusion_pytorch_model.safetensors", "decoder.conv_out.bias"
    tensors = load_tensors(file)
    tensors[key][0] = value
    source = folder
    if where == "folder":
        save_tensors(file, tensors)
    elif where == "single":
        source = tmp_path / "bad.safetensors"
        save_tensors(source, {name: tensor.half() for name, tensor in tensors.items()})
    else:
        source = tmp_path / "bad.ckpt"
        torch.save({"state_dict": tensors}, source)
    words = () if where == "folder" else ("--tokenizer", str(tiny.parent / "tokenizer"))
    status, said = command("import", str(source), str(tmp_path / "out"), *words)
    assert (status, said.count("\n")) == (1, 1)
    assert f"{key} is not finite: 1 of its 3 numbers" in said
    assert not (tmp_path / "out").exists()


def test_how_a_model_is_drawn_travels_out_and_in(tmp_path: Path, command: Callable[..., tuple[int, str]]) -> None:
    """Catches: 12 steps that became 50 on the way; words that the model knows, left behind."""
    sampling = make_sampling("ddpm", 12, 2.5, "trailing", variance="beta", guidance_rescale=0.3)
    ours = pipelines.assembled(tmp_path / "ours", sampling=sampling, precision="bf16")
    for name in ("out", "again"):
        source = ours if name == "out" else tmp_path / "back"
        assert command("export", str(tmp_path / name), "--pipeline", str(source)) == (0, "")
        assert command("import", str(tmp_path / name), str(tmp_path / "back")) == (0, "")
        info = PipelineInfo.read(tmp_path / "back")
        assert (info.sampling, info.precision) == (sampling, "bf16")
        assert (tmp_path / "back" / "words.json").read_bytes() == (ours / "words.json").read_bytes()
        assert Pipeline.from_pretrained(tmp_path / name, device="cpu").info.sampling == sampling
        assert not (tmp_path / "back" / "darkroom.json").exists()


def test_a_scheduler_that_was_changed_since_says_how_steps_are_taken(made_folder: Path, tmp_path: Path) -> None:
    model = read_model(made_folder)
    write_folder(replace(model, sampling=model.sampling.changed(num_inference_steps=12)), tmp_path / "out")
    for file, change in (
        ("model_index.json", {"scheduler": ["diffusers", "EulerDiscreteScheduler"]}),
        ("scheduler/scheduler_config.json", {"_class_name": "EulerDiscreteScheduler"}),
    ):
        path = tmp_path / "out" / file
        path.write_text(json.dumps({**json.loads(path.read_text()), **change}))
    found = read_model(tmp_path / "out").sampling
    assert (found.sampler.kind, found.num_inference_steps) == ("euler", 12)


@pytest.mark.parametrize("file", ["model_index.json", "unet/config.json", "tokenizer/vocab.json", "darkroom.json"])
def test_the_remedy_for_a_torn_file_fits_whose_it_is(file: str, folder: Path) -> None:
    """Catches: "make it again with dvc repro" for a folder that no stage here ever made."""
    for torn in (b"{", b"[" * 100_000, b"\xff\xfe\x00", b""):
        (folder / file).write_bytes(torn)
        with pytest.raises(DarkroomError, match="not valid JSON") as caught:
            read_model(folder)
        assert "dvc" not in str(caught.value)
        assert "fetch" in str(caught.value)


def test_configurations_with_a_byte_order_mark_are_read(folder: Path) -> None:
    for file in folder.rglob("*.json"):
        if file.name != "tokenizer.json":  # which a library reads
            file.write_bytes(b"\xef\xbb\xbf" + file.read_bytes().replace(b"\n", b"\r\n"))
    assert read_model(folder).parts
