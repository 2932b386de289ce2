"""What can be asked of sampling, and what is refused."""

from typing import Any

import pytest

from darkroom.core.errors import DarkroomError
from darkroom.diffusion.generate import Sampling
from darkroom.diffusion.schedule import DiscreteVP

FOUR: dict[str, Any] = {"sampler": "ddim", "num_inference_steps": 10, "guidance_scale": 3.0, "spacing": "leading"}
SCHEDULE = DiscreteVP("linear", 0.0001, 0.02, 1000)


def test_four_keys_are_enough() -> None:
    assert Sampling(**FOUR) == Sampling("ddim", 10, 3.0, "leading", set_alpha_to_one=True, eta=0.0)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"sampler": "lms"}, "sampler = 'lms': unknown; choose from ddpm, ddim"),
        ({"spacing": "even"}, "spacing = 'even': unknown; choose from leading, linspace, trailing"),
        ({"variance": "learned"}, "variance = 'learned': unknown; choose from beta_tilde, beta"),
        ({"initial_scale": "two"}, "initial_scale = 'two': unknown"),
        ({"guidance_scale": float("nan")}, "guidance_scale = nan: give 0 or more"),
        ({"guidance_rescale": 1.5}, "guidance_rescale = 1.5: give a number from 0 to 1"),
        ({"guidance_rescale": float("nan")}, "guidance_rescale = nan: give a number from 0 to 1"),
        ({"eta": -0.1}, "eta = -0.1: give a number from 0 to 1"),
        ({"steps_offset": -1}, "steps_offset = -1: give 0 or more"),
        ({"sampler": "heun", "eta": 0.5}, "eta = 0.5: is ddim's alone; sampler = 'heun' takes 0"),
        ({"variance": "beta"}, "variance = 'beta': is ddpm's alone; sampler = 'ddim' takes 'beta_tilde'"),
        ({"sampler": "pndm", "karras": True}, "karras = True: pndm takes steps evenly spaced in time"),
    ],
)
def test_what_does_not_fit_is_refused_by_name(change: dict[str, Any], message: str) -> None:
    with pytest.raises(DarkroomError) as caught:
        Sampling(**{**FOUR, **change})
    assert str(caught.value).startswith(message)


@pytest.mark.parametrize("prediction_type", ["v_prediction", "sample"])
def test_pndm_is_refused_where_its_history_is_not_defined(prediction_type: Any) -> None:
    how = Sampling(**{**FOUR, "sampler": "pndm"})
    assert len(how.levels(SCHEDULE, "epsilon")) == 11
    with pytest.raises(DarkroomError, match=rf"'pndm': .* must be epsilon; this model's .* '{prediction_type}'"):
        how.levels(SCHEDULE, prediction_type)


def test_a_strength_leaves_the_last_part_of_the_levels() -> None:
    how = Sampling(**FOUR)
    assert how.levels(SCHEDULE, "epsilon", 0.3) == how.levels(SCHEDULE, "epsilon")[7:]
