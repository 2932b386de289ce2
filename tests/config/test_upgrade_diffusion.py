"""The step of `darkroom params upgrade` for diffusion. Each test says which fault it would catch."""

from typing import Any

import pytest
import yaml

from darkroom.config.params import Params
from darkroom.config.upgrade_diffusion import upgrade_diffusion
from tests.support.params import SOUND

BETAS = {"beta_start": 0.0001, "beta_end": 0.02, "scale_betas": False}
SAMPLED = {"num_inference_steps": 12, "guidance_scale": 3.0, "spacing": "trailing"}


def before(schedule: str, weighting: str, sampler: str) -> dict[str, Any]:
    """The default recipe with the keys of the time before."""
    values: dict[str, Any] = yaml.safe_load(SOUND)
    trained = values["train_unet"]
    del trained["objective"]
    trained |= {"prediction_type": "v_prediction", "weighting": weighting, "loss": "l2", "reduction": "mean"}
    process = {"kind": "vp", "schedule": schedule, "num_train_timesteps": 1000, "rescale_betas_zero_snr": False}
    trained["process"] = process | BETAS
    for section in (trained, values["evaluate"]):
        section["sampling"] = {"sampler": sampler, **SAMPLED, "variance": "beta_tilde", "snr": 0.16}
    return values


@pytest.mark.parametrize(
    ("schedule", "weighting", "sampler", "expected"),
    [
        ("cosine", "uniform", "dpmpp_2m", ({"kind": "cosine"}, {"kind": "uniform"}, {"kind": "dpmpp_2m"})),
        (
            "linear",
            "min_snr",
            "ddpm",
            (
                {"kind": "linear", **BETAS},
                {"kind": "min_snr", "gamma": 5.0},
                {"kind": "ddpm", "variance": "beta_tilde"},
            ),
        ),
        (
            "sigmoid",
            "edm",
            "ddim",
            ({"kind": "sigmoid", **BETAS}, {"kind": "edm", "sigma_data": 0.5}, {"kind": "ddim", "eta": 0.0}),
        ),
    ],
)
def test_older_keys_keep_their_meaning(schedule: str, weighting: str, sampler: str, expected: Any) -> None:
    """Fails if a value is lost or changed, or a key is left that nothing reads."""
    upgraded = upgrade_diffusion(before(schedule, weighting, sampler))
    params = Params.model_validate(upgraded)
    trained, drawn = params.train_unet.model_dump(), params.evaluate.model_dump()["sampling"]
    assert (trained["process"]["schedule"], trained["objective"]["weighting"], drawn["sampler"]) == expected
    assert trained["objective"]["times"] == {"kind": "stratified"}
    assert trained["sampling"] == drawn


def test_todays_keys_stay_as_they_are() -> None:
    """Fails if the step is not its own fixed point."""
    values = yaml.safe_load(SOUND)
    assert upgrade_diffusion(values) == values
