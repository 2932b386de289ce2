"""artifacts/pipeline: one folder that holds a whole model.

pipeline.json says everything about the model; beside it lie the networks in the folders, names and configurations of
diffusers and transformers. Where diffusers can express the model, scheduler/ and model_index.json make the folder one
that its StableDiffusionPipeline loads.
"""

import shutil
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from darkroom.core.artifact import CONFIG, PIPELINE, PROVENANCE, content_hash, read_json, whole, write_json
from darkroom.core.choices import Precision, PredictionType
from darkroom.core.errors import DarkroomError
from darkroom.core.weights import DIFFUSERS_WEIGHTS, WEIGHTS
from darkroom.data.conditioning import ConditioningInfo
from darkroom.data.latents import LatentsInfo
from darkroom.diffusion.generate import Sampling
from darkroom.diffusion.process import process_of
from darkroom.interop.configs import text_config, unet_config, vae_config
from darkroom.interop.diffusers import (
    TEXT_ENCODER,
    TEXT_PREFIX,
    TOKENIZER,
    UNET,
    VAE,
    folder_weights,
    write_folder,
    write_network,
    write_scheduler,
)
from darkroom.interop.model import Model
from darkroom.interop.scheduler import inexpressible, scheduler_config
from darkroom.nn.text import CLIPTextConfig
from darkroom.nn.unet import UNetConfig
from darkroom.nn.vae import AutoencoderKLConfig

FORMAT = 2  # 2: process says its kind


@dataclass(frozen=True)
class PipelineInfo:
    """What pipeline.json says.

    image_size: pixels of a side. autoencoder: "kl", or "identity" where latents are the pictures (no vae folder).
    process: see `process_of`. scaling_factor, scaling: see LatentsInfo.
    sampling, precision: how pictures are drawn unless asked otherwise.
    """

    channels: int
    image_size: int
    autoencoder: str
    process: dict[str, Any]
    prediction_type: PredictionType
    condition: ConditioningInfo
    scaling_factor: float
    scaling: str
    sampling: Sampling
    precision: Precision

    @classmethod
    def read(cls, folder: Path) -> "PipelineInfo":
        """Read a pipeline's description.

        Raises:
            DarkroomError: there is no such folder, it is no pipeline, or one of another format.
        """
        path = folder / PIPELINE
        if not folder.is_dir():
            raise DarkroomError(f"{folder}: no such pipeline; make it with dvc repro, or name another folder")
        if not path.is_file():
            raise DarkroomError(f"{folder}: holds no {PIPELINE}, so it is no Darkroom pipeline; name another folder")
        value = read_json(path)
        try:
            if value["format"] != FORMAT:
                raise DarkroomError(f"{path}: has format {value['format']!r}, not {FORMAT}; install another version")
            process_of(value["process"])
            return cls(
                channels=value["image"]["channels"],
                image_size=value["image"]["size"],
                autoencoder=value["autoencoder"],
                process=value["process"],
                prediction_type=value["prediction_type"],
                condition=ConditioningInfo(**value["condition"]),
                scaling_factor=value["scaling_factor"],
                scaling=value["scaling"],
                sampling=Sampling(**value["sampling"]),
                precision=value["precision"],
            )
        except (KeyError, TypeError) as error:
            raise DarkroomError(f"{path}: does not describe a pipeline ({error}); assemble it again") from None

    @classmethod
    def of(cls, model: Model) -> "PipelineInfo":
        """The description of a model that other tools have made; drawn in fp32 unless asked otherwise."""
        return cls(
            channels=model.vae.out_channels,
            image_size=model.image_size,
            autoencoder="kl",
            process=model.process,
            prediction_type=model.prediction_type,
            condition=ConditioningInfo("text", "empty_prompt", model.tokenizer.max_length, model.text.hidden_size, []),
            scaling_factor=model.scaling_factor,
            scaling="imported",
            sampling=model.sampling,
            precision="fp32",
        )

    def write(self, folder: Path) -> None:
        """Write pipeline.json into `folder`."""
        value = asdict(self)
        image = {"channels": value.pop("channels"), "size": value.pop("image_size")}
        write_json(folder / PIPELINE, {**value, "format": FORMAT, "image": image})

    @property
    def for_diffusers(self) -> bool:
        """Whether diffusers' StableDiffusionPipeline draws the same pictures."""
        return self.in_the_way() is None

    def in_the_way(self) -> str | None:
        """What keeps diffusers' StableDiffusionPipeline from drawing the same pictures, if anything does.

        Its guidance starts from the empty prompt, it knows no pictures without an autoencoder, and few processes.
        """
        for key, value, wanted in (
            ("autoencoder", self.autoencoder, "kl"),
            ("condition.kind", self.condition.kind, "text"),
            ("condition.null", self.condition.null, "empty_prompt"),
        ):
            if value != wanted:
                return f"{key} = {value!r}: diffusers' pipeline has only {wanted!r}"
        return inexpressible(self.process, self.prediction_type)


def assemble(
    destination: Path,
    *,
    unet: Path,
    vae: Path,
    text_encoder: Path,
    latents: LatentsInfo,
    image_channels: int,
    image_size: int,
    sampling: Sampling,
    precision: Precision,
    origin: dict[str, Any],
) -> PipelineInfo:
    """Write the pipeline of trained parts to `destination`, whole or not at all.

    Args:
        unet, vae, text_encoder: the artifacts' folders.
        latents: of the cache the U-Net was trained on.
        sampling, precision: the defaults for drawing.
        origin: what provenance.json says, see core.artifact.provenance.
    """
    trained, autoencoder, encoder = (read_json(folder / CONFIG) for folder in (unet, vae, text_encoder))
    info = PipelineInfo(
        channels=image_channels,
        image_size=image_size,
        autoencoder=autoencoder["kind"],
        process=trained["process"],
        prediction_type=trained["prediction_type"],
        condition=ConditioningInfo(**trained["condition"]),
        scaling_factor=latents.scaling_factor,
        scaling=latents.scaling,
        sampling=sampling,
        precision=precision,
    )
    with whole(destination) as folder:
        folder.mkdir()
        shape = UNetConfig(**trained["network"])
        weights = folder_weights(shape, unet, DIFFUSERS_WEIGHTS)
        write_network(folder / UNET, DIFFUSERS_WEIGHTS, unet_config(shape), weights)
        if info.autoencoder == "kl":
            kl = AutoencoderKLConfig(**autoencoder["network"])
            weights = folder_weights(kl, vae, DIFFUSERS_WEIGHTS)
            write_network(folder / VAE, DIFFUSERS_WEIGHTS, vae_config(kl, image_size, latents.scaling_factor), weights)
        if info.condition.kind == "text":
            text = CLIPTextConfig(**encoder["network"])
            weights = folder_weights(text, text_encoder, WEIGHTS)
            write_network(folder / TEXT_ENCODER, WEIGHTS, text_config(text), weights, prefix=TEXT_PREFIX)
            shutil.copytree(text_encoder / TOKENIZER, folder / TOKENIZER)
        if info.for_diffusers:
            write_scheduler(folder, scheduler_config(info.process, info.prediction_type, info.sampling))
        info.write(folder)
        write_json(folder / PROVENANCE, origin)
    return info


def write_imported(model: Model, source: Path, destination: Path) -> PipelineInfo:
    """Write a model of another tool as a pipeline, whole or not at all; its parts serve as pretrained ones."""
    info = PipelineInfo.of(model)
    with whole(destination) as folder:
        write_folder(model, folder)
        info.write(folder)
        write_json(folder / PROVENANCE, {"inputs": {source.name: content_hash(source)}})
    return info


def check_exportable(folder: Path) -> None:
    """Refuse a pipeline that diffusers cannot express, naming what is in the way."""
    if not (folder / PIPELINE).is_file():
        return
    reason = PipelineInfo.read(folder).in_the_way()
    if reason is not None:
        raise DarkroomError(f"{folder / PIPELINE}: {reason}")
