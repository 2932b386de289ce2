"""Bad files: one line each that says what it is, exit status 1, and nothing written."""

import json
import os
import pickle
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from darkroom.core.artifact import load_tensors, save_tensors
from darkroom.core.errors import DarkroomError
from darkroom.interop.checkpoint import open_checkpoint
from darkroom.interop.source import read_model

UNET, VAE, TEXT = "model.diffusion_model.", "first_stage_model.", "cond_stage_model.transformer.text_model."


class Attack:
    """Would write a file when unpickled."""

    def __init__(self, proof: Path) -> None:
        self.proof = proof

    def __reduce__(self) -> Any:
        return Path.touch, (self.proof,)


def only(tensors: dict[str, Tensor], *prefixes: str) -> dict[str, Tensor]:
    return {key: value for key, value in tensors.items() if key.startswith(prefixes)}


def renamed(tensors: dict[str, Tensor], old: str, new: str) -> dict[str, Tensor]:
    return {key.replace(old, new): value for key, value in tensors.items()}


EDITS: dict[str, tuple[Callable[[dict[str, Tensor]], dict[str, Tensor]], str]] = {
    "sdxl": (
        lambda t: renamed(t, "cond_stage_model.", "conditioner.embedders.0."),
        "is a Stable Diffusion XL checkpoint",
    ),
    "sd 2": (lambda t: renamed(t, TEXT, "cond_stage_model.model."), "is a Stable Diffusion 2.x checkpoint"),
    "flux": (lambda t: {"double_blocks.0.img_attn.qkv.weight": torch.ones(2)}, "is a Flux checkpoint"),
    "lora": (lambda t: {"lora_unet_down.weight": torch.ones(2)}, "is a LoRA"),
    "an autoencoder": (lambda t: renamed(only(t, VAE), VAE, ""), "is an autoencoder alone"),
    "without text encoder": (lambda t: only(t, UNET, VAE), "holds no text encoder"),
    "something else": (
        lambda t: {"fc.weight": torch.ones(2)},
        "is not a Stable Diffusion 1.x model: it holds no U-Net",
    ),
    "a key missing": (
        lambda t: {k: v for k, v in t.items() if k != f"{UNET}out.2.bias"},
        f"1 missing ({UNET}out.2.bias)",
    ),
    "a key too many": (lambda t: {**t, f"{UNET}out.3.bias": torch.ones(2)}, f"1 unexpected ({UNET}out.3.bias)"),
    "a stranger": (
        lambda t: {**t, "another.bias": torch.ones(2)},
        "1 keys are not of Stable Diffusion 1.x (another.bias)",
    ),
    "another shape": (
        lambda t: {**t, f"{UNET}out.2.bias": torch.ones(5)},
        f"1 of another shape ({UNET}out.2.bias is [5], not [4])",
    ),
    "inpainting": (
        lambda t: {**t, f"{UNET}input_blocks.0.0.weight": torch.ones(32, 9, 3, 3)},
        "in_channels = 9, but out_channels = 4; networks for inpainting",
    ),
    "a variance predicted too": (
        lambda t: {**t, f"{UNET}out.2.weight": torch.ones(8, 32, 3, 3), f"{UNET}out.2.bias": torch.ones(8)},
        "in_channels = 4, but out_channels = 8",
    ),
    "whole numbers": (
        lambda t: {**t, f"{UNET}out.2.bias": torch.ones(4, dtype=torch.int32)},
        "conv_out.bias is of type int32",
    ),
}


@pytest.mark.parametrize(("edit", "message"), EDITS.values(), ids=EDITS)
def test_another_kind_of_model_is_named(
    edit: Callable[[dict[str, Tensor]], dict[str, Tensor]],
    message: str,
    tiny: Path,
    tmp_path: Path,
    command: Callable[..., tuple[int, str]],
) -> None:
    file, destination = tmp_path / "model.safetensors", tmp_path / "imported"
    save_tensors(file, edit(load_tensors(tiny)))
    status, said = command("import", str(file), str(destination), "--tokenizer", str(tiny.parent / "tokenizer"))
    assert status == 1
    assert message.replace("conv_out", f"{UNET}out.2") in said
    assert (said.count("\n"), "Traceback" in said) == (1, False)
    assert not destination.exists()


def test_damaged_and_disguised_files_are_refused_and_run_nothing(
    tiny: Path, tmp_path: Path, command: Callable[..., tuple[int, str]]
) -> None:
    proof, whole = tmp_path / "proof", tiny.read_bytes()
    (tmp_path / "short.safetensors").write_bytes(whole[: len(whole) // 2])
    (tmp_path / "torn.safetensors").write_bytes(b"\xff" * 100)
    (tmp_path / "empty.safetensors").write_bytes(b"")
    (tmp_path / "disguise.safetensors").write_bytes(pickle.dumps({"state_dict": Attack(proof)}))
    torch.save({"weight": torch.ones(1)}, tmp_path / "zip.safetensors")
    torch.save({"state_dict": {"weight": torch.ones(1)}, "more": Attack(proof)}, tmp_path / "code.ckpt")
    (tmp_path / "old.ckpt").write_bytes(pickle.dumps(Attack(proof)))
    torch.save({"state_dict": {}}, tmp_path / "nothing.ckpt")
    torch.save([1, 2], tmp_path / "list.ckpt")
    (tmp_path / "short.ckpt").write_bytes((tmp_path / "code.ckpt").read_bytes()[:300])
    (tmp_path / "notes.txt").write_text("no model")
    (tmp_path / "folder").mkdir()
    for name, message in {
        "short.safetensors": "not a readable safetensors file",
        "torn.safetensors": "not a readable safetensors file",
        "empty.safetensors": "not a readable safetensors file",
        "disguise.safetensors": "is a pickle that calls itself safetensors",
        "zip.safetensors": "is a pickle that calls itself safetensors",
        "code.ckpt": "which is never run; fetch the model as .safetensors",
        "old.ckpt": "holds more than weights, which is never read",
        "nothing.ckpt": "holds no weights",
        "list.ckpt": "holds no weights",
        "short.ckpt": "not a readable checkpoint",
        "notes.txt": "neither .safetensors nor .ckpt by its name",
        "gone.safetensors": "no such file or folder",
        "folder": "holds no model_index.json, so it is not a diffusers folder",
    }.items():
        status, said = command("import", str(tmp_path / name), str(tmp_path / "out"))
        assert (status, said.count("\n"), "Traceback" in said) == (1, 1, False), said
        assert message in said, said
        assert str(tmp_path / name) in said
    assert not proof.exists()
    assert not (tmp_path / "out").exists()


FOLDERS = {
    "another class": (
        "unet/config.json",
        {"_class_name": "UNet2DModel"},
        "_class_name = 'UNet2DModel' is not supported",
    ),
    "another block": (
        "unet/config.json",
        {"down_block_types": ["X", "DownBlock2D"]},
        "down_block_types.0 = 'X': give DownBlock2D",
    ),
    "time scale": (
        "unet/config.json",
        {"resnet_time_scale_shift": "scale_shift"},
        "resnet_time_scale_shift = 'scale_shift'",
    ),
    "sdxl": (
        "unet/config.json",
        {"addition_embed_type": "text_time"},
        "addition_embed_type = 'text_time' is not supported",
    ),
    "levels of other context": (
        "unet/config.json",
        {"cross_attention_dim": [1, 2]},
        "cross_attention_dim = [1, 2] differs",
    ),
    "unequal levels": ("unet/config.json", {"layers_per_block": [1, 2]}, "layers_per_block = [1, 2] differs by level"),
    "a key of the future": ("unet/config.json", {"warp_speed": 9}, "warp_speed = 9 is not known here"),
    "wider": ("unet/config.json", {"block_out_channels": [32, 96]}, "of another shape"),
    "shifted latents": ("vae/config.json", {"shift_factor": 0.1}, "shift_factor = 0.1 is not supported"),
    "no factor": ("vae/config.json", {"scaling_factor": "big"}, "scaling_factor = 'big'"),
    "another activation": ("text_encoder/config.json", {"hidden_act": "relu"}, "hidden_act = 'relu'"),
    "another text encoder": ("text_encoder/config.json", {"model_type": "t5"}, "model_type = 't5' is not supported"),
    "flow": (
        "scheduler/scheduler_config.json",
        {"_class_name": "FlowMatchEulerDiscreteScheduler"},
        "_class_name = 'FlowMatchEulerDiscreteScheduler' is not supported, only DDIMScheduler",
    ),
    "clipping": ("scheduler/scheduler_config.json", {"clip_sample": True}, "clip_sample = True is not supported"),
    "zero snr": ("scheduler/scheduler_config.json", {"rescale_betas_zero_snr": True}, "rescale_betas_zero_snr = True"),
    "a kind of prediction": (
        "scheduler/scheduler_config.json",
        {"prediction_type": "flow"},
        "prediction_type = 'flow'",
    ),
    "runge-kutta": (
        "scheduler/scheduler_config.json",
        {"_class_name": "PNDMScheduler", "skip_prk_steps": False},
        "skip_prk_steps = False is not supported, only True",
    ),
    "runge-kutta, unsaid": (
        "scheduler/scheduler_config.json",
        {"_class_name": "PNDMScheduler"},
        "skip_prk_steps = False is not supported, only True",
    ),
    "learned variance": (
        "scheduler/scheduler_config.json",
        {"_class_name": "DDPMScheduler", "variance_type": "learned"},
        "variance_type = 'learned' is not supported, only fixed_small, fixed_large",
    ),
    **{
        f"linspace for {name}": (
            "scheduler/scheduler_config.json",
            {"_class_name": f"{name}Scheduler", "timestep_spacing": "linspace", "skip_prk_steps": True},
            f"timestep_spacing = 'linspace' is not supported with {name}Scheduler, whose steps are all of one whole "
            "length and do not lead from one of these times to the next; give trailing or leading",
        )
        for name in ("DDIM", "PNDM", "DDPM")
    },
    "karras for dpm": (
        "scheduler/scheduler_config.json",
        {"_class_name": "DPMSolverMultistepScheduler", "use_karras_sigmas": True},
        "use_karras_sigmas = True is not supported, only False",
    ),
    "clipped times": (
        "scheduler/scheduler_config.json",
        {"_class_name": "DPMSolverMultistepScheduler", "lambda_min_clipped": -5.1},
        "lambda_min_clipped = -5.1 is not supported, only -inf",
    ),
    "another pipeline": (
        "model_index.json",
        {"_class_name": "StableDiffusionXLPipeline"},
        "'StableDiffusionXLPipeline'",
    ),
}


@pytest.mark.parametrize(("file", "change", "message"), FOLDERS.values(), ids=FOLDERS)
def test_what_a_folder_says_and_we_cannot_do_is_refused_by_its_key(
    file: str, change: dict[str, Any], message: str, folder: Path
) -> None:
    (folder / file).write_text(json.dumps({**json.loads((folder / file).read_text()), **change}))
    with pytest.raises(DarkroomError) as caught:
        read_model(folder)
    assert message in str(caught.value)
    assert "\n" not in str(caught.value)
    assert str(folder) in str(caught.value)


def test_a_folder_that_is_not_whole_is_refused(folder: Path) -> None:
    (folder / "unet" / "diffusion_pytorch_model.safetensors").rename(folder / "unet" / "model.bin")
    with pytest.raises(DarkroomError, match=r"diffusion_pytorch_model\.safetensors: no such file"):
        read_model(folder)
    for file in (folder / "tokenizer").iterdir():
        file.unlink()
    with pytest.raises(DarkroomError, match="no tokenizer here"):
        read_model(folder)


def test_a_single_file_without_a_tokenizer_says_where_to_put_one(tiny: Path, tmp_path: Path) -> None:
    (tmp_path / "model.safetensors").write_bytes(tiny.read_bytes())
    with pytest.raises(DarkroomError, match=r"holds no tokenizer; put vocab\.json and merges\.txt.*tokenizer=FOLDER"):
        read_model(tmp_path / "model.safetensors")


def test_commands_overwrite_nothing_they_read(
    tiny: Path, folder: Path, command: Callable[..., tuple[int, str]]
) -> None:
    for arguments in (
        ("import", str(folder), str(folder)),
        ("import", str(tiny), str(tiny.parent)),
        ("import", str(tiny), str(folder), "--config", str(folder)),
        ("import", str(tiny), str(folder), "--tokenizer", str(folder / "tokenizer")),
        ("export", str(folder / "new"), "--pipeline", str(folder)),
    ):
        status, said = command(*arguments)
        assert status == 1
        assert "overlaps" in said
    assert read_model(folder).weights
    status, said = command("export", str(folder.parent / "out"), "--format", "single-file", "--pipeline", str(folder))
    assert (status, "give a name that ends in .safetensors" in said) == (1, True)


def test_commands_replace_models_and_nothing_else(
    tiny: Path, made_folder: Path, tmp_path: Path, command: Callable[..., tuple[int, str]]
) -> None:
    (tmp_path / "mine").mkdir()
    for kept in (tmp_path / "mine" / "config.json", tmp_path / "note"):
        kept.write_text("years of work")
    (tmp_path / "folder.safetensors").mkdir()
    single = ("--format", "single-file")
    for name, options, message in (
        ("mine", (), "is a folder of other files (no model_index.json, no pipeline.json), which would be lost"),
        ("note", (), "is a file; give another name"),
        ("folder.safetensors", single, "is a folder; give another name"),
    ):
        place = str(tmp_path / name)
        done = [command("export", place, *options, "--pipeline", str(made_folder))]
        if not options:
            done.append(command("import", str(tiny), place))
        for status, said in done:
            assert (status, said.count("\n"), "Traceback" in said) == (1, 1, False), said
            assert f"{place}: {message}" in said
    status, said = command("import", str(tiny), ".")
    assert (status, "would be replaced as a whole" in said) == (1, True)
    assert (tmp_path / "mine" / "config.json").read_text() == (tmp_path / "note").read_text() == "years of work"
    assert (tmp_path / "folder.safetensors").is_dir()

    (tmp_path / "empty").mkdir()
    for _ in ("into an empty folder", "over a model"):
        assert command("import", str(tiny), str(tmp_path / "empty"))[0] == 0
        assert command("export", str(tmp_path / "empty.safetensors"), *single, "--pipeline", str(made_folder))[0] == 0
    assert command("export", str(tmp_path / "empty"), "--pipeline", str(made_folder))[0] == 0
    assert not (tmp_path / "empty" / "pipeline.json").exists()


@pytest.mark.parametrize("how", ["another size", "another time", "another content", "gone"])
def test_a_file_that_changes_while_it_is_read_is_refused(how: str, tmp_path: Path) -> None:
    """Weights are read one by one; a model of two files' weights would be none."""
    file = tmp_path / "model.safetensors"
    save_tensors(file, {"a": torch.ones(2), "b": torch.full((2,), 2.0)})
    opened, state = open_checkpoint(file), file.stat()
    assert torch.equal(opened.read("a"), torch.ones(2))
    if how == "another size":
        save_tensors(file, {"a": torch.ones(2), "b": torch.zeros(3)})
        os.utime(file, ns=(state.st_atime_ns, state.st_mtime_ns))
    elif how == "another time":
        save_tensors(file, {"a": torch.ones(2), "b": torch.zeros(2)})
        os.utime(file, ns=(state.st_atime_ns, state.st_mtime_ns + 1))
    elif how == "another content":
        save_tensors(file, {"a": torch.ones(2), "c": torch.zeros(2)})
        os.utime(file, ns=(state.st_atime_ns, state.st_mtime_ns))
    else:
        file.unlink()
    with pytest.raises(DarkroomError, match=r"model\.safetensors: has changed since it was opened; .* begin again"):
        opened.read("b")


def test_what_was_read_does_not_change_with_the_file(tmp_path: Path) -> None:
    file = tmp_path / "model.safetensors"
    save_tensors(file, {"a": torch.ones(2)})
    found = open_checkpoint(file).read("a")
    with file.open("r+b") as place:  # in place, as a mapping would see it
        place.seek(-8, os.SEEK_END)
        place.write(bytes(8))
    assert torch.equal(found, torch.ones(2))
