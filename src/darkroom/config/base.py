"""What every section of params.yaml builds on: bounded numbers, strict models, checks across keys."""

from pathlib import Path
from typing import Annotated, Literal, Self

from pydantic import BaseModel, ConfigDict, Field, model_validator

Count = Annotated[int, Field(ge=1, le=100_000_000)]
Whole = Annotated[int, Field(ge=0, le=100_000_000)]
Probability = Annotated[float, Field(ge=0, le=1)]
Weight = Annotated[float, Field(ge=0, le=1_000)]
Seed = Annotated[int, Field(ge=0, lt=2**63)]
Channels = Annotated[int, Field(ge=1, le=8192)]
BatchSize = Annotated[int, Field(ge=1, le=65536)]
Precision = Literal["fp32", "bf16"]

CHANNELS_PER_GROUP = 16  # of the norms in towers and discriminator, which have no norm_num_groups


class Section(BaseModel):
    """A group of keys: nothing unknown, nothing left out, no silent conversion.

    What stands under a field is its description: meaning, unit, range and source.

    Fields have no default, with two exceptions: those of `Sampling` that have one may not stand in params.yaml, and a
    sampler's own must stand there all the same; their defaults serve `sampler_named`.
    """

    model_config = ConfigDict(extra="forbid", strict=True, frozen=True, allow_inf_nan=False)


class Imported(Section):
    """A network that `darkroom import` has fetched, used as it is."""

    kind: Literal["pretrained"]
    """Imported with `darkroom import`."""

    path: Annotated[str, Field(min_length=1)]
    """Its folder, below the project's: artifacts/imported/NAME/vae, or artifacts/imported/NAME/text_encoder, beside
    which lies tokenizer/."""

    @model_validator(mode="after")
    def _check_path(self) -> Self:
        check_within_project("path", self.path)
        return self


def check_multiple_of(key: str, value: int, by: int, what: str) -> None:
    """Refuse a value that is not a multiple of another; keys are relative to the section that checks."""
    if value % by:
        raise ValueError(f"{key} = {value} is not divisible by {what} = {by}; give a multiple of {by}")


def check_at_most(key: str, value: int, limit_key: str, limit: int) -> None:
    """Refuse a value above another one."""
    if value > limit:
        raise ValueError(f"{key} = {value} is above {limit_key} = {limit}; lower it, or raise {limit_key}")


def check_within_project(key: str, path: str | None) -> None:
    """Refuse a path that means something on one machine alone."""
    if path is not None and (Path(path).is_absolute() or ".." in Path(path).parts):
        raise ValueError(
            f"{key} = {path!r} leads out of the project; take it in with darkroom import SOURCE artifacts/imported/NAME"
        )
