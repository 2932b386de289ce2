"""What a folder says of sampling is what was said."""

import inspect
from pathlib import Path
from typing import Any

import pytest
import torch

from darkroom.config.diffusion import BetaSchedule, FlowProcess, ProcessConfig, VEProcess, VPProcess
from darkroom.core.artifact import write_json
from darkroom.core.errors import DarkroomError
from darkroom.diffusion.process import process_of
from darkroom.diffusion.schedule import DiscreteVP
from darkroom.interop.diffusers import write_scheduler
from darkroom.interop.scheduler import (
    GUIDANCE_SCALE,
    SCHEDULER,
    SCHEDULER_CONFIG,
    SCHEDULERS,
    STEPS,
    inexpressible,
    read_scheduler,
)
from darkroom.interop.scheduler import scheduler_config as written
from darkroom.interop.single_file import PROCESS
from tests.support.diffusion import make_sampling, vp_config

SAMPLINGS: dict[str, tuple[str, str, dict[str, Any]]] = {
    "DDIMScheduler": ("ddim", "leading", {"set_alpha_to_one": False}),
    "PNDMScheduler": ("pndm", "leading", {"set_alpha_to_one": False}),
    "DDPMScheduler": ("ddpm", "leading", {}),
    "DDPMScheduler, the larger variance": ("ddpm", "leading", {"variance": "beta"}),
    "EulerDiscreteScheduler": ("euler", "linspace", {"initial_scale": "sigma", "karras": True}),
    "EulerAncestralDiscreteScheduler": ("euler_ancestral", "trailing", {"initial_scale": "sigma"}),
    "HeunDiscreteScheduler": ("heun", "leading", {}),
    "DPMSolverMultistepScheduler": ("dpmpp_2m", "linspace", {"omit_last": True}),
    "DPMSolverMultistepScheduler, of the SDE": ("dpmpp_2m_sde", "trailing", {}),
}


@pytest.mark.parametrize("name", SAMPLINGS)
def test_sampling_is_read_as_it_was_written(name: str, tmp_path: Path) -> None:
    sampler, spacing, options = SAMPLINGS[name]
    sampling = make_sampling(sampler, STEPS, GUIDANCE_SCALE, spacing, steps_offset=1, **options)
    config = written(PROCESS, "epsilon", sampling)
    assert config["_class_name"] == name.split(",")[0]
    write_scheduler(tmp_path, config)
    assert read_scheduler(tmp_path) == (PROCESS, "epsilon", sampling)


OTHERWISE: dict[str, tuple[str, str, dict[str, Any]]] = {
    "a scale that Euler's class does not begin with": ("euler", "trailing", {}),
    "an end that Euler's class does not have": ("euler", "leading", {"set_alpha_to_one": False}),
    "times that the DPM solvers' class leaves out": ("dpmpp_2m", "leading", {}),
    "Karras' sigmas, which the DPM solvers' class lays elsewhere": ("dpmpp_2m", "trailing", {"karras": True}),
    "Karras' sigmas, which DDPM's class does not know": ("ddpm", "trailing", {"karras": True}),
}


@pytest.mark.parametrize("case", OTHERWISE)
def test_what_a_class_would_walk_otherwise_is_written_as_ddim(case: str) -> None:
    sampler, spacing, options = OTHERWISE[case]
    sampling = make_sampling(sampler, STEPS, GUIDANCE_SCALE, spacing, steps_offset=1, **options)
    config = written(PROCESS, "epsilon", sampling)
    assert config["_class_name"] == "DDIMScheduler"
    assert config["set_alpha_to_one"] == sampling.set_alpha_to_one
    assert "use_karras_sigmas" not in config


@pytest.mark.parametrize("sampler", ["ddim", "pndm", "ddpm", "euler"])  # the last for want of Euler's initial scale
def test_linspace_is_not_written_for_a_class_of_even_strides(sampler: Any) -> None:
    sampling = make_sampling(sampler, STEPS, GUIDANCE_SCALE, "linspace", set_alpha_to_one=sampler != "pndm")
    name = "DDIM" if sampler == "euler" else sampler.upper()
    with pytest.raises(DarkroomError, match=rf"sampling\.spacing = 'linspace' would be taken by {name}Scheduler, .*"):
        written(PROCESS, "epsilon", sampling)


def test_an_offset_that_diffusers_would_replace_is_not_written() -> None:
    sampling = make_sampling("ddim", STEPS, GUIDANCE_SCALE, "leading", steps_offset=0)
    with pytest.raises(DarkroomError, match=r"sampling\.steps_offset = 0 becomes 1 .* draw with 1, or with trailing"):
        written(PROCESS, "epsilon", sampling)
    for unread in ("trailing", 7), ("leading", 1):
        sampling = make_sampling("ddim", STEPS, GUIDANCE_SCALE, *unread)
        assert written(PROCESS, "epsilon", sampling)["steps_offset"] == 1


@pytest.mark.parametrize("name", ["DDIMScheduler", "EulerDiscreteScheduler"])
@pytest.mark.parametrize("said", [{}, {"steps_offset": 0}])
def test_the_offset_read_is_the_one_that_diffusers_takes(name: str, said: dict[str, int], tmp_path: Path) -> None:
    config = {"_class_name": name, "beta_start": 0.1, "beta_end": 0.2, "clip_sample": False, **said}
    write_json(tmp_path / SCHEDULER / SCHEDULER_CONFIG, config | {"timestep_spacing": "leading"})
    assert read_scheduler(tmp_path)[2].steps_offset == 1


@pytest.mark.parametrize("sampler", ["ddim", "euler", "dpmpp_2m"])
def test_only_ddims_class_ends_at_alpha_0(sampler: Any, tmp_path: Path) -> None:
    process = PROCESS.model_copy(update={"rescale_betas_zero_snr": True})
    config = written(process, "v_prediction", make_sampling(sampler, STEPS, GUIDANCE_SCALE, "trailing"))
    assert (config["_class_name"], config["rescale_betas_zero_snr"]) == ("DDIMScheduler", True)
    write_scheduler(tmp_path, config)
    assert read_scheduler(tmp_path)[:2] == (process, "v_prediction")


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"prediction_type": "epsilon"}, "rescale_betas_zero_snr = True is not supported with prediction_type = 'eps"),
        ({"_class_name": "EulerDiscreteScheduler"}, "rescale_betas_zero_snr = True is not supported, only False"),
        ({"prediction_type": "score"}, "prediction_type = 'score' is not supported, only epsilon, v_prediction, samp"),
        ({"beta_schedule": "sigmoid"}, "beta_schedule = 'sigmoid' is not supported, only linear"),
    ],
)
def test_processes_that_are_read_otherwise_are_refused(change: dict[str, Any], message: str, tmp_path: Path) -> None:
    sampling = make_sampling("ddim", STEPS, GUIDANCE_SCALE, "trailing")
    config = written(PROCESS.model_copy(update={"rescale_betas_zero_snr": True}), "v_prediction", sampling) | change
    write_json(tmp_path / SCHEDULER / SCHEDULER_CONFIG, config)
    with pytest.raises(DarkroomError, match=message):
        read_scheduler(tmp_path)


def test_scaled_betas_are_written_as_what_they_become(tmp_path: Path) -> None:
    process = vp_config("scaled_linear", 0.00085, 0.012, 300, scale_betas=True)
    write_scheduler(tmp_path, written(process, "epsilon", make_sampling("ddim", STEPS, GUIDANCE_SCALE, "trailing")))
    found, expected = process_of(read_scheduler(tmp_path)[0]), process_of(process)
    assert isinstance(found, DiscreteVP)
    assert isinstance(expected, DiscreteVP)
    torch.testing.assert_close(found.alphas_cumprod, expected.alphas_cumprod, rtol=1e-12, atol=0)


@pytest.mark.parametrize(
    ("process", "prediction_type", "said"),
    [
        (
            VEProcess(kind="ve", sigma=25.0, t_min=1e-5),
            "score",
            "process.kind = 've': diffusers' pipeline has only 'vp'",
        ),
        (FlowProcess(kind="flow", t_min=0.001), "sample", "process.kind = 'flow': diffusers' pipeline has only 'vp'"),
        (vp_config("sigmoid"), "epsilon", "process.schedule.kind = 'sigmoid': diffusers' pipeline has only "),
        (PROCESS, "score", "prediction_type = 'score': diffusers' pipeline has only 'epsilon', 'v_prediction', 'samp"),
        (PROCESS, "v_prediction", None),
    ],
)
def test_what_no_scheduler_can_say_is_named(process: ProcessConfig, prediction_type: str, said: str | None) -> None:
    found = inexpressible(process, prediction_type)
    assert found is said if said is None else str(found).startswith(said)


@pytest.mark.parametrize(
    ("said", "variance"),
    [({"variance_type": "fixed_small"}, "beta_tilde"), ({"variance_type": "fixed_large"}, "beta"), ({}, "beta_tilde")],
)
def test_the_two_variances_of_ddpm_bear_their_names(said: dict[str, str], variance: str, tmp_path: Path) -> None:
    config = written(PROCESS, "epsilon", make_sampling("ddpm", STEPS, GUIDANCE_SCALE, "leading", steps_offset=1))
    del config["variance_type"]
    write_json(tmp_path / SCHEDULER / SCHEDULER_CONFIG, config | said)
    assert read_scheduler(tmp_path)[2].sampler.model_dump() == {"kind": "ddpm", "variance": variance}


@pytest.mark.parametrize("name", SCHEDULERS)
def test_what_diffusers_writes_of_a_class_is_read(name: str, tmp_path: Path, diffusers: Any) -> None:
    """It writes all that a class can be told, such as a lower limit of -Infinity."""
    own = {"clip_sample": False, "skip_prk_steps": True}
    taken = inspect.signature(getattr(diffusers, name)).parameters
    theirs = getattr(diffusers, name)(**{key: value for key, value in own.items() if key in taken})
    theirs.save_pretrained(tmp_path / SCHEDULER)
    process, prediction, sampling = read_scheduler(tmp_path)
    assert isinstance(process, VPProcess)
    assert isinstance(process.schedule, BetaSchedule)
    assert process.schedule.beta_end == theirs.config.beta_end
    assert (prediction, sampling.sampler.kind) == ("epsilon", SCHEDULERS[name].sampler)


def test_a_key_that_only_another_class_reads_is_passed_over(tmp_path: Path) -> None:
    """diffusers carries such keys along when one scheduler is made from the configuration of another."""
    sampling = make_sampling("ddim", STEPS, GUIDANCE_SCALE, "leading", steps_offset=1)
    alien = {"skip_prk_steps": False, "variance_type": "learned", "use_karras_sigmas": True}
    write_json(tmp_path / SCHEDULER / SCHEDULER_CONFIG, written(PROCESS, "epsilon", sampling) | alien)
    assert read_scheduler(tmp_path)[2] == sampling
    sampling = make_sampling("euler", STEPS, GUIDANCE_SCALE, "leading", steps_offset=1)
    write_json(
        tmp_path / SCHEDULER / SCHEDULER_CONFIG, written(PROCESS, "epsilon", sampling) | {"set_alpha_to_one": False}
    )
    assert read_scheduler(tmp_path)[2] == sampling
