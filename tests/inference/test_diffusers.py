"""The assembled folder is a diffusers folder that draws our pictures."""

import inspect
import itertools
import math
import shutil
import sys
from collections.abc import Callable
from functools import cache
from pathlib import Path
from typing import Any, get_args

import pytest
import torch
from torch import Tensor

from darkroom.config.sampling import Spacing
from darkroom.core.rng import randn_each
from darkroom.inference.pipeline import Pipeline
from darkroom.interop.diffusers import write_scheduler
from darkroom.interop.scheduler import GUIDANCE_SCALE, SCHEDULERS, STEPS
from darkroom.interop.single_file import PROCESS as LINEAR
from tests.support import pipelines
from tests.support.diffusion import make_sampling, vp_config

PROMPTS = ["a small red circle", "a large blue square", "a small red circle, and much that is said beyond the end"]


@pytest.fixture(scope="module")
def opened(diffusers: Any, transformers: Any) -> Callable[[Path], Any]:
    """diffusers' pipeline of a folder, loaded once."""

    @cache
    def load(path: Path) -> Any:
        theirs = diffusers.StableDiffusionPipeline.from_pretrained(path, local_files_only=True)
        theirs.set_progress_bar_config(disable=True)
        return theirs

    return load


@pytest.mark.parametrize(
    "how",
    [
        {},
        {"prediction_type": "epsilon", "process": LINEAR, "channels": 1},
        {"prediction_type": "sample", "process": vp_config("linear", 0.00085, 0.012)},
        {"process": LINEAR.model_copy(update={"rescale_betas_zero_snr": True})},
        {"prediction_type": "epsilon", "process": vp_config("scaled_linear", 0.00085, 0.012, 300, scale_betas=True)},
    ],
    ids=["cosine v", "scaled linear eps, grey", "linear x0", "zero snr v", "300 times eps"],
)
def test_diffusers_draws_the_same_pictures(how: dict[str, Any], make: Callable[..., Pipeline], opened: Any) -> None:
    ours = make(**how)
    theirs = opened(ours.path)
    seeds = [0, 1, 2]
    start = ours.start(seeds)
    sampling = make_sampling("ddim", 10, 5.0, "trailing")
    latents = ours.latents(
        ours.request(PROMPTS, {"seeds": seeds, "sampling": sampling}), ours.prompts(PROMPTS), slice(0, 3)
    )
    call = {"num_inference_steps": 10, "guidance_scale": 5.0, "latents": start.clone(), "height": 16, "width": 16}
    expected = theirs(PROMPTS, output_type="latent", **call).images
    error = float((latents - expected).square().mean())
    peak = float(expected.max() - expected.min())
    assert 10 * math.log10(peak**2 / error) >= 100
    pictures = theirs(PROMPTS, output_type="pt", **call).images
    ours_drawn = ours.decode(latents).float() / 255
    assert ours_drawn.shape == pictures.shape
    assert float((ours_drawn - pictures).abs().max()) <= 1.01 / 255
    assert pictures.std() > 0.05


# The same explicit configuration on both sides: Stable Diffusion's own for all five, and what else is a convention.
GIVEN = {"timestep_spacing": "leading", "steps_offset": 1}
DDIM = {**GIVEN, "clip_sample": False, "set_alpha_to_one": False}
PNDM = {**GIVEN, "skip_prk_steps": True, "set_alpha_to_one": False}
OURS = {"spacing": "leading", "steps_offset": 1}
LOW = {"set_alpha_to_one": False}
EVALUATIONS = {"ddim": 20, "euler": 20, "heun": 39, "dpmpp_2m": 20, "pndm": 21}
CASES: dict[str, tuple[Any, dict[str, Any], str, dict[str, Any]]] = {
    "ddim": ("ddim", OURS | LOW, "DDIMScheduler", DDIM),
    "euler": ("euler", OURS, "EulerDiscreteScheduler", GIVEN),
    "heun": ("heun", OURS, "HeunDiscreteScheduler", GIVEN),
    "dpmpp_2m": ("dpmpp_2m", OURS | {"omit_last": True}, "DPMSolverMultistepScheduler", GIVEN),
    "pndm": ("pndm", OURS | LOW, "PNDMScheduler", PNDM),
    "rescaled": ("ddim", OURS | {"guidance_rescale": 0.7}, "DDIMScheduler", {**DDIM, "set_alpha_to_one": True}),
    "karras": ("euler", OURS | {"karras": True}, "EulerDiscreteScheduler", {**GIVEN, "use_karras_sigmas": True}),
    "trailing": (
        "heun",
        {"spacing": "trailing", "initial_scale": "sigma"},
        "HeunDiscreteScheduler",
        {"timestep_spacing": "trailing"},
    ),
}


@pytest.mark.parametrize(
    ("case", "prediction_type"),
    [(case, "v_prediction") for case in CASES if case != "pndm"] + [(case, "epsilon") for case in EVALUATIONS],
)
def test_every_shared_sampler_walks_to_the_latents_of_diffusers(
    case: str, prediction_type: Any, make: Callable[..., Pipeline], forwards: list[int], diffusers: Any, opened: Any
) -> None:
    sampler, own, scheduler, config = CASES[case]
    ours = make(prediction_type=prediction_type, process=LINEAR)
    theirs = opened(ours.path)
    betas = {"beta_schedule": "scaled_linear", "beta_start": 0.00085, "beta_end": 0.012}
    theirs.scheduler = getattr(diffusers, scheduler)(**betas, prediction_type=prediction_type, **config)
    seeds = [0, 1]
    start = ours.start(seeds)
    how = make_sampling(sampler, 20, 5.0, **own)
    request = ours.request(PROMPTS[:2], {"seeds": seeds, "sampling": how})
    found = ours.latents(request, ours.prompts(PROMPTS[:2]), slice(0, 2))
    assert forwards == [4] * EVALUATIONS[sampler]  # both halves of the guidance in one batch
    expected = theirs(
        PROMPTS[:2],
        num_inference_steps=20,
        guidance_scale=5.0,
        guidance_rescale=how.guidance_rescale,
        latents=start.clone(),
        height=16,
        width=16,
        output_type="latent",
    ).images
    assert decibels(found, expected) >= 100
    assert float(expected.std()) > 0.1


def decibels(found: Tensor, expected: Tensor) -> float:
    """How close latents are: a random network's epsilon cancels no noise, so they reach 30."""
    spread = max(1.0, float(expected.std()))
    return -10 * math.log10(float((found - expected).square().mean()) / spread**2)


# What a scheduler's file says besides class, process and spacing, and the spacings to try; None: it names none.
# `fixed_large` is left out: diffusers adds its noise once more after the last step.
SPACINGS = get_args(Spacing)
NEEDED: dict[str, dict[str, Any]] = {
    "DDIMScheduler": {"clip_sample": False},
    "DDPMScheduler": {"clip_sample": False},
    "PNDMScheduler": {"skip_prk_steps": True},
}
FORMERLY = {"skip_prk_steps": True, "set_alpha_to_one": False, "clip_sample": False}
SAID: dict[str, tuple[str, dict[str, Any], tuple[str | None, ...]]] = {
    **{name: (name, NEEDED.get(name, {}), (None, *SPACINGS)) for name in SCHEDULERS},
    "Euler, Karras": ("EulerDiscreteScheduler", {"use_karras_sigmas": True}, SPACINGS),
    "Heun, Karras": ("HeunDiscreteScheduler", {"use_karras_sigmas": True}, SPACINGS),
    "DPMSolver, SDE": ("DPMSolverMultistepScheduler", {"algorithm_type": "sde-dpmsolver++"}, SPACINGS),
    "Euler, once PNDM": ("EulerDiscreteScheduler", FORMERLY, ("leading",)),
    "DDIM, once Euler": ("DDIMScheduler", {"clip_sample": False, "use_karras_sigmas": True}, ("leading",)),
}


@pytest.fixture(scope="module")
def bare(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A diffusers folder without a word of ours. Leave it as it is."""
    folder: Path = pipelines.assembled(tmp_path_factory.mktemp("bare"), prediction_type="epsilon", process=LINEAR)
    (folder / "pipeline.json").unlink()
    return folder


@pytest.mark.filterwarnings("ignore::FutureWarning")  # that the folder's offset is replaced
@pytest.mark.parametrize(
    ("case", "spacing"),
    [
        (case, spacing)
        for case, (name, _, spacings) in SAID.items()
        for spacing in spacings
        if not (SCHEDULERS[name].strides and spacing == "linspace")  # refused
    ],
)
def test_a_folder_is_walked_as_diffusers_walks_it(
    case: str,
    spacing: str | None,
    bare: Path,
    tmp_path: Path,
    diffusers: Any,
    opened: Callable[[Path], Any],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Both sides open it with nothing told of the scheduler; where steps add noise, both are given the same."""
    folder, (name, said, _) = shutil.copytree(bare, tmp_path / "model"), SAID[case]
    process = {"beta_schedule": "scaled_linear", "beta_start": 0.00085, "beta_end": 0.012}
    spaced = {} if spacing is None else {"timestep_spacing": spacing}
    write_scheduler(folder, {"_class_name": name, **process, **said, **spaced})
    ours = Pipeline.from_pretrained(folder, device="cpu")
    theirs = opened(bare)  # but for the scheduler, which is read as the whole folder would read it
    theirs.scheduler = getattr(diffusers, name).from_pretrained(folder, subfolder="scheduler")
    seeds, steps = [0, 1], itertools.count()
    start, how = ours.start(seeds), ours.sampling(num_inference_steps=10)
    request = ours.request(PROMPTS[:2], {"seeds": seeds, "sampling": how})
    found = ours.latents(request, ours.prompts(PROMPTS[:2]), slice(0, 2))

    def noise(shape: torch.Size, **_: Any) -> Tensor:
        return randn_each(tuple(shape[1:]), seeds, "step", next(steps))

    monkeypatch.setattr(sys.modules[type(theirs.scheduler).__module__], "randn_tensor", noise, raising=False)
    call = {"latents": start.clone(), "height": 16, "width": 16, "output_type": "latent"}
    expected = theirs(PROMPTS[:2], num_inference_steps=10, **call).images
    assert decibels(found, expected) >= 100


def test_as_many_steps_and_as_much_guidance_as_diffusers_takes_unless_told(diffusers: Any) -> None:
    told = inspect.signature(diffusers.StableDiffusionPipeline.__call__).parameters
    assert (told["num_inference_steps"].default, told["guidance_scale"].default) == (STEPS, GUIDANCE_SCALE)
