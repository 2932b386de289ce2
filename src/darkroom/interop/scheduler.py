"""scheduler_config.json of a diffusers folder: the process a model was trained on, and how it is sampled."""

import math
from dataclasses import replace
from pathlib import Path
from typing import Any, NamedTuple, get_args

from darkroom.config.choices import NOISE_PREDICTIONS, USUAL_TIMES, PredictionType
from darkroom.config.diffusion import BetaSchedule, ProcessConfig, VPProcess
from darkroom.config.sampling import Sampling, Spacing, checked, sampler_named
from darkroom.core.artifact import FETCH
from darkroom.core.errors import DarkroomError
from darkroom.core.text import printable
from darkroom.interop.configs import tagged
from darkroom.interop.defaults import FILE as DEFAULTS
from darkroom.interop.defaults import Defaults
from darkroom.interop.process import checked_process

SCHEDULER, SCHEDULER_CONFIG = "scheduler", "scheduler_config.json"
SCHEDULES = {"linear": "linear", "scaled_linear": "scaled_linear", "squaredcos_cap_v2": "cosine"}
# What diffusers says beside a cosine schedule, which reads neither.
UNREAD_BETAS = {"beta_start": 0.0001, "beta_end": 0.02}
PREDICTIONS: tuple[PredictionType, ...] = ("epsilon", "v_prediction", "sample")
STEPS, GUIDANCE_SCALE = 50, 7.5  # what StableDiffusionPipeline does unless told otherwise
STEPS_OFFSET = 1  # StableDiffusionPipeline puts it in the place of any other, which only the leading spacing reads


class Kind(NamedTuple):
    """A scheduler class.

    sampler: ours. spacing: the class's own, where the file says none. ends_clean: its last step ends at the clean
    picture, unless set_alpha_to_one says otherwise. own: what it says besides the process. needed: what it must say, or
    it walks as none here. refused: kinds of prediction that the class does not take. strides: it goes on by a whole
    number of times, the same at each step (DDPM's class did up to some version), as linspace's times do not lie.
    zero_snr: its process ends at alpha 0 where that is asked for; others stop at 2^-12, which draws other pictures.
    omits_last: but for trailing spacing, see `level_grid`. from_sigma: but for leading spacing, it begins with noise of
    the first level's sigma, see `Sampling`.
    """

    sampler: str
    spacing: Spacing
    ends_clean: bool
    stated: dict[str, Any]
    needed: tuple[tuple[str, Any], ...] = ()
    refused: tuple[str, ...] = ()
    strides: bool = False
    zero_snr: bool = False
    omits_last: bool = False
    from_sigma: bool = False

    def conventions(self, spacing: str) -> dict[str, Any]:
        """What the class does without saying so, in the words of `Sampling`."""
        silent: dict[str, Any] = {
            "omit_last": self.omits_last and spacing != "trailing",
            "initial_scale": "sigma" if self.from_sigma and spacing != "leading" else "one",
        }
        if "set_alpha_to_one" not in self.stated:
            silent["set_alpha_to_one"] = self.ends_clean
        if "use_karras_sigmas" not in self.stated:
            silent["karras"] = False
        return silent


ZERO_SNR = "rescale_betas_zero_snr"  # by us and by diffusers
PLAIN = {"clip_sample": False, "thresholding": False, ZERO_SNR: False}
SIGMAS = {"final_sigmas_type": "zero", "use_karras_sigmas": False}
SCHEDULERS = {
    "DDIMScheduler": Kind("ddim", "leading", True, {**PLAIN, "set_alpha_to_one": True}, strides=True, zero_snr=True),
    "PNDMScheduler": Kind(
        "pndm",
        "leading",
        False,
        {"skip_prk_steps": True, "set_alpha_to_one": False},
        needed=(("skip_prk_steps", True),),
        refused=("sample",),
        strides=True,
    ),
    "DDPMScheduler": Kind("ddpm", "leading", True, {**PLAIN, "variance_type": "fixed_small"}, strides=True),
    "EulerDiscreteScheduler": Kind("euler", "linspace", True, SIGMAS, from_sigma=True),
    "EulerAncestralDiscreteScheduler": Kind(
        "euler_ancestral", "linspace", True, {}, refused=("sample",), from_sigma=True
    ),
    "HeunDiscreteScheduler": Kind("heun", "linspace", True, {"use_karras_sigmas": False}, from_sigma=True),
    "DPMSolverMultistepScheduler": Kind(
        "dpmpp_2m",
        "linspace",
        True,
        {"algorithm_type": "dpmsolver++", "solver_order": 2, "final_sigmas_type": "zero"},
        needed=(("use_karras_sigmas", False), ("lambda_min_clipped", -math.inf)),  # which move its times elsewhere
        omits_last=True,
    ),
}
SDE = {"dpmsolver++": "dpmpp_2m", "sde-dpmsolver++": "dpmpp_2m_sde"}  # algorithm_type of DPMSolverMultistepScheduler
VARIANCES = {"fixed_small": "beta_tilde", "fixed_large": "beta"}  # variance_type of DDPMScheduler

# What would change the pictures and is not done here: each of these keys is absent or has this value.
NEUTRAL: dict[str, Any] = {
    "trained_betas": None,
    "clip_sample": False,
    "thresholding": False,
    ZERO_SNR: False,
    "use_exponential_sigmas": False,
    "use_beta_sigmas": False,
    "use_flow_sigmas": False,
    "use_lu_lambdas": False,
    "interpolation_type": "linear",
    "timestep_type": "discrete",
    "final_sigmas_type": "zero",
    "sigma_min": None,
    "sigma_max": None,
    "solver_order": 2,
    "solver_type": "midpoint",
    "euler_at_final": False,
}
UNEVEN = "whose steps are all of one whole length and do not lead from one of these times to the next"
# Read elsewhere in this file, or without effect beside what is demanded above.
KNOWN = {
    *("_class_name", "_diffusers_version", "beta_start", "beta_end", "beta_schedule", "num_train_timesteps"),
    *("prediction_type", "timestep_spacing", "steps_offset", "set_alpha_to_one", "use_karras_sigmas", "variance_type"),
    *("algorithm_type", "skip_prk_steps", "lambda_min_clipped", "lower_order_final", "flow_shift"),
    *("use_dynamic_shifting", "time_shift_type", "clip_sample_range", "sample_max_value", "dynamic_thresholding_ratio"),
}
LEARNED = ("learned", "learned_range")  # variance_type that DPM-Solver has, too, of networks that predict it
SILENT = {"clip_sample": True, "skip_prk_steps": False}  # what a class that has the key does where the file is silent


def read_scheduler(folder: Path) -> tuple[ProcessConfig, PredictionType, Sampling]:
    """(process, prediction type, sampling) of a diffusers folder; steps and guidance are Stable Diffusion's usual ones.

    Raises:
        DarkroomError: the file is missing or says something that is not done here; names the key.
    """
    path = folder / SCHEDULER / SCHEDULER_CONFIG
    return _understood(path, tagged(path, tuple(SCHEDULERS)))


def read_drawing(folder: Path) -> tuple[ProcessConfig, PredictionType, Defaults]:
    """What `read_scheduler` reads, with steps, guidance and the rest as a file of ours in the folder says, if one does.

    Where the scheduler was changed since that file was written, the scheduler says how the steps are taken.
    """
    process, prediction, sampling = read_scheduler(folder)
    if (found := Defaults.read(folder)) is None:
        return process, prediction, Defaults(sampling, "fp32")
    ours, source = found
    if source.name == DEFAULTS:
        expected = scheduler_config(process, prediction, ours.sampling)
        if _understood(source, expected)[2] != sampling:
            kept = {key: getattr(ours.sampling, key) for key in ("num_inference_steps", "guidance_scale")}
            ours = replace(ours, sampling=sampling.changed(**kept))
    return process, prediction, ours


def _understood(path: Path, values: dict[str, Any]) -> tuple[ProcessConfig, PredictionType, Sampling]:
    """What the values of a scheduler_config.json at `path` say."""
    kind = SCHEDULERS[values["_class_name"]]

    def choice(key: str, default: str, allowed: tuple[str, ...]) -> str:
        value = values.get(key, default)
        if value not in allowed:
            raise DarkroomError(f"{path}: {key} = {printable(repr(value))} is not supported, only {', '.join(allowed)}")
        return str(value)

    wanted = {**NEUTRAL, **dict(kind.needed)}
    zero_snr = kind.zero_snr and bool(values.get(ZERO_SNR))
    if zero_snr:
        del wanted[ZERO_SNR]
    for key, neutral in wanted.items():
        value = values.get(key, SILENT.get(key, neutral) if key in kind.stated else neutral)
        if value != neutral:
            raise DarkroomError(f"{path}: {key} = {printable(repr(value))} is not supported, only {neutral!r}")
    if strange := sorted(k for k, v in values.items() if k not in KNOWN | NEUTRAL.keys() and v not in (None, False)):
        key = strange[0]
        what = f"{printable(key)} = {printable(repr(values[key]))}"
        raise DarkroomError(f"{path}: {what} is not known here, so pictures would not be the same")
    if kind.sampler == "dpmpp_2m" and values.get("variance_type") in LEARNED:
        raise DarkroomError(f"{path}: variance_type = {values['variance_type']!r} is not supported")
    if missing := [key for key in ("beta_start", "beta_end") if key not in values]:
        raise DarkroomError(f"{path}: lacks {', '.join(missing)}; give a complete folder")
    for key in ("beta_start", "beta_end", "num_train_timesteps"):
        if isinstance(values.get(key, 1), bool) or not isinstance(values.get(key, 1), int | float):
            raise DarkroomError(f"{path}: {key} = {printable(repr(values[key]))}: give a number")
    schedule: dict[str, Any] = {"kind": SCHEDULES[choice("beta_schedule", "linear", tuple(SCHEDULES))]}
    if schedule["kind"] != "cosine":
        schedule |= {"beta_start": values["beta_start"], "beta_end": values["beta_end"], "scale_betas": False}
    said = {"kind": "vp", "schedule": schedule, ZERO_SNR: zero_snr}
    said["num_train_timesteps"] = values.get("num_train_timesteps", 1000)
    process = checked_process(said, f"{path}: process", FETCH)
    prediction: Any = choice("prediction_type", "epsilon", PREDICTIONS)
    if zero_snr and prediction in NOISE_PREDICTIONS:
        raise DarkroomError(f"{path}: {ZERO_SNR} = True is not supported with prediction_type = {prediction!r}")
    spacing = choice("timestep_spacing", kind.spacing, get_args(Spacing))
    if kind.strides and spacing == "linspace":
        raise DarkroomError(
            f"{path}: timestep_spacing = 'linspace' is not supported with {values['_class_name']}, {UNEVEN}; give "
            "trailing or leading, or a class such as EulerDiscreteScheduler"
        )
    sampler = SDE[choice("algorithm_type", "dpmsolver++", tuple(SDE))] if kind.sampler == "dpmpp_2m" else kind.sampler
    options = (
        {"variance": VARIANCES[choice("variance_type", "fixed_small", tuple(VARIANCES))]} if sampler == "ddpm" else {}
    )
    sampling: dict[str, Any] = {
        "sampler": sampler_named(sampler, **options),
        "num_inference_steps": STEPS,
        "guidance_scale": GUIDANCE_SCALE,
        "spacing": spacing,
        "steps_offset": STEPS_OFFSET,
        "set_alpha_to_one": bool(values.get("set_alpha_to_one", kind.ends_clean)),
        "karras": bool(values.get("use_karras_sigmas")),
        **kind.conventions(spacing),
    }
    return process, prediction, checked(Sampling, sampling, f"{path}: ")


def inexpressible(process: ProcessConfig, prediction_type: str) -> str | None:
    """What of a trained process diffusers' Stable Diffusion schedulers cannot say, if anything."""
    known_schedules = tuple(SCHEDULES.values())
    for key, value, known in (
        ("process.kind", process.kind, ("vp",)),
        ("process.schedule.kind", process.schedule.kind if isinstance(process, VPProcess) else None, known_schedules),
        ("prediction_type", prediction_type, PREDICTIONS),
    ):
        if value not in known:
            return f"{key} = {value!r}: diffusers' pipeline has only {', '.join(map(repr, known))}"
    return None


def obstacle(process: ProcessConfig, prediction_type: str, sampling: Sampling) -> str | None:
    """What of `Sampling` keeps StableDiffusionPipeline from the same times, whatever the scheduler: the key, its value
    and the remedy."""
    if sampling.spacing == "linspace" and SCHEDULERS[name := _class_of(process, prediction_type, sampling)].strides:
        return f"sampling.spacing = 'linspace' would be taken by {name}, {UNEVEN}; draw with trailing or leading"
    if sampling.spacing == "leading" and sampling.steps_offset != STEPS_OFFSET:
        return (
            f"sampling.steps_offset = {sampling.steps_offset} becomes {STEPS_OFFSET} in StableDiffusionPipeline, which "
            f"matters for spacing = 'leading'; draw with {STEPS_OFFSET}, or with trailing"
        )
    return None


def scheduler_config(process: ProcessConfig, prediction_type: str, sampling: Sampling) -> dict[str, Any]:
    """What `read_scheduler` reads, of a process that is not `inexpressible`: the class of the sampler, or DDIM's where
    that class does not take process or prediction, or walks otherwise. Scaled betas are written as what they become.

    Raises:
        DarkroomError: there is an `obstacle`.
    """
    if found := obstacle(process, prediction_type, sampling):
        raise DarkroomError(found)
    name = _class_of(process, prediction_type, sampling)
    assert isinstance(process, VPProcess)
    keys = dict(SCHEDULERS[name].stated)
    if ZERO_SNR in keys:
        keys[ZERO_SNR] = process.rescale_betas_zero_snr
    if "set_alpha_to_one" in keys:
        keys["set_alpha_to_one"] = sampling.set_alpha_to_one
    if "algorithm_type" in keys:
        keys["algorithm_type"] = next(key for key, sampler in SDE.items() if sampler == sampling.sampler.kind)
    if "variance_type" in keys:
        variance = sampling.sampler.model_dump()["variance"]
        keys["variance_type"] = next(theirs for theirs, ours in VARIANCES.items() if ours == variance)
    if "use_karras_sigmas" in keys:
        keys["use_karras_sigmas"] = sampling.karras
    schedule, betas = process.schedule, UNREAD_BETAS
    if isinstance(schedule, BetaSchedule):
        scale = USUAL_TIMES / process.num_train_timesteps if schedule.scale_betas else 1
        betas = {"beta_start": schedule.beta_start * scale, "beta_end": schedule.beta_end * scale}
    return {
        "_class_name": name,
        "num_train_timesteps": process.num_train_timesteps,
        **betas,
        "beta_schedule": next(theirs for theirs, ours in SCHEDULES.items() if ours == schedule.kind),
        "trained_betas": None,
        "prediction_type": prediction_type,
        "timestep_spacing": sampling.spacing,
        "steps_offset": STEPS_OFFSET,
        **keys,
    }


def _class_of(process: ProcessConfig, prediction_type: str, sampling: Sampling) -> str:
    return next(
        (
            name
            for name, kind in SCHEDULERS.items()
            if sampling.sampler.kind in (kind.sampler, SDE.get(f"sde-{kind.stated.get('algorithm_type')}"))
            and prediction_type not in kind.refused
            and (kind.zero_snr or not getattr(process, ZERO_SNR))
            and all(getattr(sampling, key) == value for key, value in kind.conventions(sampling.spacing).items())
        ),
        "DDIMScheduler",
    )
