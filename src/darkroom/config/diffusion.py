"""What may stand in params.yaml about the noise process, the loss and the way of sampling, and what goes together."""

from typing import Annotated, Literal, Self

from pydantic import Field, model_validator

from darkroom.config.base import Count, Section, at_most
from darkroom.config.choices import (
    CONTINUOUS_SPACINGS,
    EPSILON_ONLY,
    NOISE_PREDICTIONS,
    SAMPLER_OPTIONS,
    USUAL_TIMES,
    LossName,
    PredictionType,
    SamplerName,
    ScheduleName,
    Spacing,
    Variance,
    Weighting,
)

NearEnds = Annotated[float, Field(gt=0, lt=0.5)]


class VPProcess(Section):
    """Variance preserving, in discrete times; see diffusion.schedule.DiscreteVP."""

    kind: Literal["vp"]
    schedule: ScheduleName
    beta_start: Annotated[float, Field(gt=0, lt=1)]
    beta_end: Annotated[float, Field(gt=0, lt=1)]
    num_train_timesteps: Annotated[int, Field(ge=2, le=100_000)]
    scale_betas: bool
    rescale_betas_zero_snr: bool

    @model_validator(mode="after")
    def _check(self) -> Self:
        if self.beta_start > self.beta_end:
            raise ValueError(f"beta_start = {self.beta_start} is above beta_end = {self.beta_end}; lower it")
        if self.scale_betas and self.schedule == "cosine":
            raise ValueError("scale_betas = true needs betas, which schedule = 'cosine' does not read; give false")
        if self.scale_betas and self.beta_end * USUAL_TIMES >= self.num_train_timesteps:
            raise ValueError(
                f"beta_end = {self.beta_end} becomes {self.beta_end * USUAL_TIMES / self.num_train_timesteps:g} by "
                f"scale_betas with num_train_timesteps = {self.num_train_timesteps}, and a beta is below 1; lower it"
            )
        return self


class VEProcess(Section):
    """Variance exploding, in continuous time; see diffusion.continuous.VE."""

    kind: Literal["ve"]
    sigma: Annotated[float, Field(gt=1, le=1e6)]
    t_min: NearEnds


class FlowProcess(Section):
    """Rectified flow; see diffusion.continuous.Flow."""

    kind: Literal["flow"]
    t_min: NearEnds


Process = Annotated[VPProcess | VEProcess | FlowProcess, Field(discriminator="kind")]


class Sampling(Section):
    """How pictures are drawn unless asked otherwise."""

    sampler: SamplerName
    num_inference_steps: Count
    guidance_scale: Annotated[float, Field(ge=0, le=100)]
    spacing: Spacing
    variance: Variance
    snr: Annotated[float, Field(gt=0, lt=1)]

    @model_validator(mode="after")
    def _check(self) -> Self:
        for key in ("variance", "snr"):
            owner, other = SAMPLER_OPTIONS[key]
            if (value := getattr(self, key)) != other and self.sampler != owner:
                raise ValueError(f"{key} = {value!r} is {owner}'s alone; sampler = {self.sampler!r} takes {other}")
        if self.sampler == "ode" and self.spacing != "linspace":
            raise ValueError(f"spacing = {self.spacing!r} does not go with sampler = 'ode'; use linspace")
        if self.sampler == "ode" and self.num_inference_steps < 2:
            raise ValueError("num_inference_steps = 1 does not go with sampler = 'ode'; use 2 or more")
        return self


def check_objective(process: Process, prediction: PredictionType, weighting: Weighting, loss: LossName) -> None:
    """Refuse an objective that the process does not allow, or a weighting of another loss; keys are train_unet's."""
    if prediction in NOISE_PREDICTIONS and (cause := _noise_alone(process)) is not None:
        raise ValueError(
            f"prediction_type = {prediction!r} does not go with process.{cause}, which ends in noise alone; "
            "use v_prediction, sample or flow_prediction"
        )
    if weighting != "uniform" and loss != "l2":
        raise ValueError(f"weighting = {weighting!r} does not go with loss = {loss!r}; use l2, or weighting uniform")


def _noise_alone(process: Process) -> str | None:
    """What makes a process end where nothing is left of the picture, if it does."""
    if isinstance(process, VPProcess):
        return "rescale_betas_zero_snr = true" if process.rescale_betas_zero_snr else None
    return "kind = 'flow'" if isinstance(process, FlowProcess) else None


def check_sampling(section: str, how: Sampling, process: Process, prediction: PredictionType) -> None:
    """Refuse a way of sampling that does not go with the process or the prediction; `section` holds `how`."""
    key = f"{section}.sampling"
    if how.sampler in EPSILON_ONLY and prediction not in NOISE_PREDICTIONS:
        raise ValueError(
            f"{key}.sampler = {how.sampler!r} needs train_unet.prediction_type = 'epsilon', not {prediction!r}; "
            "use dpmpp_2m"
        )
    if isinstance(process, VPProcess):
        times = "train_unet.process.num_train_timesteps"
        at_most(f"{key}.num_inference_steps", how.num_inference_steps, times, process.num_train_timesteps)
    elif how.spacing not in CONTINUOUS_SPACINGS:
        raise ValueError(
            f"{key}.spacing = {how.spacing!r} needs discrete times, which train_unet.process.kind = {process.kind!r} "
            f"has not; use {' or '.join(CONTINUOUS_SPACINGS)}"
        )
