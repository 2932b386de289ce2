"""params.yaml about noise processes: every fault is one line that names the key, the value and the remedy."""

from pathlib import Path
from typing import Any

import pytest
import yaml

from tests.support.params import SOUND, faults

VE = {"kind": "ve", "sigma": 25.0, "t_min": 1e-5}
FLOW = {"kind": "flow", "t_min": 0.001}
VP = {
    "kind": "vp",
    "schedule": "linear",
    "beta_start": 0.0001,
    "beta_end": 0.02,
    "num_train_timesteps": 1000,
    "scale_betas": False,
    "rescale_betas_zero_snr": False,
}
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
        {"process": {**VP, "num_train_timesteps": 20, "scale_betas": True}},
        "process.beta_end = 0.02 becomes 1 by scale_betas with num_train_timesteps = 20, and a beta is below 1; lower",
    ),
    "scaled betas of none": (
        {"process": {**VP, "schedule": "cosine", "scale_betas": True}},
        "process.scale_betas = true needs betas, which schedule = 'cosine' does not read; give false",
    ),
    "noise of noise alone": (
        {"process": {**VP, "rescale_betas_zero_snr": True}, "prediction_type": "epsilon"},
        "prediction_type = 'epsilon' does not go with process.rescale_betas_zero_snr = true, which ends in noise "
        "alone; use v_prediction, sample or flow_prediction",
    ),
    "the score of noise alone": (
        {"process": FLOW, "prediction_type": "score"},
        "prediction_type = 'score' does not go with process.kind = 'flow', which ends in noise alone; use v_prediction",
    ),
    "weights of another loss": (
        {"loss": "l1", "weighting": "edm"},
        "weighting = 'edm' does not go with loss = 'l1'; use l2, or weighting uniform",
    ),
    "discrete spacing": (
        {"process": VE, "sampling.spacing": "leading"},
        "sampling.spacing = 'leading' needs discrete times, which train_unet.process.kind = 've' has not; "
        "use linspace or trailing",
    ),
    "a corrector of another sampler": (
        {"sampling.snr": 0.2},
        "sampling.snr = 0.2 is predictor_corrector's alone; sampler = 'dpmpp_2m' takes 0.16",
    ),
    "an equation that ends early": (
        {"sampling.sampler": "ode"},
        "sampling.spacing = 'trailing' does not go with sampler = 'ode'; use linspace",
    ),
    "an equation without length": (
        {"sampling.sampler": "ode", "sampling.spacing": "linspace", "sampling.num_inference_steps": 1},
        "sampling.num_inference_steps = 1 does not go with sampler = 'ode'; use 2 or more",
    ),
    "a history without a beginning": (
        {"process": FLOW, "prediction_type": "sample", "sampling.sampler": "pndm"},
        "sampling.sampler = 'pndm' needs train_unet.prediction_type = 'epsilon', not 'sample'; use dpmpp_2m",
    ),
    "a variance of another sampler": (
        {"sampling.variance": "beta"},
        "sampling.variance = 'beta' is ddpm's alone; sampler = 'dpmpp_2m' takes beta_tilde",
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
        {"process": VE, "prediction_type": "score", "reduction": "sum", "sampling.spacing": "linspace"},
        {"process": FLOW, "prediction_type": "flow_prediction", "sampling.num_inference_steps": 2000},
        {"process": {**VP, "num_train_timesteps": 300, "scale_betas": True}, "loss": "l1"},
        {"process": {**VP, "schedule": "sigmoid", "rescale_betas_zero_snr": True}, "weighting": "p2"},
        {"sampling.sampler": "ddpm", "sampling.variance": "beta"},
        {"sampling.sampler": "predictor_corrector", "sampling.snr": 0.2},
        {"process": VE, "prediction_type": "score", "sampling.sampler": "ode", "sampling.spacing": "linspace"},
    ],
)
def test_every_kind_of_process_can_be_asked_for(changes: dict[str, Any], tmp_path: Path) -> None:
    assert faults(with_changes(changes), tmp_path) == []
