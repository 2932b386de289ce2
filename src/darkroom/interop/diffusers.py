"""A Stable Diffusion 1.x model in a diffusers folder, read strictly and written for diffusers and transformers."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch

from darkroom.config.base import Precision
from darkroom.core.artifact import CONFIG, save_tensors, write_json
from darkroom.core.errors import DarkroomError
from darkroom.core.symlinks import check_inside
from darkroom.core.weights import DIFFUSERS_WEIGHTS, WEIGHTS
from darkroom.data.tokenizer import CLIPTokenizer
from darkroom.interop.checkpoint import open_checkpoint, some
from darkroom.interop.configs import (
    class_of,
    read_text_config,
    read_unet_config,
    read_vae_config,
    tagged,
    text_config,
    unet_config,
    vae_config,
)
from darkroom.interop.contents import INDEX, account, check_classes
from darkroom.interop.contents import WEIGHTS as WEIGHT_FILE
from darkroom.interop.defaults import Defaults
from darkroom.interop.lora import Adapter, merged
from darkroom.interop.model import Dtype, Model, Spec, Weights, build, build_vae, converted, weights_of
from darkroom.interop.names import modern
from darkroom.interop.scheduler import SCHEDULER, SCHEDULER_CONFIG, read_drawing, scheduler_config
from darkroom.interop.tokenizer import read_tokenizer
from darkroom.nn.autoencoder.vae import AutoencoderKL
from darkroom.nn.denoiser.unet import UNet2DConditionModel
from darkroom.nn.text.clip import CLIPTextModel

UNET, VAE, TEXT_ENCODER, TOKENIZER = "unet", "vae", "text_encoder", "tokenizer"
PIPELINE_CLASS = "StableDiffusionPipeline"
HALF = ".fp16"  # in the names of the files of a folder that is published in fp16 too
IGNORED = ("position_ids",)  # a buffer 0, 1, 2, … of older versions of transformers
TEXT_PREFIX = "text_model."  # transformers 5.6 and later read it with and without, earlier ones only with


def read_folder(folder: Path, tokenizer: Path | None = None) -> Model:
    """Everything but the weights themselves, which are checked and read when they are needed.

    Args:
        tokenizer: where it lies, in place of tokenizer/ in the folder.

    Raises:
        DarkroomError: a file is missing or torn, a configuration cannot be represented, weights do not fit it, or a
            link leads out of the folder.
    """
    if not folder.is_dir():
        raise DarkroomError(f"{folder}: no such folder; give a diffusers folder or a .safetensors or .ckpt file")
    if not (folder / INDEX).is_file():
        raise DarkroomError(f"{folder}: holds no {INDEX}, so it is not a diffusers folder of a whole model")
    check_inside(folder)
    tagged(folder / INDEX, (PIPELINE_CLASS,))
    aside = account(folder)
    words = read_tokenizer(tokenizer or folder / TOKENIZER)
    unet = read_unet_config(folder / UNET)
    vae, scaling_factor = read_vae_config(folder / VAE)
    text = read_text_config(folder / TEXT_ENCODER, words.bos_token_id, words.eos_token_id)
    if unet.sizes.cross_attention_dim is None:
        raise DarkroomError(f"{folder / UNET / CONFIG}: cross_attention_dim: a model without text is not read")
    process, prediction_type, drawn = read_drawing(folder)
    check_classes(folder / INDEX, folder / SCHEDULER / SCHEDULER_CONFIG)
    return Model(
        unet=unet,
        vae=vae,
        text=text,
        unet_weights=folder_weights(unet, folder / UNET, DIFFUSERS_WEIGHTS),
        vae_weights=folder_weights(vae, folder / VAE, DIFFUSERS_WEIGHTS),
        text_weights=folder_weights(text, folder / TEXT_ENCODER, WEIGHTS),
        tokenizer=words,
        scaling_factor=scaling_factor,
        process=process,
        prediction_type=prediction_type,
        sampling=drawn.sampling,
        precision=drawn.precision,
        aside=aside,
    )


def folder_weights(spec: Spec, folder: Path, name: str) -> Weights:
    """The weights in `folder`, checked against the spec; the fp16 file where there is no other."""
    check_inside(folder)
    file = folder / name
    half = file.with_suffix(f"{HALF}{file.suffix}")
    if not file.is_file() and half.is_file():
        file = half
    if not file.is_file():
        other = [found.name for found in sorted(folder.glob("*")) if WEIGHT_FILE.fullmatch(found.name)]
        raise DarkroomError(
            f"{file}: no such file{f', but {some(other)}' if other else ''}; give a folder with its weights as "
            ".safetensors in one file"
        )
    checkpoint = open_checkpoint(file)
    found = {key: shape for key, shape in checkpoint.shapes.items() if not key.endswith(IGNORED)}
    keys: dict[str, str] = {}
    for key in found:
        if modern(key) in keys:
            raise DarkroomError(f"{file}: {key} and {keys[modern(key)]} are the same weight; give it once")
        keys[modern(key)] = key
    return weights_of(spec, checkpoint, keys, found)


def read_unet(
    folder: Path, device: torch.device, precision: Precision, adapters: Sequence[Adapter] = ()
) -> UNet2DConditionModel:
    """A diffusers UNet2DConditionModel with adapters, frozen, on `device`; precision: see `build`."""
    spec = read_unet_config(folder)
    weights = merged(folder_weights(spec, folder, DIFFUSERS_WEIGHTS), adapters, "unet")
    network: UNet2DConditionModel = build(spec, weights, device, precision)
    return network


def read_vae(folder: Path, device: torch.device) -> tuple[AutoencoderKL, float]:
    """A diffusers AutoencoderKL, frozen, on `device`, and its scaling factor; see `build_vae`."""
    spec, scaling_factor = read_vae_config(folder)
    return build_vae(spec, folder_weights(spec, folder, DIFFUSERS_WEIGHTS), device), scaling_factor


def read_text_encoder(
    folder: Path, tokenizer: CLIPTokenizer, device: torch.device, adapters: Sequence[Adapter] = ()
) -> CLIPTextModel:
    """A transformers CLIPTextModel with adapters, frozen, on `device`."""
    spec = read_text_config(folder, tokenizer.bos_token_id, tokenizer.eos_token_id)
    weights = merged(folder_weights(spec, folder, WEIGHTS), adapters, "text_encoder")
    network: CLIPTextModel = build(spec, weights, device)
    return network


def write_folder(model: Model, folder: Path, dtype: Dtype = "fp32", *, defaults: bool = True) -> None:
    """Write to `folder` (which the caller makes appear whole) what StableDiffusionPipeline.from_pretrained loads.

    Args:
        defaults: whether a file of ours says how it is drawn; not beside a pipeline.json, which says so too.
    """
    folder.mkdir(parents=True, exist_ok=True)
    unet, vae = unet_config(model.unet), vae_config(model.vae, model.image_size, model.scaling_factor)
    write_network(folder / UNET, DIFFUSERS_WEIGHTS, unet, model.unet_weights, dtype)
    write_network(folder / VAE, DIFFUSERS_WEIGHTS, vae, model.vae_weights, dtype)
    write_network(folder / TEXT_ENCODER, WEIGHTS, text_config(model.text), model.text_weights, dtype, TEXT_PREFIX)
    model.tokenizer.write(folder / TOKENIZER)
    scheduler = scheduler_config(model.process, model.prediction_type, model.sampling)
    write_scheduler(folder, scheduler)
    if defaults:
        Defaults(model.sampling, model.precision).write(folder)


def write_network(
    folder: Path, name: str, config: dict[str, Any], weights: Weights, dtype: Dtype = "fp32", prefix: str = ""
) -> None:
    """One network's config.json and weights, whose names begin with `prefix`."""
    folder.mkdir(parents=True)
    file = weights.file.path
    tensors = {prefix + key: converted(weights.tensor(key), dtype, key, file) for key in weights.keys}
    save_tensors(folder / name, tensors)
    write_json(folder / CONFIG, config)


def write_scheduler(folder: Path, config: dict[str, Any]) -> None:
    """scheduler/ and model_index.json, which names the classes of all parts."""
    scheduler = {**config, **class_of(config["_class_name"])}
    write_json(folder / SCHEDULER / SCHEDULER_CONFIG, scheduler)
    index = {
        **class_of(PIPELINE_CLASS),
        UNET: ["diffusers", "UNet2DConditionModel"],
        VAE: ["diffusers", "AutoencoderKL"],
        TEXT_ENCODER: ["transformers", "CLIPTextModel"],
        TOKENIZER: ["transformers", "CLIPTokenizer"],
        SCHEDULER: ["diffusers", config["_class_name"]],
        "safety_checker": [None, None],
        "feature_extractor": [None, None],
        "image_encoder": [None, None],
        "requires_safety_checker": False,
    }
    write_json(folder / INDEX, index)
