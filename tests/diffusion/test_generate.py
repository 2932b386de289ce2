"""What can be asked of sampling, and what is refused."""

from typing import Any

import pytest
import torch

from darkroom.config.sampling import sampler_named
from darkroom.core.errors import DarkroomError
from darkroom.diffusion.generate import initial_noise, sampling_levels
from tests.support.diffusion import make_flow, make_sampling, make_ve, make_vp

FOUR: dict[str, Any] = {"sampler": "ddim", "num_inference_steps": 10, "guidance_scale": 3.0, "spacing": "leading"}
SCHEDULE = make_vp("linear", 0.0001, 0.02, 1000)


def test_four_keys_are_enough() -> None:
    assert make_sampling(**FOUR) == make_sampling("ddim", 10, 3.0, "leading", set_alpha_to_one=True, eta=0.0)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"sampler": "lms"}, "sampler = 'lms': unknown; choose from ddim, ddpm"),
        ({"sampler": "ddim,eta"}, "sampler = 'ddim,eta': write its options as ddim,KEY=VALUE"),
        ({"sampler": "ddim,eta=much"}, "sampler ddim: eta = 'much': give a valid number"),
        ({"sampler": "ddim,eta=-0.1"}, "sampler ddim: eta = -0.1: give greater than or equal to 0"),
        ({"sampler": "ddpm,variance=learned"}, "sampler ddpm: variance = 'learned': give 'beta_tilde' or 'beta'"),
        ({"sampler": "predictor_corrector,snr=0"}, "sampler predictor_corrector: snr = 0: give greater than 0"),
        ({"sampler": "ode,tolerance=1.0"}, "sampler ode: tolerance = 1.0: give less than 1"),
        ({"sampler": "heun,eta=0.5"}, "sampler heun: eta = 0.5: unknown; there are kind"),
        ({"sampler": {"kind": "ddim"}}, "sampler.eta is missing; add it"),
        ({"spacing": "even"}, "spacing = 'even': give 'leading', 'linspace' or 'trailing'"),
        ({"initial_scale": "two"}, "initial_scale = 'two': give 'one' or 'sigma'"),
        ({"guidance_scale": float("nan")}, "guidance_scale = nan: give"),
        ({"guidance_rescale": 1.5}, "guidance_rescale = 1.5: give less than or equal to 1"),
        ({"steps_offset": -1}, "steps_offset = -1: give greater than or equal to 0"),
        ({"num_inference_steps": 0}, "num_inference_steps = 0: give greater than or equal to 1"),
        ({"steps": 3}, "steps = 3: unknown; there are sampler, num_inference_steps"),
        ({"sampler": "ode"}, "spacing = 'leading' does not go with sampler.kind = 'ode', which goes from the last"),
        ({"sampler": "ode", "spacing": "linspace", "num_inference_steps": 1}, "num_inference_steps = 1 does not go"),
        ({"sampler": "ode", "spacing": "linspace", "omit_last": True}, "spacing = 'linspace' does not go with sampler"),
        ({"sampler": "pndm", "karras": True}, "karras = True does not go with sampler.kind = 'pndm', whose steps are"),
    ],
)
def test_what_does_not_fit_is_refused_by_name(change: dict[str, Any], message: str) -> None:
    """Fails if a fault reaches whoever draws as pydantic's own words, or not at all."""
    with pytest.raises(DarkroomError) as caught:
        make_sampling(**FOUR).changed(**change)
    assert str(caught.value).startswith(message)


def test_a_sampler_may_be_asked_for_in_each_form() -> None:
    """Fails if a form loses the options, or a name alone has others than the class documents."""
    expected = make_sampling(**{**FOUR, "sampler": "ddim"}, eta=0.5)
    for form in ("ddim,eta=0.5", {"kind": "ddim", "eta": 0.5}, sampler_named("ddim", eta=0.5)):
        assert make_sampling(**FOUR).changed(sampler=form) == expected
    published = {"ddim": {"eta": 0.0}, "ddpm": {"variance": "beta_tilde"}, "predictor_corrector": {"snr": 0.16}}
    for name, options in {**published, "ode": {"tolerance": 1e-5}}.items():
        assert sampler_named(name).model_dump() == {"kind": name, **options}


@pytest.mark.parametrize("prediction_type", ["v_prediction", "sample"])
def test_pndm_is_refused_where_its_history_is_not_defined(prediction_type: Any) -> None:
    sampling = make_sampling(**{**FOUR, "sampler": "pndm"})
    assert len(sampling_levels(sampling, SCHEDULE, "epsilon")) == 11
    with pytest.raises(DarkroomError, match=rf"'pndm': .* must be epsilon; this model's .* '{prediction_type}'"):
        sampling_levels(sampling, SCHEDULE, prediction_type)


@pytest.mark.parametrize("process", [make_flow(0.001), make_vp("cosine", 0.1, 0.2, 1000, rescale_betas_zero_snr=True)])
def test_what_needs_some_signal_is_refused_where_a_walk_starts_without(process: Any) -> None:
    sampling = make_sampling(**{**FOUR, "spacing": "trailing"})
    assert len(sampling_levels(sampling, process, "v_prediction")) == 11
    for prediction_type in ("epsilon", "score"):
        with pytest.raises(DarkroomError, match=f"prediction_type = '{prediction_type}': says nothing of the picture"):
            sampling_levels(sampling, process, prediction_type)
    with pytest.raises(DarkroomError, match="karras = True: spaces sigma / alpha, which has no end"):
        sampling_levels(sampling.changed(karras=True), process, "sample")


def test_pndm_is_refused_without_signal_and_takes_scores() -> None:
    sampling = make_sampling(**{**FOUR, "sampler": "pndm", "spacing": "trailing"})
    assert len(sampling_levels(sampling, make_ve(25.0, 1e-5), "score")) == 11
    with pytest.raises(DarkroomError, match=r"sampler = 'pndm': .* choose dpmpp_2m"):
        sampling_levels(sampling, make_flow(0.001), "sample")


def test_another_sampler_leaves_behind_what_was_the_old_ones_alone() -> None:
    wide = make_sampling(**{**FOUR, "sampler": "ddpm"}, variance="beta")
    assert wide.changed(sampler="ddim") == make_sampling(**FOUR)
    same = wide.changed(sampler="ddpm", num_inference_steps=5)
    assert same.sampler.model_dump() == {"kind": "ddpm", "variance": "beta"}


@pytest.mark.parametrize(
    ("process", "initial_scale", "spread"),
    [
        (SCHEDULE, "one", 1.0),
        (SCHEDULE, "sigma", float(SCHEDULE.level(900).sigma)),
        (make_ve(25.0, 1e-5), "one", 9.845),
        (make_flow(0.001), "one", 1.0),
    ],
)
def test_a_walk_begins_with_the_noise_of_its_process(process: Any, initial_scale: Any, spread: float) -> None:
    sampling = make_sampling(
        **{**FOUR, "spacing": "leading" if process is SCHEDULE else "linspace"}, initial_scale=initial_scale
    )
    begun = initial_noise(sampling, process, sampling_levels(sampling, process, "sample"), torch.ones(1, 1, 2, 2))
    assert begun.unique().tolist() == pytest.approx([spread], abs=5e-4)


def test_a_strength_leaves_the_last_part_of_the_levels() -> None:
    sampling = make_sampling(**FOUR)
    assert sampling_levels(sampling, SCHEDULE, "epsilon", 0.3) == sampling_levels(sampling, SCHEDULE, "epsilon")[7:]
