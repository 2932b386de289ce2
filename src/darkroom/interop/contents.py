"""What a diffusers folder holds besides what is read: each file and each component is read, left aside for a reason
that is told, or refused by its name."""

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from darkroom.core.artifact import FETCH
from darkroom.core.errors import DarkroomError
from darkroom.core.system_files import left_by_system
from darkroom.core.text import printable
from darkroom.interop.configs import read_outside

INDEX = "model_index.json"
NETWORKS = "unet|vae|text_encoder"
PARTS = ("unet", "vae", "text_encoder", "tokenizer", "scheduler")
CLASSES = {
    "unet": ("UNet2DConditionModel",),
    "vae": ("AutoencoderKL",),
    "text_encoder": ("CLIPTextModel",),
    "tokenizer": ("CLIPTokenizer", "CLIPTokenizerFast"),
}
IDLE = {
    "safety_checker": "looks at finished pictures; none does so here",
    "feature_extractor": "serves the safety checker",
    "image_encoder": "is asked by adapters for pictures as prompts alone",
}
FLAGS = ("requires_safety_checker",)  # of model_index.json, about what is left aside

READ = re.compile(
    rf"model_index\.json|(?:{NETWORKS})/config\.json|(?:unet|vae)/diffusion_pytorch_model(?:\.fp16)?\.safetensors"
    r"|text_encoder/model(?:\.fp16)?\.safetensors|scheduler/scheduler_config\.json"
    r"|tokenizer/(?:vocab\.json|merges\.txt|tokenizer\.json|tokenizer_config\.json|special_tokens_map\.json"
    r"|added_tokens\.json|bpe_simple_vocab_16e6\.txt\.gz)"
    r"|darkroom\.json|pipeline\.json|provenance\.json|words\.json"
)
PAPERS = re.compile(
    r"(?:[^/]*/)?(?:LICEN[CS]E|README|NOTICE|[^/]*\.(?:md|txt|pdf|html|png|jpe?g|gif|webp))|\.git.*", re.I
)

# Changes what the model draws or how its text is understood, and is not done here: pattern, what it is, remedy.
REFUSED = (
    (
        r".*\.(?:safetensors|bin)\.index\.json",
        "lists weights that lie in several files, which are not put together here",
        "save the model again in one file each: save_pretrained(FOLDER, max_shard_size='100GB')",
    ),
    (
        r"(?:.*/)?(?:pytorch_lora_weights.*|adapter_config\.json|adapter_model\..*|[^/]*lora[^/]*\.(?:safetensors|bin|pt))",
        "is a LoRA, which is not applied here",
        "fuse it into the model (fuse_lora(), save_pretrained(FOLDER)), or remove it to go without",
    ),
    (
        r"(?:.*/)?(?:learned_embeds.*|[^/]*textual[_-]?inversion[^/]*\.(?:safetensors|bin|pt))",
        "holds words that were learned for this model, which are not read here",
        "remove it to go without them",
    ),
    (
        r"(?:unet|vae|text_encoder)/(?:quant[^/]*_config\.json|quantize_config\.json)",
        "says that weights are quantised, which are not read here",
        "fetch the model in fp32, fp16 or bf16",
    ),
)
WEIGHTS = re.compile(r".*\.(?:safetensors|bin|pt|pth|ckpt|msgpack|h5|onnx|onnx_data|pb|xml)")
WHY_OTHER, WHY_UNKNOWN = "other weights than those read", "not known here"


def account(folder: Path) -> tuple[str, ...]:
    """What of a diffusers folder is left aside, and why: a phrase each.

    Raises:
        DarkroomError: it holds what would change its pictures and is not done here; names it.
    """
    aside = dict[str, str]()
    _check_components(folder / INDEX)
    for name in _names(folder):
        for pattern, what, remedy in REFUSED:
            if re.fullmatch(pattern, name, re.IGNORECASE):
                raise DarkroomError(f"{folder / name}: {what}; {remedy}")
        top = name.partition("/")[0]
        if READ.fullmatch(name) or PAPERS.fullmatch(name):
            continue
        if top in IDLE and "/" in name:
            aside[f"{top}/"] = IDLE[top]
        elif "/" in name and top not in PARTS:
            aside[f"{top}/"] = WHY_UNKNOWN
        else:
            aside[name] = WHY_OTHER if WEIGHTS.fullmatch(name) else WHY_UNKNOWN
    return tuple(f"{name} ({why})" for name, why in aside.items())


def check_classes(index: Path, scheduler: Path) -> None:
    """Refuse a folder whose index names another scheduler than the scheduler's file: diffusers takes the index's.

    Raises:
        DarkroomError: names both.
    """
    listed = _json(index).get("scheduler")
    stated = listed[1] if isinstance(listed, list) and len(listed) == 2 else None
    found = _json(scheduler).get("_class_name")
    if stated is not None and stated != found:
        raise DarkroomError(
            f"{index}: scheduler = {printable(repr(stated))}, but {scheduler} is of {printable(repr(found))}; "
            "name one class in both"
        )


def _check_components(path: Path) -> None:
    """What model_index.json says the pipeline is made of."""
    for key, value in _json(path).items():
        if key.startswith("_") or key in FLAGS or key in IDLE or value in (None, False, [None, None]):
            continue
        if key not in PARTS:
            what = f"{printable(key)} = {printable(repr(value))}"
            raise DarkroomError(f"{path}: {what} is not part of a Stable Diffusion 1.x model; {FETCH}")
        if key in CLASSES and (not isinstance(value, list) or value[-1:] not in [[name] for name in CLASSES[key]]):
            raise DarkroomError(
                f"{path}: {key} = {printable(repr(value))} is not supported, only {', '.join(CLASSES[key])}"
            )


def _json(path: Path) -> dict[str, Any]:
    value = read_outside(path)
    return value if isinstance(value, dict) else {}


def _names(folder: Path) -> Iterator[str]:
    """The files of a folder, relative and POSIX, in order, without what systems leave."""
    for file in sorted(folder.rglob("*")):
        name = file.relative_to(folder)
        if file.is_file() and not left_by_system(name.parts):
            yield name.as_posix()
