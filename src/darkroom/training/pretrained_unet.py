"""Starting the U-Net from imported weights."""

from pathlib import Path

import torch

from darkroom.core.artifact import CONFIG
from darkroom.core.errors import DarkroomError
from darkroom.core.weights import DIFFUSERS_WEIGHTS, load_weights
from darkroom.nn.unet import UNet2DConditionModel, UNetConfig
from darkroom.training.trained import imported_config, known

SHAPE = "train_unet.unet"


def read_pretrained_unet(folder: Path, wanted: UNetConfig, device: torch.device) -> UNet2DConditionModel:
    """unet/ of an imported model, ready to be trained further, for latents of the side that `wanted` has.

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
    return network.train().requires_grad_(True)


def _listed(value: object) -> object:
    return list(value) if isinstance(value, tuple) else value
