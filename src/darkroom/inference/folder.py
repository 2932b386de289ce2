"""artifacts/pipeline: one folder that holds a complete model.

pipeline.json says everything about the model; beside it lie the networks in the folders, names and configurations of
diffusers and transformers; only a denoiser that diffusers does not know has a config.json of our own. Where diffusers
can express the model, scheduler/ and model_index.json make the folder one that its StableDiffusionPipeline loads.
"""

import shutil
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Literal

import torch

from darkroom.config.base import Precision
from darkroom.config.buckets import Size
from darkroom.config.choices import PredictionType
from darkroom.config.denoisers import DENOISERS, DenoiserSpec, UNet2DConditionConfig, UNetSpec
from darkroom.config.diffusion import ProcessConfig
from darkroom.config.networks import AutoencoderSpec, IdentityConfig, TextSpec, read_section
from darkroom.config.sampling import Sampling
from darkroom.core.artifact import (
    CONFIG,
    COPY,
    PIPELINE,
    PROVENANCE,
    REPRO,
    atomic_path,
    model_hash,
    read_json,
    save_tensors,
    write_json,
)
from darkroom.core.errors import DarkroomError
from darkroom.core.limits import JSON_BYTES, PIXELS, check_sampling, counted
from darkroom.core.outside import typed
from darkroom.core.symlinks import check_inside
from darkroom.core.text import printable
from darkroom.core.weights import DIFFUSERS_WEIGHTS, WEIGHTS, load_weights
from darkroom.data.conditioning import ConditioningInfo
from darkroom.data.latents import LatentsInfo
from darkroom.inference.words import Words
from darkroom.interop.configs import read_unet_config, text_config, unet_config, vae_config
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
from darkroom.interop.lora import Adapter, LoRA, merged, read_adapter
from darkroom.interop.lora_artifact import base_of
from darkroom.interop.model import Model
from darkroom.interop.process import checked_process
from darkroom.interop.scheduler import inexpressible, obstacle, scheduler_config
from darkroom.nn.denoiser.base import build

CHANNELS = (1, 3)  # that pictures have
FORMAT = 3  # 3: schedule and sampler with their own keys
DIFFUSERS_KIND = "unet_2d_condition"  # of denoisers, the one that diffusers has


@dataclass(frozen=True)
class PipelineInfo:
    """What pipeline.json says.

    image_size: pixels of a side. network: the denoiser's kind, see config.denoisers.
    autoencoder: "kl", or "identity" where latents are the pictures (no vae folder), whose black and white are then
        identity_range; None with a VAE.
    scaling_factor, scaling: see LatentsInfo.
    sampling, precision: how pictures are drawn unless asked otherwise.
    sizes: (height, width) of the training pictures, where they were not all squares.
    """

    channels: int
    image_size: int
    network: str
    autoencoder: Literal["kl", "identity"]
    identity_range: tuple[float, float] | None
    process: ProcessConfig
    prediction_type: PredictionType
    condition: ConditioningInfo
    scaling_factor: float
    scaling: str
    sampling: Sampling
    precision: Precision
    sizes: tuple[Size, ...] = ()

    @classmethod
    def read(cls, folder: Path) -> "PipelineInfo":
        """Read a pipeline's description.

        Raises:
            DarkroomError: there is no such folder, it is not a pipeline, of another format, or holds a link that leads
                out of it.
        """
        path = folder / PIPELINE
        if not folder.is_dir():
            raise DarkroomError(f"{folder}: no such pipeline; make it with dvc repro, or name another folder")
        if not path.is_file():
            raise DarkroomError(f"{folder}: holds no {PIPELINE}, so it is not a Darkroom pipeline; name another folder")
        check_inside(folder)
        value = read_json(path, COPY, JSON_BYTES)
        try:
            if value["format"] != FORMAT:
                found = printable(repr(value["format"]))
                raise DarkroomError(f"{path}: has format {found}, not {FORMAT}; install another version")
            fields = {key: field for key, field in value.items() if key not in ("format", "image")}
            fields |= {"channels": value["image"]["channels"], "image_size": value["image"]["size"]}
            fields |= {"sizes": value["image"].get("sizes", ())}
        except (KeyError, TypeError, AttributeError) as error:
            raise DarkroomError(f"{path}: does not describe a pipeline ({printable(error)}); {COPY}") from None
        check_sampling(fields.get("sampling"), f"{path}: sampling", COPY)
        checked_process(fields.get("process"), f"{path}: process", COPY)
        info = typed(cls, fields, f"{path}: does not describe a pipeline", COPY)
        info._check(path)
        return info

    def _check(self, path: Path) -> None:
        """Refuse values that no pipeline has; path: of the file that says so."""
        if self.image_size < 1 or self.channels not in CHANNELS or not self.scaling_factor > 0:
            raise DarkroomError(
                f"{path}: image.size = {self.image_size}, image.channels = {self.channels}, scaling_factor = "
                f"{self.scaling_factor}: give a side from 1 on, 1 or 3 channels and a factor above 0; {COPY}"
            )
        PIXELS.check(f"{path}: image.size = {counted(self.image_size)}: its square", self.image_size**2, COPY)
        if any(side < 1 for size in self.sizes for side in size):
            raise DarkroomError(f"{path}: image.sizes: give sides from 1 on; {COPY}")
        if self.network not in DENOISERS.classes:
            known = ", ".join(DENOISERS.classes)
            raise DarkroomError(f"{path}: network = {printable(repr(self.network))} is not one of {known}; {COPY}")
        if (self.autoencoder == "identity") != (self.identity_range is not None):
            raise DarkroomError(
                f"{path}: autoencoder = {self.autoencoder!r} does not go with identity_range = {self.identity_range}; "
                f"{COPY}"
            )

    @classmethod
    def of(cls, model: Model) -> "PipelineInfo":
        """The description of a model of another tool."""
        return cls(
            channels=model.vae.sizes.in_channels,
            image_size=model.image_size,
            network=DIFFUSERS_KIND,
            autoencoder="kl",
            identity_range=None,
            process=model.process,
            prediction_type=model.prediction_type,
            condition=ConditioningInfo(
                "text", "empty_prompt", model.tokenizer.max_length, model.text.network.hidden_size, []
            ),
            scaling_factor=model.scaling_factor,
            scaling="imported",
            sampling=model.sampling,
            precision=model.precision,
        )

    def write(self, folder: Path) -> None:
        """Write pipeline.json into `folder`."""
        value = {name: getattr(self, name) for name in self.__dataclass_fields__}
        value |= {"process": self.process.model_dump(), "sampling": self.sampling.model_dump()}
        value |= {"condition": asdict(self.condition)}
        image = {"channels": value.pop("channels"), "size": value.pop("image_size")}
        image |= {"sizes": sizes} if (sizes := value.pop("sizes")) else {}
        write_json(folder / PIPELINE, {**value, "format": FORMAT, "image": image})

    @property
    def for_diffusers(self) -> bool:
        """Whether diffusers' StableDiffusionPipeline draws the same pictures."""
        return self.in_the_way() is None

    def in_the_way(self) -> str | None:
        """What keeps diffusers' StableDiffusionPipeline from drawing the same pictures, if anything does.

        It knows one kind of network and no pictures without an autoencoder, its guidance starts from the empty prompt,
        it knows few processes, and it cannot stand at all times.
        """
        for key, value, wanted in (
            ("network", self.network, DIFFUSERS_KIND),
            ("autoencoder", self.autoencoder, "kl"),
            ("condition.kind", self.condition.kind, "text"),
            ("condition.null", self.condition.null, "empty_prompt"),
        ):
            if value != wanted:
                return f"{key} = {value!r}: diffusers' pipeline has only {wanted!r}"
        found = inexpressible(self.process, self.prediction_type)
        return found or obstacle(self.process, self.prediction_type, self.sampling)


@dataclass(frozen=True)
class Trained:
    """What a pipeline is assembled of.

    unet, vae, text_encoder: the artifacts' folders.
    latents: of the cache that the U-Net was trained on. channels, image_size: of the training pictures.
    words: of the training captions; None where these do not say what the model knows.
    sizes: (height, width) of the training pictures, where they are not all squares.
    """

    unet: Path
    vae: Path
    text_encoder: Path
    latents: LatentsInfo
    channels: int
    image_size: int
    words: Words | None
    sizes: tuple[Size, ...] = ()


def assemble(
    destination: Path, trained: Trained, sampling: Sampling, precision: Precision, origin: dict[str, Any]
) -> PipelineInfo:
    """Write the pipeline of trained networks to `destination`, whole or not at all.

    Args:
        sampling, precision: the defaults for drawing.
        origin: what provenance.json says, see core.artifact.provenance.
    """
    unet, vae, text_encoder = (
        read_json(folder / CONFIG) for folder in (trained.unet, trained.vae, trained.text_encoder)
    )
    denoiser = DenoiserSpec.read(unet, str(trained.unet / CONFIG), REPRO)
    ends = None
    if vae["kind"] == "identity":
        ends = read_section(IdentityConfig, vae["network"], str(trained.vae / CONFIG), REPRO).range
    info = PipelineInfo(
        channels=trained.channels,
        image_size=trained.image_size,
        network=denoiser.network.kind,
        autoencoder=vae["kind"],
        identity_range=None if ends is None else (ends[0], ends[1]),
        process=checked_process(unet["process"], f"{trained.unet / CONFIG}: process", "train it again"),
        prediction_type=unet["prediction_type"],
        condition=ConditioningInfo(**unet["condition"]),
        scaling_factor=trained.latents.scaling_factor,
        scaling=trained.latents.scaling,
        sampling=sampling,
        precision=precision,
        sizes=trained.sizes,
    )
    adapters = _adapters(trained)
    with atomic_path(destination) as folder:
        folder.mkdir()
        _write_denoiser(folder / UNET, denoiser, trained.unet, adapters)
        if info.autoencoder == "kl":
            kl = AutoencoderSpec.read(vae, str(trained.vae / CONFIG), REPRO)
            config = vae_config(kl, info.image_size, info.scaling_factor)
            weights = folder_weights(kl, trained.vae, DIFFUSERS_WEIGHTS)
            write_network(folder / VAE, DIFFUSERS_WEIGHTS, config, weights)
        if info.condition.of_text:
            text = TextSpec.read(text_encoder, str(trained.text_encoder / CONFIG), REPRO)
            weights = merged(folder_weights(text, trained.text_encoder, WEIGHTS), adapters, "text_encoder")
            write_network(folder / TEXT_ENCODER, WEIGHTS, text_config(text), weights, prefix=TEXT_PREFIX)
            shutil.copytree(trained.text_encoder / TOKENIZER, folder / TOKENIZER)
        if info.for_diffusers:
            write_scheduler(folder, scheduler_config(info.process, info.prediction_type, info.sampling))
        info.write(folder)
        if trained.words is not None:
            trained.words.write(folder)
        write_json(folder / PROVENANCE, origin)
    return info


def _adapters(trained: Trained) -> list[Adapter]:
    """What was trained in place of whole weights, if it was."""
    if (base := base_of(trained.unet)) is None:
        return []
    unet, text = folder_weights(read_unet_config(base), base, DIFFUSERS_WEIGHTS), None
    if ConditioningInfo(**read_json(trained.unet / CONFIG)["condition"]).of_text:
        config = trained.text_encoder / CONFIG
        spec = TextSpec.read(read_json(config), str(config), REPRO)
        text = folder_weights(spec, trained.text_encoder, WEIGHTS)
    return [read_adapter(LoRA(trained.unet), unet, text)]


def _write_denoiser(folder: Path, spec: DenoiserSpec, artifact: Path, adapters: Sequence[Adapter]) -> None:
    if isinstance(spec.network, UNet2DConditionConfig):
        unet = UNetSpec(network=spec.network, sizes=spec.sizes)
        weights = folder_weights(unet, base_of(artifact) or artifact, DIFFUSERS_WEIGHTS)
        write_network(folder, DIFFUSERS_WEIGHTS, unet_config(unet), merged(weights, adapters, "unet"))
        return
    network = load_weights(build(spec.network, spec.sizes), artifact / DIFFUSERS_WEIGHTS, torch.device("cpu"))
    folder.mkdir()
    save_tensors(folder / DIFFUSERS_WEIGHTS, network.state_dict())
    write_json(folder / CONFIG, spec.model_dump())


def write_imported(model: Model, source: Path, destination: Path) -> PipelineInfo:
    """Write a model of another tool as a pipeline, whole or not at all; its parts serve as pretrained ones."""
    info = PipelineInfo.of(model)
    with atomic_path(destination) as folder:
        write_folder(model, folder, defaults=False)
        info.write(folder)
        carry_words(source, folder)
        write_json(folder / PROVENANCE, {"inputs": {source.name: model_hash(source)}})
    return info


def carry_words(source: Path, folder: Path) -> None:
    """Write to `folder` the words of the training captions that travel with the model in `source`, if any do."""
    if (words := Words.read(source)) is not None:
        words.write(folder)


def check_exportable(folder: Path) -> None:
    """Refuse a pipeline that diffusers cannot express, naming what is in the way."""
    if not (folder / PIPELINE).is_file():
        return
    reason = PipelineInfo.read(folder).in_the_way()
    if reason is not None:
        raise DarkroomError(f"{folder / PIPELINE}: {reason}")
