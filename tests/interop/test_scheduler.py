"""What a folder says of sampling is what was said."""

from pathlib import Path
from typing import Any

import pytest

from darkroom.core.artifact import write_json
from darkroom.diffusion.generate import Sampling
from darkroom.interop.diffusers import write_scheduler
from darkroom.interop.scheduler import GUIDANCE_SCALE, SCHEDULER, SCHEDULER_CONFIG, STEPS, read_scheduler
from darkroom.interop.scheduler import scheduler_config as written
from darkroom.interop.single_file import PROCESS

SAMPLINGS: dict[str, tuple[str, str, dict[str, Any]]] = {
    "DDIMScheduler": ("ddim", "leading", {"set_alpha_to_one": False}),
    "PNDMScheduler": ("pndm", "leading", {"set_alpha_to_one": False}),
    "DDPMScheduler": ("ddpm", "leading", {}),
    "DDPMScheduler, the larger variance": ("ddpm", "leading", {"variance": "beta"}),
    "EulerDiscreteScheduler": ("euler", "linspace", {"initial_scale": "sigma", "karras": True}),
    "EulerAncestralDiscreteScheduler": ("euler_ancestral", "trailing", {"initial_scale": "sigma"}),
    "HeunDiscreteScheduler": ("heun", "leading", {}),
    "DPMSolverMultistepScheduler": ("dpmpp_2m", "linspace", {"omit_last": True}),
    "DPMSolverMultistepScheduler, of the SDE": ("dpmpp_2m_sde", "trailing", {"karras": True}),
}


@pytest.mark.parametrize("name", SAMPLINGS)
def test_sampling_is_read_as_it_was_written(name: str, tmp_path: Path) -> None:
    sampler, spacing, own = SAMPLINGS[name]
    how = Sampling(sampler, STEPS, GUIDANCE_SCALE, spacing, steps_offset=1, **own)  # type: ignore[arg-type]
    config = written(PROCESS, "epsilon", how)
    assert config["_class_name"] == name.split(",")[0]
    write_scheduler(tmp_path, config)
    assert read_scheduler(tmp_path) == (PROCESS, "epsilon", how)


@pytest.mark.parametrize(
    ("said", "variance"),
    [({"variance_type": "fixed_small"}, "beta_tilde"), ({"variance_type": "fixed_large"}, "beta"), ({}, "beta_tilde")],
)
def test_the_two_variances_of_ddpm_bear_their_names(said: dict[str, str], variance: str, tmp_path: Path) -> None:
    config = written(PROCESS, "epsilon", Sampling("ddpm", STEPS, GUIDANCE_SCALE, "leading", steps_offset=1))
    del config["variance_type"]
    write_json(tmp_path / SCHEDULER / SCHEDULER_CONFIG, config | said)
    assert read_scheduler(tmp_path)[2].variance == variance


def test_a_key_that_only_another_class_reads_is_passed_over(tmp_path: Path) -> None:
    """diffusers carries such keys along when one scheduler is made from the configuration of another."""
    how = Sampling("ddim", STEPS, GUIDANCE_SCALE, "leading", steps_offset=1)
    config = written(PROCESS, "epsilon", how) | {"skip_prk_steps": False, "variance_type": "learned"}
    write_json(tmp_path / SCHEDULER / SCHEDULER_CONFIG, config)
    assert read_scheduler(tmp_path)[2] == how
