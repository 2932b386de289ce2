"""Starting the U-Net from imported weights."""

import logging
from pathlib import Path

import torch

from darkroom.config.choices import PredictionType
from darkroom.config.diffusion import ProcessConfig
from darkroom.core.artifact import CONFIG, PIPELINE, read_json
from darkroom.core.errors import DarkroomError
from darkroom.core.weights import DIFFUSERS_WEIGHTS, load_weights
from darkroom.nn.denoiser.unet import UNet2DConditionModel, UNetConfig
from darkroom.training.trained import imported_config, known

SHAPE = "train_unet.unet"
log = logging.getLogger("darkroom")


def read_pretrained_unet(
    folder: Path,
    wanted: UNetConfig,
    device: torch.device,
    process: ProcessConfig,
    prediction_type: PredictionType,
) -> UNet2DConditionModel:
    """unet/ of an imported model, ready to be trained further, for latents of the side that `wanted` has.

    A process or kind of prediction that is not the imported model's is warned of, no error:
    the network can learn another.

    Raises:
        DarkroomError: the folder is no such thing, or its network is not the one wanted; names the first key.
    """
    config = imported_config(folder)
    if config.get("_class_name") != "UNet2DConditionModel":
        found = config.get("_class_name")
        raise DarkroomError(f"{folder / CONFIG}: _class_name is {found!r}, not UNet2DConditionModel")
    shape = UNetConfig(**{**known(UNetConfig, config, folder), "sample_size": wanted.sample_size})
    for key, value in vars(wanted).items():
        if (found := getattr(shape, key)) != value:
            raise DarkroomError(
                f"{SHAPE}.{key} = {_listed(value)}, but train_unet.init_from = {folder} has {_listed(found)}; "
                "they must agree"
            )
    network = load_weights(UNet2DConditionModel(shape), folder / DIFFUSERS_WEIGHTS, device)
    _compare(folder.parent / PIPELINE, process, prediction_type)
    return network.train().requires_grad_(True)


def _compare(file: Path, process: ProcessConfig, prediction_type: PredictionType) -> None:
    imported = read_json(file)
    theirs = imported.get("process") or {}
    pairs = {f"process.{key}": (value, theirs.get(key)) for key, value in process.model_dump().items()}
    pairs["objective.prediction_type"] = (prediction_type, imported.get("prediction_type"))
    for key, (value, found) in pairs.items():
        if value != found:
            log.warning("train_unet.%s = %r, but %s says %r; the network must learn it anew", key, value, file, found)


def _listed(value: object) -> object:
    return list(value) if isinstance(value, tuple) else value
