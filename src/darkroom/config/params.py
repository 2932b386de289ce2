"""params.yaml: the only file that reads it. What may stand in it, section by section, is in `sections`,
`autoencoder` and `text_encoder`.

No key has a default: a params file is complete, so it alone says what was run.
"""

import warnings
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Self

from pydantic import Field, ValidationError, model_validator

from darkroom.config.autoencoder import IdentityVAE, PretrainedVAE, TrainedVAE, TrainVAE
from darkroom.config.base import Section, check_multiple_of
from darkroom.config.denoisers import ConditionKind
from darkroom.config.diffusion import check_sampling
from darkroom.config.faults import explain
from darkroom.config.merging import complete_text
from darkroom.config.sections import CacheLatents, Evaluate, PrepareData, Register, TrainEvaluator, TrainUNet
from darkroom.config.shipped import default_recipe
from darkroom.config.text_encoder import PretrainedTextEncoder, SetupTextEncoder
from darkroom.config.yaml_file import parse
from darkroom.core.errors import DarkroomError

__all__ = ["PARAMS_FILE", "Params", "load", "problems", "read"]

PARAMS_FILE = Path("params.yaml")
# Every class made of ABCMeta has a method of this name, which pydantic warns of, and would take for a default.
warnings.filterwarnings("ignore", 'Field name "register" in "Params" shadows', UserWarning)
CONDITIONS: dict[str, ConditionKind] = {"clip": "text", "pretrained": "text", "class": "class", "none": "none"}


class Params(Section):
    """The whole file."""

    prepare_data: PrepareData
    """Pictures and captions in one format."""

    train_vae: TrainVAE
    """The autoencoder between pictures and latents."""

    cache_latents: CacheLatents
    """What the autoencoder makes of every picture, made once."""

    setup_text_encoder: SetupTextEncoder
    """What the U-Net is conditioned on."""

    train_unet: TrainUNet
    """The denoiser."""

    train_evaluator: TrainEvaluator
    """The judges of what is drawn."""

    evaluate: Evaluate
    """What is drawn and measured at the end."""

    register: Register = Field()
    """What a version must reach before it is named candidate."""

    @model_validator(mode="after")
    def _check_sizes(self) -> Self:
        p, vae = self.prepare_data, self.train_vae
        sides = {p.image_size: "prepare_data.image_size"}
        sides |= {side: "prepare_data.buckets: side" for size in p.sizes for side in size if side not in sides}
        if p.buckets is not None and self.train_unet.unet.fixed_side:
            raise ValueError(
                f"prepare_data.buckets: train_unet.unet.kind = {self.train_unet.unet.kind!r} takes squares of one side "
                "alone; give null, or another network"
            )
        if isinstance(vae, PretrainedVAE):
            return self  # its downscale factor stands in its own config.json; planning.demands asks there
        factor = 1
        if isinstance(vae, TrainedVAE):
            factor = vae.autoencoder.downscale
            key = "the downscale factor of train_vae.autoencoder.block_out_channels"
            for side, of in sides.items():
                check_multiple_of(of, side, factor, key)
            if vae.adversarial is not None and (side := min(sides)) < 3 * 2**vae.adversarial.n_layers:
                raise ValueError(
                    f"train_vae.adversarial.n_layers = {vae.adversarial.n_layers} leaves no patch of {side} pixels; "
                    "lower it"
                )
        for side, of in sides.items():
            self.train_unet.check_side(side // factor, of.partition(":")[0])
        return self

    @model_validator(mode="after")
    def _check_kinds(self) -> Self:
        source, vae, conditions = self.prepare_data.source, self.train_vae, self.setup_text_encoder.kind
        if conditions == "class" and not source.labelled:
            raise ValueError(
                f"setup_text_encoder.kind = 'class' needs labels, but a {source.kind} source has none; use clip"
            )
        if self.cache_latents.scaling == "imported" and not isinstance(vae, PretrainedVAE):
            raise ValueError(
                f"cache_latents.scaling = 'imported', but train_vae.kind = {vae.kind!r} brings no factor; use measured"
            )
        trained = self.train_unet
        self._check_adapters()
        try:
            trained.unet.check_condition(CONDITIONS[conditions])
        except ValueError as error:
            raise ValueError(
                f"train_unet.unet.{error}, as setup_text_encoder.kind = {conditions!r} makes; "
                "use another one, or another network"
            ) from None
        if trained.horizontal_flip and not isinstance(vae, IdentityVAE):
            raise ValueError(
                f"train_unet.horizontal_flip = true needs train_vae.kind = 'identity', not {vae.kind!r}: "
                "a picture's latents, mirrored, are not those of the mirrored picture; use cache_latents.mirror"
            )
        times = trained.process.num_train_timesteps if trained.process.kind == "vp" else 0
        if trained.unet.times is not None and times > trained.unet.times:
            raise ValueError(
                f"train_unet.process.num_train_timesteps = {times} is above the {trained.unet.times} times that "
                f"train_unet.unet.kind = {trained.unet.kind!r} knows; lower it"
            )
        for section, sampling in (("train_unet", trained.sampling), ("evaluate", self.evaluate.sampling)):
            check_sampling(section, sampling, trained.process, trained.objective.prediction_type)
        return self

    def _check_adapters(self) -> None:
        """Refuse adapters of a text encoder of which there is none, or whose output is cached."""
        lora, encoder = self.train_unet.lora, self.setup_text_encoder
        if lora is None or not lora.text_encoder:
            return
        if not isinstance(encoder, PretrainedTextEncoder):
            raise ValueError(
                "train_unet.lora.text_encoder = true needs setup_text_encoder.kind = 'pretrained', not "
                f"{encoder.kind!r}; give the text_encoder folder of init_from's model, or text_encoder: false"
            )
        for key, found, wanted in (
            ("cache", encoder.cache, "tokens"),
            ("null_condition", encoder.null_condition, "empty_prompt"),
        ):
            if found != wanted:
                raise ValueError(
                    f"train_unet.lora.text_encoder = true needs setup_text_encoder.{key} = {wanted!r}, not {found!r}; "
                    "give that, or text_encoder: false"
                )


def read(path: Path | str) -> dict[Any, Any]:
    """What a params file says, or a recipe with its base; unchecked.

    Raises:
        DarkroomError: it is missing, or is not YAML with keys.
    """
    return parse(complete_text(Path(path)), path)


def load(path: Path | str = PARAMS_FILE) -> Params:
    """Read and check a params file or a recipe.

    Raises:
        DarkroomError: one line that names the file, the key, the value, what is allowed and the remedy; when several
            keys are wrong, the first of them and how many more there are.
    """
    values = read(path)
    try:
        return Params.model_validate(values)
    except ValidationError as error:
        first, *others = explain(error, values, Params, _example)
        more = f" (and {len(others)} more: darkroom params check)" if others else ""
        raise DarkroomError(f"{path}: {first}{more}") from None


def problems(path: Path | str = PARAMS_FILE) -> list[str]:
    """Every fault of a params file or a recipe, a line each; empty when it is sound.

    Checks across keys come after those of single keys: they are made once each key is sound by itself.

    Raises:
        DarkroomError: the file cannot be read at all.
    """
    values = read(path)
    try:
        Params.model_validate(values)
    except ValidationError as error:
        return [f"{path}: {line}" for line in explain(error, values, Params, _example)]
    return []


def _example(key: Sequence[str], kind: Any) -> str:
    """The command that shows a recipe with a key, in a section of that kind if there is one: the default one where
    it does."""
    example = default = default_recipe()
    for file in [default, *sorted(default.parent.glob("*.yaml"))]:
        try:
            section: Any = read(file)
            for part in key[:-1]:
                section = section[int(part) if isinstance(section, list) else part]
            if key[-1] not in section:
                continue
        except (DarkroomError, LookupError, TypeError, ValueError):
            continue
        if kind is None or section.get("kind") == kind:
            example = file
            break
        example = file if example == default else example
    return f"darkroom recipe show {example.stem}"
