"""What can be asked of sampling, and what is refused."""

from dataclasses import fields, replace
from typing import Any

import pytest
import torch

from darkroom.config.choices import SAMPLER_OPTIONS
from darkroom.core.errors import DarkroomError
from darkroom.diffusion.continuous import VE, Flow
from darkroom.diffusion.generate import Sampling, begin
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
        ({"snr": 0.0}, "snr = 0.0: give a number between 0 and 1"),
        ({"tolerance": 1.0}, "tolerance = 1.0: give a number between 0 and 1"),
        ({"snr": 0.2}, "snr = 0.2: is predictor_corrector's alone; sampler = 'ddim' takes 0.16"),
        ({"tolerance": 0.001}, "tolerance = 0.001: is ode's alone; sampler = 'ddim' takes 1e-05"),
        ({"sampler": "ode"}, "spacing = 'leading', num_inference_steps = 10: ode goes from the last time to the first"),
        ({"sampler": "ode", "spacing": "linspace", "num_inference_steps": 1}, "spacing = 'linspace', num_inference_st"),
        (
            {"sampler": "ode", "spacing": "linspace", "omit_last": True},
            "spacing = 'linspace', num_inference_steps = 10",
        ),
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


@pytest.mark.parametrize("process", [Flow(0.001), DiscreteVP("cosine", 0.1, 0.2, 1000, rescale_betas_zero_snr=True)])
def test_what_needs_some_signal_is_refused_where_a_walk_starts_without(process: Any) -> None:
    how = Sampling(**{**FOUR, "spacing": "trailing"})
    assert len(how.levels(process, "v_prediction")) == 11
    for prediction_type in ("epsilon", "score"):
        with pytest.raises(DarkroomError, match=f"prediction_type = '{prediction_type}': says nothing of the picture"):
            how.levels(process, prediction_type)
    with pytest.raises(DarkroomError, match="karras = True: spaces sigma / alpha, which has no end"):
        replace(how, karras=True).levels(process, "sample")


def test_pndm_is_refused_without_signal_and_takes_scores() -> None:
    how = Sampling(**{**FOUR, "sampler": "pndm", "spacing": "trailing"})
    assert len(how.levels(VE(25.0, 1e-5), "score")) == 11
    with pytest.raises(DarkroomError, match=r"sampler = 'pndm': .* choose dpmpp_2m"):
        how.levels(Flow(0.001), "sample")


def test_another_sampler_leaves_behind_what_was_the_old_ones_alone() -> None:
    wide = Sampling(**{**FOUR, "sampler": "ddpm", "variance": "beta"})
    assert wide.changed(sampler="ddim") == Sampling(**FOUR)
    assert wide.changed(sampler="ddpm", num_inference_steps=5).variance == "beta"
    assert wide.changed(sampler="ddim", eta=0.3).eta == 0.3
    with pytest.raises(DarkroomError, match="variance = 'beta': is ddpm's alone"):
        wide.changed(sampler="ddim", variance="beta")


def test_what_all_samplers_take_is_the_default() -> None:
    defaults = {field.name: field.default for field in fields(Sampling)}
    assert {key: defaults[key] for key in SAMPLER_OPTIONS} == {
        key: other for key, (_, other) in SAMPLER_OPTIONS.items()
    }


@pytest.mark.parametrize(
    ("process", "initial_scale", "spread"),
    [
        (SCHEDULE, "one", 1.0),
        (SCHEDULE, "sigma", float(SCHEDULE.level(900).sigma)),
        (VE(25.0, 1e-5), "one", 9.845),
        (Flow(0.001), "one", 1.0),
    ],
)
def test_a_walk_begins_with_the_noise_of_its_process(process: Any, initial_scale: Any, spread: float) -> None:
    how = Sampling(**{**FOUR, "spacing": "leading" if process is SCHEDULE else "linspace"}, initial_scale=initial_scale)
    begun = begin(how, process, how.levels(process, "sample"), torch.ones(1, 1, 2, 2))
    assert begun.unique().tolist() == pytest.approx([spread], abs=5e-4)


def test_a_strength_leaves_the_last_part_of_the_levels() -> None:
    how = Sampling(**FOUR)
    assert how.levels(SCHEDULE, "epsilon", 0.3) == how.levels(SCHEDULE, "epsilon")[7:]
