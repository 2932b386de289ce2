"""Processes, objectives and ways of sampling in one line each, for tests."""

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from darkroom.config.diffusion import FlowProcess, ObjectiveConfig, VEProcess, VPProcess
from darkroom.config.sampling import SAMPLERS, Sampling, sampler_named
from darkroom.diffusion.continuous import VE, Flow
from darkroom.diffusion.generate import ignore_step
from darkroom.diffusion.objective import Objective
from darkroom.diffusion.process import Process
from darkroom.diffusion.samplers._base import AtRatio, Denoise, Noise, OnStep, Sampler
from darkroom.diffusion.schedule import DiscreteVP, Level

WEIGHTINGS: dict[str, dict[str, Any]] = {
    "uniform": {},
    "min_snr": {"gamma": 5.0},
    "p2": {"k": 1.0},
    "edm": {"sigma_data": 0.5},
}


def vp_config(
    schedule: str,
    beta_start: float = 0.0001,
    beta_end: float = 0.02,
    times: int = 1000,
    *,
    scale_betas: bool = False,
    rescale_betas_zero_snr: bool = False,
) -> VPProcess:
    """A variance-preserving process; a cosine schedule has no betas."""
    betas = {"beta_start": beta_start, "beta_end": beta_end, "scale_betas": scale_betas}
    values = {"kind": schedule, **({} if schedule == "cosine" else betas)}
    return VPProcess.model_validate(
        {
            "kind": "vp",
            "schedule": values,
            "num_train_timesteps": times,
            "rescale_betas_zero_snr": rescale_betas_zero_snr,
        }
    )


def make_vp(*arguments: Any, **options: Any) -> DiscreteVP:
    """See `vp_config`."""
    return DiscreteVP(vp_config(*arguments, **options))


def make_ve(sigma: float, t_min: float) -> VE:
    """A variance-exploding process."""
    return VE(VEProcess(kind="ve", sigma=sigma, t_min=t_min))


def make_flow(t_min: float) -> Flow:
    """A rectified flow."""
    return Flow(FlowProcess(kind="flow", t_min=t_min))


def make_objective(
    process: Process,
    prediction_type: str,
    weighting: str = "uniform",
    loss: str = "l2",
    reduction: str = "mean",
    times: dict[str, Any] | None = None,
) -> Objective:
    """An objective; weightings have the published constants."""
    config = {
        "prediction_type": prediction_type,
        "weighting": {"kind": weighting, **WEIGHTINGS.get(weighting, {})},
        "loss": loss,
        "reduction": reduction,
        "times": times or {"kind": "stratified"},
    }
    return Objective(process, ObjectiveConfig.model_validate(config))


def make_sampling(
    sampler: str, num_inference_steps: int, guidance_scale: float, spacing: str, **values: Any
) -> Sampling:
    """A way of sampling; options of the sampler are given beside the others."""
    options = {key: values.pop(key) for key in SAMPLERS.of(sampler).model_fields.keys() & values.keys()}
    keys = {"num_inference_steps": num_inference_steps, "guidance_scale": guidance_scale, "spacing": spacing}
    return Sampling.model_validate({"sampler": sampler_named(sampler, **options), **keys, **values})


@torch.no_grad()
def sample(
    name: str,
    denoise: Denoise,
    x: Tensor,
    levels: Sequence[Level],
    noise: Noise,
    on_step: OnStep = ignore_step,
    at_ratio: AtRatio = lambda ratio: Level(1.0, ratio),
    **options: Any,
) -> Tensor:
    """Where a sampler with its options takes x."""
    sampler: Sampler = sampler_named(name, **options)
    return sampler.rule(at_ratio)(denoise, x, levels, noise, on_step)
