"""params.yaml about noise processes: every fault is one line that names the key, the value and the remedy."""

from pathlib import Path
from typing import Any

import pytest
import yaml

from tests.support.params import SOUND, faults

VE = {"kind": "ve", "sigma": 25.0, "t_min": 1e-5}
FLOW = {"kind": "flow", "t_min": 0.001}
BETAS = {"kind": "linear", "beta_start": 0.0001, "beta_end": 0.02, "scale_betas": False}
VP = {"kind": "vp", "schedule": BETAS, "num_train_timesteps": 1000, "rescale_betas_zero_snr": False}
ODE = {"kind": "ode", "tolerance": 1e-5}
# Faults of how pictures become noise and are learnt: changes of train_unet, and what is said.
PROCESS_FAULTS: dict[str, tuple[dict[str, Any], str]] = {
    "no kind": (
        {"process": {"sigma": 25.0, "t_min": 1e-5}},
        "process.kind is missing; add it (darkroom recipe show",
    ),
    "another kind": ({"process": {"kind": "vpp"}}, "process.kind = 'vpp': give vp or ve or flow; did you mean vp?"),
    "a key of another kind": (
        {"process": {**VE, "beta_start": 0.1}},
        "process.beta_start = 0.1 is an unknown key; remove it; known keys: kind, sigma, t_min",
    ),
    "a key too few": ({"process": {"kind": "ve", "sigma": 25.0}}, "process.t_min is missing; add it"),
    "a range that is none": ({"process": {**FLOW, "t_min": 0.5}}, "process.t_min = 0.5: give a number > 0 and < 0.5"),
    "noise that does not grow": ({"process": {**VE, "sigma": 1.0}}, "process.sigma = 1.0: give a number > 1 and <= 1e"),
    "scaled betas above 1": (
        {"process": {**VP, "num_train_timesteps": 20, "schedule": {**BETAS, "scale_betas": True}}},
        "process.schedule.beta_end = 0.02 becomes 1 by scale_betas with num_train_timesteps = 20, and a beta",
    ),
    "betas of none": (
        {"process": {**VP, "schedule": {"kind": "cosine", "beta_start": 0.1}}},
        "process.schedule.beta_start = 0.1 is an unknown key; remove it; known keys: kind",
    ),
    "another schedule": (
        {"process": {**VP, "schedule": {"kind": "linaer"}}},
        "process.schedule.kind = 'linaer': give linear or scaled_linear or sigmoid or cosine; did you mean linear?",
    ),
    "a schedule without its betas": (
        {"process": {**VP, "schedule": {key: BETAS[key] for key in ("kind", "beta_start", "scale_betas")}}},
        "process.schedule.beta_end is missing; add it",
    ),
    "noise of noise alone": (
        {"process": {**VP, "rescale_betas_zero_snr": True}, "objective.prediction_type": "epsilon"},
        "objective.prediction_type = 'epsilon' does not go with process.rescale_betas_zero_snr = true, which ends in "
        "noise alone; use v_prediction, sample or flow_prediction",
    ),
    "the score of noise alone": (
        {"process": FLOW, "objective.prediction_type": "score"},
        "objective.prediction_type = 'score' does not go with process.kind = 'flow', which ends in noise alone; use",
    ),
    "weights of another loss": (
        {"objective.loss": "l1", "objective.weighting": {"kind": "edm", "sigma_data": 0.5}},
        "objective.weighting.kind = 'edm' weighs squared errors, but loss = 'l1'; use l2, or weighting.kind uniform",
    ),
    "a constant of another weighting": (
        {"objective.weighting": {"kind": "p2", "k": 1.0, "gamma": 5.0}},
        "objective.weighting.gamma = 5.0 is an unknown key; remove it; known keys: k, kind",
    ),
    "times of another law": (
        {"objective.times": {"kind": "logit_normal", "location": 0.0, "scale": 0.0}},
        "objective.times.scale = 0.0: give a number > 0 and <= 10",
    ),
    "a shift of what is not a flow": (
        {"objective.times": {"kind": "shifted", "shift": 3.0}},
        "objective.times.kind = 'shifted' is defined on a rectified flow's time, but process.kind = 'vp'; use "
        "logit_normal, or process.kind flow",
    ),
    "discrete spacing": (
        {"process": VE, "sampling.spacing": "leading"},
        "sampling.spacing = 'leading' needs discrete times, which train_unet.process.kind = 've' has not; "
        "use linspace or trailing",
    ),
    "another sampler": (
        {"sampling.sampler": {"kind": "dpmpp"}},
        "sampling.sampler.kind = 'dpmpp': give ddim or ddpm or dpmpp_2m or dpmpp_2m_sde or euler or euler_ancestral or "
        "euler_maruyama or heun or ode or pndm or predictor_corrector; did you mean dpmpp_2m?",
    ),
    "an option of another sampler": (
        {"sampling.sampler": {"kind": "dpmpp_2m", "variance": "beta"}},
        "sampling.sampler.variance = 'beta' is an unknown key; ",
    ),
    "an option left out": ({"sampling.sampler": {"kind": "ddim"}}, "sampling.sampler.eta is missing; add it"),
    "an option out of range": (
        {"sampling.sampler": {"kind": "ddim", "eta": 2.0}},
        "sampling.sampler.eta = 2.0: give a number >= 0 and <= 1",
    ),
    "a choice that is none": (
        {"sampling.sampler": {"kind": "ddpm", "variance": "betta"}},
        "sampling.sampler.variance = 'betta': give beta_tilde or beta; did you mean beta?",
    ),
    "a convention": (
        {"sampling.karras": True},
        "sampling.karras is not a key of params.yaml but an option of darkroom generate; remove it",
    ),
    "an equation that ends early": (
        {"sampling.sampler": ODE},
        "sampling.spacing = 'trailing' does not go with sampler.kind = 'ode', which goes from the last time to the "
        "first; use linspace",
    ),
    "an equation without length": (
        {"sampling.sampler": ODE, "sampling.spacing": "linspace", "sampling.num_inference_steps": 1},
        "sampling.num_inference_steps = 1 does not go with sampler.kind = 'ode'; use 2 or more",
    ),
    "a history without a beginning": (
        {"process": FLOW, "objective.prediction_type": "sample", "sampling.sampler": {"kind": "pndm"}},
        "sampling.sampler.kind = 'pndm' needs train_unet.objective.prediction_type = 'epsilon', not 'sample'; use dpm",
    ),
}


def with_changes(changes: dict[str, Any]) -> str:
    """The default recipe with `changes` of train_unet, whose keys may be dotted."""
    values = yaml.safe_load(SOUND)
    for key, value in changes.items():
        *sections, last = ["train_unet", *key.split(".")]
        place = values
        for section in sections:
            place = place[section]
        place[last] = value
    return yaml.safe_dump(values)


@pytest.mark.parametrize(("changes", "said"), PROCESS_FAULTS.values(), ids=PROCESS_FAULTS)
def test_a_fault_of_the_process_is_said_in_one_line(changes: dict[str, Any], said: str, tmp_path: Path) -> None:
    (line,) = faults(with_changes(changes), tmp_path)
    assert line.startswith(f"train_unet.{said}")


@pytest.mark.parametrize(
    "changes",
    [
        {
            "process": VE,
            "objective.prediction_type": "score",
            "objective.reduction": "sum",
            "sampling.spacing": "linspace",
            "objective.times": {"kind": "uniform"},
        },
        {
            "process": FLOW,
            "objective.prediction_type": "flow_prediction",
            "sampling.num_inference_steps": 2000,
            "objective.times": {"kind": "shifted", "shift": 3.0},
        },
        {
            "process": {**VP, "num_train_timesteps": 300, "schedule": {**BETAS, "scale_betas": True}},
            "objective.loss": "l1",
            "objective.times": {"kind": "logit_normal", "location": 0.0, "scale": 1.0},
        },
        {
            "process": {**VP, "schedule": {**BETAS, "kind": "sigmoid"}, "rescale_betas_zero_snr": True},
            "objective.weighting": {"kind": "p2", "k": 1.0},
        },
        {"sampling.sampler": {"kind": "ddpm", "variance": "beta"}},
        {"sampling.sampler": {"kind": "predictor_corrector", "snr": 0.2}},
        {
            "process": VE,
            "objective.prediction_type": "score",
            "sampling.sampler": ODE,
            "sampling.spacing": "linspace",
        },
    ],
)
def test_every_kind_of_process_can_be_asked_for(changes: dict[str, Any], tmp_path: Path) -> None:
    assert faults(with_changes(changes), tmp_path) == []
