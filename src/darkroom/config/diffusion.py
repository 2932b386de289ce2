"""What may be asked of the noise process and the training objective, and what goes together.

These classes are sections of params.yaml and of our own artifacts, and the arguments of `diffusion.process.process_of`
and `diffusion.objective.Objective`.
"""

from typing import Annotated, Literal, Self

from pydantic import Field, model_validator

from darkroom.config.base import Section, check_at_most
from darkroom.config.choices import NOISE_PREDICTIONS, USUAL_TIMES, PredictionType
from darkroom.config.sampling import CONTINUOUS_SPACINGS, Sampling

LossName = Literal["l2", "l1"]
Reduction = Literal["mean", "sum"]
Beta = Annotated[float, Field(gt=0, lt=1)]
NearEnds = Annotated[float, Field(gt=0, lt=0.5)]
Positive = Annotated[float, Field(gt=0, le=1e6)]


class BetaSchedule(Section):
    """Betas between a first and a last one."""

    kind: Literal["linear", "scaled_linear", "sigmoid"]
    """linear: DDPM (Ho et al. 2020), section 4. scaled_linear: linear in the root of beta (latent diffusion). sigmoid:
    from sigmoid(-6) to sigmoid(6) (GeoDiff, Xu et al. 2022)."""
    beta_start: Beta
    """The first beta, in (0, 1)."""
    beta_end: Beta
    """The last beta, in (0, 1)."""
    scale_betas: bool
    """Multiply the betas by 1000 / num_train_timesteps, so that few times end in as much noise as 1000 do."""

    @model_validator(mode="after")
    def _check(self) -> Self:
        if self.beta_start > self.beta_end:
            raise ValueError(f"beta_start = {self.beta_start} is above beta_end = {self.beta_end}; lower it")
        return self


class CosineSchedule(Section):
    """Improved DDPM (Nichol & Dhariwal 2021), eq. 17; betas clipped at 0.999."""

    kind: Literal["cosine"]
    """cosine: alpha_bar falls as a squared cosine."""


class VPProcess(Section):
    """The variance-preserving chain of DDPM in discrete times; see diffusion.schedule.DiscreteVP."""

    kind: Literal["vp"]
    """vp: variance preserving, alpha^2 + sigma^2 = 1."""
    schedule: Annotated[BetaSchedule | CosineSchedule, Field(discriminator="kind")]
    """How beta, the variance of the noise that each time adds, rises."""
    num_train_timesteps: Annotated[int, Field(ge=1, le=100_000)]
    """T: the number of discrete times."""
    rescale_betas_zero_snr: bool
    """Shift and scale alpha so that it ends at 0 (Lin et al. 2024, algorithm 1)."""

    @model_validator(mode="after")
    def _check(self) -> Self:
        schedule, times = self.schedule, self.num_train_timesteps
        if isinstance(schedule, BetaSchedule) and schedule.scale_betas and schedule.beta_end * USUAL_TIMES >= times:
            raise ValueError(
                f"schedule.beta_end = {schedule.beta_end} becomes {schedule.beta_end * USUAL_TIMES / times:g} by "
                f"scale_betas with num_train_timesteps = {times}, and a beta is below 1; lower it"
            )
        return self


class VEProcess(Section):
    """The variance-exploding SDE dx = sigma^t dw (Song et al. 2021); see diffusion.continuous.VE."""

    kind: Literal["ve"]
    """ve: variance exploding, alpha = 1."""
    sigma: Annotated[float, Field(gt=1, le=1e6)]
    """The base of sigma^t, above 1; 25 in the authors' tutorial."""
    t_min: NearEnds
    """How near training comes to both ends of [0, 1]."""


class FlowProcess(Section):
    """Rectified flow (Liu et al. 2022): alpha = 1 - t, sigma = t; see diffusion.continuous.Flow."""

    kind: Literal["flow"]
    """flow: straight lines from the picture to the noise."""
    t_min: NearEnds
    """How near training comes to both ends of [0, 1]."""


ProcessConfig = Annotated[VPProcess | VEProcess | FlowProcess, Field(discriminator="kind")]


class UniformWeighting(Section):
    """The error of the prediction itself weighs 1 at every level. For epsilon that is weighing x0's error by SNR, as
    1 / sigma^2 in EDM's VP and VE losses."""

    kind: Literal["uniform"]
    """uniform: every level's error counts alike."""


class MinSNRWeighting(Section):
    """The squared error of x0 weighs min(SNR, gamma) (Hang et al. 2023, eq. 8)."""

    kind: Literal["min_snr"]
    """min_snr: the SNR, up to a limit."""
    gamma: Positive
    """Where the weight stops to rise; the paper recommends 5."""


class P2Weighting(Section):
    """The squared error of x0 weighs SNR / (k + SNR) (Choi et al. 2022, with their gamma of 1)."""

    kind: Literal["p2"]
    """p2: less weight on the nearly clean levels."""
    k: Positive
    """The SNR at which the weight is a half; 1 in the paper."""


class EDMWeighting(Section):
    """The squared error of x0 weighs SNR + 1 / sigma_data^2 (Karras et al. 2022, table 1): (s^2 + sigma_data^2) /
    (sigma_data s)^2 with s = sigma / alpha. With sigma_data 1 it is uniform for v_prediction of a variance-preserving
    process."""

    kind: Literal["edm"]
    """edm: the SNR and a constant."""
    sigma_data: Positive
    """The standard deviation of the pictures or latents; 0.5 in the paper."""


class StratifiedTimes(Section):
    """Uniform, one from each n-th of the range in a batch of n (Kingma et al. 2021, appendix I.1)."""

    kind: Literal["stratified"]
    """stratified: each time is uniform, and a batch covers the levels evenly."""


class UniformTimes(Section):
    """Uniform and independent, as in DDPM's algorithm 1."""

    kind: Literal["uniform"]
    """uniform: each time by itself."""


class LogitNormalTimes(Section):
    """The logit of the time is normal (Esser et al. 2024, "Scaling rectified flow transformers", eq. 19); stratified
    within a batch.

    On a flow it is the logarithm of sigma / alpha that is normal: location -1.2 and scale 1.2 are EDM's P_mean and
    P_std (Karras et al. 2022), but for t_min.
    """

    kind: Literal["logit_normal"]
    """logit_normal: of the time as a share of the trained range, for every process."""
    location: Annotated[float, Field(ge=-10, le=10)]
    """m, the mean of the logit: above 0 for more noise; 0 in the paper's best run."""
    scale: Annotated[float, Field(gt=0, le=10)]
    """s, the standard deviation of the logit; 1 in the paper's best run."""


class ShiftedTimes(Section):
    """Rectified flow's uniform times shifted to more noise for larger pictures (Esser et al. 2024, eq. 23); stratified
    within a batch."""

    kind: Literal["shifted"]
    """shifted: t' = shift t / (1 + (shift - 1) t), which multiplies sigma / alpha by the shift; of flows alone."""
    shift: Annotated[float, Field(gt=0, le=1000)]
    """sqrt(m / n) for pictures of m pixels in place of n; 3 in the paper."""


Weighting = UniformWeighting | MinSNRWeighting | P2Weighting | EDMWeighting
Times = StratifiedTimes | UniformTimes | LogitNormalTimes | ShiftedTimes


class ObjectiveConfig(Section):
    """What the network predicts, at which times, and how its errors are measured; see diffusion.objective.Objective."""

    prediction_type: PredictionType
    """What the network answers; see diffusion.prediction."""
    weighting: Annotated[Weighting, Field(discriminator="kind")]
    """How errors weigh at a level, with SNR = (alpha / sigma)^2."""
    loss: LossName
    """l2: the squared error; l1: its absolute value."""
    reduction: Reduction
    """mean or sum over the elements of a sample."""
    times: Annotated[Times, Field(discriminator="kind")]
    """From which law the times of a batch are drawn."""

    @model_validator(mode="after")
    def _check(self) -> Self:
        if self.weighting.kind != "uniform" and self.loss != "l2":
            raise ValueError(
                f"weighting.kind = {self.weighting.kind!r} weighs squared errors, but loss = {self.loss!r}; use l2, or "
                "weighting.kind uniform"
            )
        return self


def check_objective(process: ProcessConfig, objective: ObjectiveConfig) -> None:
    """Refuse an objective that does not go with the process; keys are train_unet's.

    Raises:
        ValueError: names key, value and remedy.
    """
    prediction, times = objective.prediction_type, objective.times
    if prediction in NOISE_PREDICTIONS and (cause := _noise_alone(process)) is not None:
        raise ValueError(
            f"objective.prediction_type = {prediction!r} does not go with process.{cause}, which ends in noise alone; "
            "use v_prediction, sample or flow_prediction"
        )
    if isinstance(times, ShiftedTimes) and not isinstance(process, FlowProcess):
        raise ValueError(
            f"objective.times.kind = 'shifted' is defined on a rectified flow's time, but process.kind = "
            f"{process.kind!r}; use logit_normal, or process.kind flow"
        )


def _noise_alone(process: ProcessConfig) -> str | None:
    """What makes a process end where nothing is left of the picture, if it does."""
    if isinstance(process, VPProcess):
        return "rescale_betas_zero_snr = true" if process.rescale_betas_zero_snr else None
    return "kind = 'flow'" if isinstance(process, FlowProcess) else None


def check_sampling(section: str, sampling: Sampling, process: ProcessConfig, prediction: PredictionType) -> None:
    """Refuse a way of sampling that does not go with the process or the prediction, or that params.yaml does not state.

    Args:
        section: of params.yaml, which holds `sampling`.

    Raises:
        ValueError: names key, value and remedy.
    """
    key = f"{section}.sampling"
    if conventions := sorted(sampling.model_fields_set & Sampling.conventions()):
        raise ValueError(
            f"{key}.{conventions[0]} is not a key of params.yaml but an option of darkroom generate; remove it"
        )
    if sampling.sampler.needs_noise_prediction and prediction not in NOISE_PREDICTIONS:
        raise ValueError(
            f"{key}.sampler.kind = {sampling.sampler.kind!r} needs train_unet.objective.prediction_type = 'epsilon', "
            f"not {prediction!r}; use dpmpp_2m"
        )
    if isinstance(process, VPProcess):
        times = "train_unet.process.num_train_timesteps"
        check_at_most(f"{key}.num_inference_steps", sampling.num_inference_steps, times, process.num_train_timesteps)
    elif sampling.spacing not in CONTINUOUS_SPACINGS:
        raise ValueError(
            f"{key}.spacing = {sampling.spacing!r} needs discrete times, which train_unet.process.kind = "
            f"{process.kind!r} has not; use {' or '.join(CONTINUOUS_SPACINGS)}"
        )
