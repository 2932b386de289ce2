"""What every section of params.yaml builds on: bounded numbers, strict models, checks across keys, training."""

from pathlib import Path
from typing import Annotated, Literal, Self

from pydantic import BaseModel, ConfigDict, Field, model_validator

from darkroom.config.choices import OptimizerName, Precision

Count = Annotated[int, Field(ge=1, le=100_000_000)]
Whole = Annotated[int, Field(ge=0, le=100_000_000)]
Probability = Annotated[float, Field(ge=0, le=1)]
Weight = Annotated[float, Field(ge=0, le=1_000)]
Seed = Annotated[int, Field(ge=0, lt=2**63)]
Channels = Annotated[int, Field(ge=1, le=8192)]
Rate = Annotated[float, Field(gt=0, le=1)]

CHANNELS_PER_GROUP = 16  # of the norms in towers and discriminator, which have no norm_num_groups


class Section(BaseModel):
    """A group of keys: nothing unknown, nothing left out, no silent conversion."""

    model_config = ConfigDict(extra="forbid", strict=True, frozen=True, allow_inf_nan=False)


def divides(key: str, value: int, by: int, what: str) -> None:
    """Refuse a value that is no multiple of another; keys are relative to the section that checks."""
    if value % by:
        raise ValueError(f"{key} = {value} is not divisible by {what} = {by}; give a multiple of {by}")


def at_most(key: str, value: int, limit_key: str, limit: int) -> None:
    """Refuse a value above another one."""
    if value > limit:
        raise ValueError(f"{key} = {value} is above {limit_key} = {limit}; lower it, or raise {limit_key}")


def pretrained(mode: str, path: str | None) -> None:
    """Refuse a pretrained_path that does not go with the section's mode."""
    if (mode == "pretrained") != (path is not None):
        wanted = "the imported part's folder" if mode == "pretrained" else "null"
        raise ValueError(f"pretrained_path does not go with mode = {mode!r}; give {wanted}")
    within_project("pretrained_path", path)


def within_project(key: str, path: str | None) -> None:
    """Refuse a path that means something on one machine alone."""
    if path is not None and (Path(path).is_absolute() or ".." in Path(path).parts):
        raise ValueError(
            f"{key} = {path!r} leads out of the project; take it in with darkroom import SOURCE artifacts/imported/NAME"
        )


class LRDecay(Section):
    """The rate times max(floor, factor ** decays), where a decay comes every so many steps after the warm-up."""

    factor: Annotated[float, Field(gt=0, lt=1)]
    every: Count
    floor: Probability


class Optimizer(Section):
    """The optimiser and its schedule; see training.optim.OptimizerConfig."""

    optimizer: OptimizerName
    learning_rate: Rate
    betas: Annotated[list[Annotated[float, Field(ge=0, lt=1)]], Field(min_length=2, max_length=2)]
    weight_decay: Annotated[float, Field(ge=0, le=1)]
    warmup_steps: Whole
    lr_schedule: Literal["constant", "cosine", "exponential"]
    lr_decay: LRDecay | None
    clip_norm: Annotated[float, Field(gt=0, le=1e6)] | None

    @model_validator(mode="after")
    def _check_decay(self) -> Self:
        if (self.lr_schedule == "exponential") != (self.lr_decay is not None):
            wanted = "factor, every and floor" if self.lr_decay is None else "null"
            raise ValueError(f"lr_decay does not go with lr_schedule = {self.lr_schedule!r}; give {wanted}")
        return self


class Training(Optimizer):
    """What every trained network has: how long, how much at once, how it is moved.

    steps: over which the learning rate runs, and the last of them ends the training. stop_at: the step that ends it
        before, as at the last one, with the learning rate where it then is; null: none. `darkroom finish` writes it.
    on_worse_than_chance: what happens where it ends no better than without training: stop the stage, or warn in its
    summary and metrics.
    """

    seed: Seed
    precision: Precision
    steps: Count
    stop_at: Count | None
    batch_size: Annotated[int, Field(ge=1, le=65536)]
    ema_half_life: Count
    validate_every: Count
    log_every: Count
    on_worse_than_chance: Literal["stop", "warn"]

    @model_validator(mode="after")
    def _check_warmup(self) -> Self:
        at_most("warmup_steps", self.warmup_steps, "steps", self.steps)
        if self.stop_at is not None:
            at_most("stop_at", self.stop_at, "steps", self.steps)
        return self
