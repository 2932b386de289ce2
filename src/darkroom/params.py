"""params.yaml: the only file that reads it. What may stand in it, section by section, is in `params_sections`.

No key has a default: a params file is complete, so it alone says what was run. Recipes are complete files too.
"""

import re
from pathlib import Path
from typing import Any, Self

import yaml
from pydantic import ValidationError, model_validator

from darkroom.core.errors import DarkroomError
from darkroom.params_base import Optimizer, Section, divides
from darkroom.params_diffusion import check_sampling
from darkroom.params_faults import explain
from darkroom.params_networks import TABLE_ROWS
from darkroom.params_sections import (
    CacheLatents,
    CaptionedFolderSource,
    Evaluate,
    ImageFolderSource,
    OutsideSource,
    PrepareData,
    ScenesSource,
    SetupTextEncoder,
    TorchvisionSource,
    TrainEvaluator,
    TrainUNet,
    TrainVAE,
    WebDatasetSource,
)

__all__ = [
    "PARAMS_FILE",
    "CaptionedFolderSource",
    "ImageFolderSource",
    "Optimizer",
    "OutsideSource",
    "Params",
    "PrepareData",
    "ScenesSource",
    "SetupTextEncoder",
    "TorchvisionSource",
    "TrainUNet",
    "TrainVAE",
    "WebDatasetSource",
    "load",
    "problems",
    "read",
]

PARAMS_FILE = Path("params.yaml")


class Params(Section):
    """The whole file."""

    prepare_data: PrepareData
    train_vae: TrainVAE
    cache_latents: CacheLatents
    setup_text_encoder: SetupTextEncoder
    train_unet: TrainUNet
    train_evaluator: TrainEvaluator
    evaluate: Evaluate

    @model_validator(mode="after")
    def _check_sizes(self) -> Self:
        size, factor = self.prepare_data.image_size, self.train_vae.downscale
        divides("prepare_data.image_size", size, factor, "the downscale factor of train_vae.block_out_channels")
        self.train_unet.unet.check_side(size // factor)
        adversarial = self.train_vae.adversarial
        if adversarial is not None and size < 3 * 2**adversarial.n_layers:
            raise ValueError(
                f"train_vae.adversarial.n_layers = {adversarial.n_layers} leaves no patch of {size} pixels; lower it"
            )
        return self

    @model_validator(mode="after")
    def _check_choices(self) -> Self:
        kind = self.prepare_data.source.kind
        if self.setup_text_encoder.mode == "class" and kind not in ("torchvision", "image_folder"):
            raise ValueError(f"setup_text_encoder.mode = 'class' needs labels, but a {kind} source has none; use clip")
        if self.cache_latents.scaling == "imported" and self.train_vae.mode != "pretrained":
            mode = self.train_vae.mode
            raise ValueError(
                f"cache_latents.scaling = 'imported', but train_vae.mode = {mode!r} brings no factor; use measured"
            )
        trained = self.train_unet
        trained.unet.check_mode(self.setup_text_encoder.mode)
        if trained.horizontal_flip and self.train_vae.mode != "identity":
            raise ValueError(
                f"train_unet.horizontal_flip = true needs train_vae.mode = 'identity', not {self.train_vae.mode!r}: "
                "a picture's latents, mirrored, are not those of the mirrored picture; use false"
            )
        times = trained.process.num_train_timesteps if trained.process.kind == "vp" else 0
        if trained.unet.kind == "layer_norm_unet" and times > TABLE_ROWS:
            raise ValueError(
                f"train_unet.process.num_train_timesteps = {times} is above the {TABLE_ROWS} times that "
                "train_unet.unet.kind = 'layer_norm_unet' knows; lower it"
            )
        for section, how in (("train_unet", trained.sampling), ("evaluate", self.evaluate.sampling)):
            check_sampling(section, how, trained.process, trained.prediction_type)
        return self


class _Loader(yaml.SafeLoader):
    """YAML as DVC reads it: 1e-3 is a number, and a key given twice is an error."""

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Any, Any]:
        seen = set()
        for key_node, _ in node.value:
            key = self.construct_object(key_node, deep=True)
            if isinstance(key, list | dict | set):
                raise yaml.MarkedYAMLError(problem="a key is a list or mapping", problem_mark=key_node.start_mark)
            if key in seen:
                raise yaml.MarkedYAMLError(problem=f"the key {key} stands here twice", problem_mark=key_node.start_mark)
            seen.add(key)
        return super().construct_mapping(node, deep)


_FLOAT = re.compile(r"[-+]?(?:[0-9]+(?:\.[0-9]*)?|\.[0-9]+)[eE][-+]?[0-9]+")
_Loader.add_implicit_resolver("tag:yaml.org,2002:float", _FLOAT, list("-+.0123456789"))


def load(path: Path | str = PARAMS_FILE) -> Params:
    """Read and check a params file.

    Raises:
        DarkroomError: one line that names the file, the key, the value, what is allowed and the remedy; when several
            keys are wrong, the first of them and how many more there are.
    """
    values = read(path)
    try:
        return Params.model_validate(values)
    except ValidationError as error:
        first, *others = explain(error, Params)
        more = f" (and {len(others)} more: darkroom params check)" if others else ""
        raise DarkroomError(f"{path}: {first}{more}") from None


def problems(path: Path | str = PARAMS_FILE) -> list[str]:
    """Every fault of a params file, a line each; empty when it is sound.

    Checks across keys come after those of single keys: they are made once each key is sound by itself.

    Raises:
        DarkroomError: the file cannot be read at all.
    """
    values = read(path)
    try:
        Params.model_validate(values)
    except ValidationError as error:
        return [f"{path}: {line}" for line in explain(error, Params)]
    return []


def read(path: Path | str) -> dict[Any, Any]:
    """What a params file says, unchecked.

    Raises:
        DarkroomError: it is missing, or no YAML with keys.
    """
    remedy = "write one with: darkroom recipe use scenes"
    try:
        values = yaml.load(Path(path).read_text(encoding="utf-8"), _Loader)  # a SafeLoader
    except FileNotFoundError:
        raise DarkroomError(f"{path}: no such file here; {remedy}") from None
    except OSError as error:
        raise DarkroomError(f"{path}: cannot be read ({error.strerror}); {remedy}") from None
    except UnicodeDecodeError as error:
        raise DarkroomError(f"{path}: not UTF-8 ({error.reason} at byte {error.start}); save it as UTF-8") from None
    except yaml.MarkedYAMLError as error:
        line = f" line {error.problem_mark.line + 1}" if error.problem_mark else ""
        raise DarkroomError(f"{path}{line}: not valid YAML: {error.problem}; mend that line") from None
    except (yaml.YAMLError, RecursionError) as error:
        raise DarkroomError(f"{path}: not valid YAML: {' '.join(str(error).split())}; mend it") from None
    if not isinstance(values, dict):
        raise DarkroomError(f"{path}: holds no keys; {remedy}")
    return values
