"""artifacts/pipeline: one folder that holds a whole model.

pipeline.json says everything about the model; beside it lie the networks in the folders, names and configurations of
diffusers and transformers. Where diffusers can express the model, scheduler/ and model_index.json make the folder one
that its StableDiffusionPipeline loads.
"""

import shutil
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from darkroom.core.artifact import CONFIG, PROVENANCE, read_json, whole, write_json
from darkroom.core.choices import Precision, PredictionType
from darkroom.core.errors import DarkroomError
from darkroom.core.weights import DIFFUSERS_WEIGHTS, WEIGHTS
from darkroom.data.conditioning import ConditioningInfo
from darkroom.data.latents import LatentsInfo
from darkroom.diffusion.generate import Sampling
from darkroom.nn.text import CLIPTextConfig
from darkroom.nn.unet import UNetConfig
from darkroom.nn.vae import AutoencoderKLConfig

PIPELINE = "pipeline.json"
FORMAT = 1
UNET, VAE, TEXT_ENCODER, TOKENIZER, SCHEDULER = "unet", "vae", "text_encoder", "tokenizer", "scheduler"
DIFFUSERS_FORMAT = "0.35.0"  # the version whose formats are written, whichever version, if any, is installed
BETA_SCHEDULES = {"linear": "linear", "scaled_linear": "scaled_linear", "cosine": "squaredcos_cap_v2"}


@dataclass(frozen=True)
class PipelineInfo:
    """What pipeline.json says.

    image_size: pixels of a side. autoencoder: "kl", or "identity" where latents are the pictures (no vae folder).
    process: arguments of DiscreteVP. scaling_factor, scaling: see LatentsInfo.
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

    def write(self, folder: Path) -> None:
        """Write pipeline.json into `folder`."""
        value = asdict(self)
        image = {"channels": value.pop("channels"), "size": value.pop("image_size")}
        write_json(folder / PIPELINE, {**value, "format": FORMAT, "image": image})

    @property
    def for_diffusers(self) -> bool:
        """Whether diffusers' StableDiffusionPipeline draws the same pictures.

        Its guidance starts from the empty prompt, and it knows no pictures without an autoencoder.
        """
        text = self.condition.kind == "text" and self.condition.null == "empty_prompt"
        return text and self.autoencoder == "kl"


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
        network = UNetConfig(**trained["network"]).to_diffusers()
        _network(folder / UNET, unet / DIFFUSERS_WEIGHTS, {**network, **_class("UNet2DConditionModel")})
        if info.autoencoder == "kl":
            network = {**AutoencoderKLConfig(**autoencoder["network"]).to_diffusers(), **_class("AutoencoderKL")}
            extra = {"sample_size": image_size, "scaling_factor": latents.scaling_factor}
            _network(folder / VAE, vae / DIFFUSERS_WEIGHTS, {**network, **extra})
        if info.condition.kind == "text":
            _network(folder / TEXT_ENCODER, text_encoder / WEIGHTS, _transformers(encoder["network"]))
            shutil.copytree(text_encoder / TOKENIZER, folder / TOKENIZER)
        if info.for_diffusers:
            write_json(folder / SCHEDULER / "scheduler_config.json", _scheduler(info))
            write_json(folder / "model_index.json", _model_index())
        info.write(folder)
        write_json(folder / PROVENANCE, origin)
    return info


def _network(folder: Path, weights: Path, config: dict[str, Any]) -> None:
    folder.mkdir()
    shutil.copyfile(weights, folder / weights.name)
    write_json(folder / CONFIG, config)


def _class(name: str) -> dict[str, str]:
    return {"_class_name": name, "_diffusers_version": DIFFUSERS_FORMAT}


def _transformers(network: dict[str, Any]) -> dict[str, Any]:
    """config.json of a CLIPTextModel."""
    config = CLIPTextConfig(**network)
    return {
        **asdict(config),
        "architectures": ["CLIPTextModel"],
        "model_type": "clip_text_model",
        "projection_dim": config.hidden_size,
        "attention_dropout": 0.0,
    }


def _scheduler(info: PipelineInfo) -> dict[str, Any]:
    """A DDIMScheduler that walks our levels, exactly where the spacing is trailing.

    StableDiffusionPipeline insists on steps_offset 1, which only the leading spacing reads.
    """
    return {
        **_class("DDIMScheduler"),
        "num_train_timesteps": info.process["num_train_timesteps"],
        "beta_start": info.process["beta_start"],
        "beta_end": info.process["beta_end"],
        "beta_schedule": BETA_SCHEDULES[info.process["schedule"]],
        "prediction_type": info.prediction_type,
        "timestep_spacing": info.sampling.spacing,
        "steps_offset": 1,
        "clip_sample": False,
        "set_alpha_to_one": info.sampling.set_alpha_to_one,
        "rescale_betas_zero_snr": False,
        "thresholding": False,
        "trained_betas": None,
    }


def _model_index() -> dict[str, Any]:
    return {
        **_class("StableDiffusionPipeline"),
        "unet": ["diffusers", "UNet2DConditionModel"],
        "vae": ["diffusers", "AutoencoderKL"],
        "text_encoder": ["transformers", "CLIPTextModel"],
        "tokenizer": ["transformers", "CLIPTokenizer"],
        "scheduler": ["diffusers", "DDIMScheduler"],
        "safety_checker": [None, None],
        "feature_extractor": [None, None],
        "image_encoder": [None, None],
        "requires_safety_checker": False,
    }
