"""The networks of a model that `darkroom import` took in, for the stages that go on with them."""

import logging
from pathlib import Path
from typing import Any

import torch

from darkroom.config.base import Precision
from darkroom.config.choices import PredictionType
from darkroom.config.denoisers import DenoiserSizes, UNet2DConditionConfig, UNetSpec
from darkroom.config.diffusion import ProcessConfig
from darkroom.config.networks import TextSpec
from darkroom.core.artifact import CONFIG, PIPELINE, REPRO, read_json
from darkroom.core.errors import DarkroomError
from darkroom.core.symlinks import check_inside
from darkroom.core.weights import DIFFUSERS_WEIGHTS, WEIGHTS, load_weights
from darkroom.data.tokenizer import CLIPTokenizer
from darkroom.interop.checkpoint import open_checkpoint
from darkroom.interop.configs import read_text_config, read_unet_config, read_vae_config
from darkroom.interop.model import build, weights_of
from darkroom.nn.autoencoder.vae import AutoencoderKL
from darkroom.nn.denoiser.unet import UNet2DConditionModel
from darkroom.nn.text.clip import CLIPTextModel

log = logging.getLogger("darkroom")


def check_imported(folder: Path) -> None:
    """Refuse a folder that is not a network of an imported model.

    Raises:
        DarkroomError: it is not, or a link leads out of the model's folder.
    """
    if not (folder.parent / PIPELINE).is_file():
        raise DarkroomError(
            f"{folder}: is not part of an imported model; take one in with darkroom import SOURCE {folder.parent}"
        )
    check_inside(folder.parent)


def read_pretrained_autoencoder(folder: Path, device: torch.device) -> tuple[AutoencoderKL, float]:
    """vae/ of an imported model, frozen, and the scaling factor it was made for.

    Raises:
        DarkroomError: the folder is not one, or its config.json states no scaling factor.
    """
    check_imported(folder)
    spec, factor = read_vae_config(folder)
    if read_json(folder / CONFIG).get("scaling_factor") is None:
        raise DarkroomError(
            f"{folder / CONFIG}: lacks scaling_factor, which latents are multiplied by; import the model again"
        )
    return load_weights(AutoencoderKL(spec.network, spec.sizes), folder / DIFFUSERS_WEIGHTS, device), factor


def read_pretrained_text_encoder(folder: Path, tokenizer: CLIPTokenizer, device: torch.device) -> CLIPTextModel:
    """text_encoder/ of an imported model, frozen.

    Raises:
        DarkroomError: the folder is not one.
    """
    check_imported(folder)
    spec = read_text_config(folder, tokenizer.bos_token_id, tokenizer.eos_token_id)
    return load_weights(CLIPTextModel(spec.network, spec.sizes), folder / WEIGHTS, device, prefix="text_model.")


def read_pretrained_unet(
    folder: Path,
    config: UNet2DConditionConfig,
    sizes: DenoiserSizes,
    device: torch.device,
    process: ProcessConfig,
    prediction_type: PredictionType,
    precision: Precision = "fp32",
) -> UNet2DConditionModel:
    """unet/ of an imported model, ready to be trained further, for latents of the side in `sizes`.

    A process or kind of prediction that is not the imported model's is warned of, no error:
    the network can learn another.

    Args:
        precision: in which its weights are kept, see `build`; bf16 for a network that is to stay as it is.

    Raises:
        DarkroomError: the folder is not one, or its network is not the one asked for; names the first key.
    """
    check_imported(folder)
    imported = read_unet_config(folder)
    for key, value in config:
        if (found := getattr(imported.network, key)) != value:
            raise DarkroomError(
                f"train_unet.unet.{key} = {value}, but train_unet.init_from = {folder} has {found}; they must agree"
            )
    for key, value in sizes:
        if key != "sample_size" and (found := getattr(imported.sizes, key)) != value:
            raise DarkroomError(
                f"train_unet.init_from = {folder} has {key} = {found}, but latents and conditions need {value}; they "
                "must agree"
            )
    spec = UNetSpec(network=config, sizes=sizes)
    network: UNet2DConditionModel = _read(spec, folder / DIFFUSERS_WEIGHTS, device, precision).stored()
    _compare(folder.parent / PIPELINE, process, prediction_type)
    return network.train().requires_grad_(True)


def read_text_encoder_to_adapt(folder: Path, device: torch.device, precision: Precision) -> CLIPTextModel:
    """artifacts/text_encoder, frozen; precision: see `build`.

    Raises:
        DarkroomError: a file is missing, torn, or of another kind.
    """
    spec = TextSpec.read(read_json(folder / CONFIG), str(folder / CONFIG), REPRO)
    network: CLIPTextModel = _read(spec, folder / WEIGHTS, device, precision)
    return network


def _read(spec: UNetSpec | TextSpec, file: Path, device: torch.device, precision: Precision) -> Any:
    """The network of a file under our own names, whose weights are read, rounded and laid out one by one."""
    check_inside(file.parent)
    opened = open_checkpoint(file)
    weights = weights_of(spec, opened, {key: key for key in opened.shapes}, opened.shapes)
    return build(spec, weights, device, precision, layout=torch.channels_last)


def _compare(file: Path, process: ProcessConfig, prediction_type: PredictionType) -> None:
    imported = read_json(file)
    theirs = imported.get("process") or {}
    pairs = {f"process.{key}": (value, theirs.get(key)) for key, value in process.model_dump().items()}
    pairs["objective.prediction_type"] = (prediction_type, imported.get("prediction_type"))
    for key, (value, found) in pairs.items():
        if value != found:
            log.warning("train_unet.%s = %r, but %s says %r; the network must learn it anew", key, value, file, found)
