"""Whole models of every kind of process: drawn, edited, and described."""

from collections.abc import Callable
from typing import Any

import pytest
import torch

from darkroom.core.artifact import read_json
from darkroom.core.errors import DarkroomError
from darkroom.diffusion.continuous import VE, Flow
from darkroom.diffusion.schedule import DiscreteVP
from darkroom.inference.folder import FORMAT, PipelineInfo
from darkroom.inference.packed_unet import FrozenUNet
from darkroom.inference.pipeline import Pipeline
from tests.support.diffusion import vp_config

PROMPTS = ["a small red circle", "a large blue square"]
BETAS = ("scaled_linear", 0.00085, 0.012)
KINDS: dict[str, dict[str, Any]] = {
    "ve": {"process": {"kind": "ve", "sigma": 25.0, "t_min": 1e-5}, "prediction_type": "score"},
    "flow": {"process": {"kind": "flow", "t_min": 0.001}, "prediction_type": "flow_prediction"},
    "zero snr": {
        "process": vp_config(*BETAS, rescale_betas_zero_snr=True).model_dump(),
        "prediction_type": "v_prediction",
    },
    "few times": {"process": vp_config(*BETAS, 300, scale_betas=True).model_dump(), "prediction_type": "score"},
}
SAMPLERS = ["ddim", "ddpm", "heun", "dpmpp_2m_sde", "euler_maruyama", "predictor_corrector"]
Make = Callable[..., Pipeline]
Apart = Callable[[torch.Tensor, torch.Tensor], int]


def scene(*shape: int) -> torch.Tensor:
    return torch.randint(0, 256, shape, dtype=torch.uint8, generator=torch.Generator().manual_seed(0))


@pytest.fixture(params=KINDS)
def pipeline(request: pytest.FixtureRequest, make: Make) -> Pipeline:
    return make(**KINDS[request.param])


@pytest.fixture
def asked(monkeypatch: pytest.MonkeyPatch) -> list[tuple[torch.Tensor, float]]:
    """The x and the time of every call of the U-Net, without guidance."""
    calls: list[tuple[torch.Tensor, float]] = []
    forward = FrozenUNet.forward

    def recorded(self: FrozenUNet, x: torch.Tensor, t: torch.Tensor, *rest: Any) -> torch.Tensor:
        calls.append((x, float(t[0])))
        return forward(self, x, t, *rest)

    monkeypatch.setattr(FrozenUNet, "forward", recorded)
    return calls


def test_a_description_is_read_as_it_was_written(pipeline: Pipeline) -> None:
    assert read_json(pipeline.path / "pipeline.json")["format"] == FORMAT == 3
    info = PipelineInfo.read(pipeline.path)
    assert info == pipeline.info
    kind = info.process.kind
    assert isinstance(pipeline.schedule, {"vp": DiscreteVP, "ve": VE, "flow": Flow}[kind])
    assert info.for_diffusers == (info.prediction_type == "v_prediction")
    assert (pipeline.path / "model_index.json").exists() == info.for_diffusers


def test_networks_are_told_times_of_one_range_and_begin_with_the_noise_of_the_process(
    pipeline: Pipeline, asked: list[Any]
) -> None:
    pipeline.text_to_image(PROMPTS, guidance_scale=1)
    last = pipeline.schedule.latest
    assert [t for _, t in asked] == pytest.approx([last - (last + 1) * i / 4 for i in range(4)], rel=0.01)
    torch.testing.assert_close(asked[0][0], pipeline.schedule.spread * pipeline.start([0, 1]))


@pytest.mark.parametrize("sampler", SAMPLERS)
def test_pictures_do_not_depend_on_their_batch(sampler: Any, pipeline: Pipeline, apart: Apart) -> None:
    how: Any = {"sampler": sampler, "num_inference_steps": 3}
    together = pipeline.text_to_image(PROMPTS, seeds=[3, 4], **how).tensor
    alone = [pipeline.text_to_image(PROMPTS[i], seeds=[3 + i], **how).tensor for i in range(2)]
    assert apart(together, torch.cat(alone)) <= 1


def test_a_picture_is_brought_to_the_level_that_the_strength_names(pipeline: Pipeline, asked: list[Any]) -> None:
    given = scene(3, 16, 16)
    pipeline.image_to_image(PROMPTS[0], given, strength=0.5, guidance_scale=1, seeds=[5])
    x, t = asked[0]
    assert t == pytest.approx(pipeline.schedule.latest / 2, rel=0.01)
    level = pipeline.schedule.level(t)
    expected = level.alpha * pipeline.encode(given[None]) + level.sigma * pipeline.start([5])
    torch.testing.assert_close(x, expected, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("sampler", SAMPLERS)
@pytest.mark.parametrize("strength", [0.6, 1.0])
def test_inpainting_leaves_the_rest_as_given(sampler: Any, strength: float, pipeline: Pipeline) -> None:
    given, mask = scene(3, 16, 16), torch.zeros(16, 16, dtype=torch.bool)
    mask[5:12, 3:10] = True
    drawn = pipeline.inpaint(PROMPTS[0], given, mask, strength=strength, sampler=sampler).tensor
    assert torch.equal(drawn[0][:, ~mask], given[:, ~mask])
    assert (drawn[0][:, mask] != given[:, mask]).float().mean() > 0.5


def test_evaluations_are_counted(make: Make) -> None:
    pipeline = make(**KINDS["flow"])
    for sampler, expected in (("ddim", 8), ("heun", 12), ("predictor_corrector", 16)):  # two batches of 4 steps
        output = pipeline.text_to_image(PROMPTS, sampler=sampler, batch_size=1)
        assert output.network_evaluations == expected, sampler


@pytest.mark.parametrize("kind", ["ve", "flow", "zero snr"])
def test_the_ode_draws_what_many_small_steps_draw(kind: str, make: Make) -> None:
    """Of latents: this autoencoder's random decoder would turn any distance into any other."""
    pipeline, ends = make(**KINDS[kind]), []
    evaluations: list[None] = []
    plain = pipeline.info.sampling.changed(spacing="linspace", guidance_scale=1.0)
    for how in (
        plain.changed(sampler="ode,tolerance=1e-3"),
        plain.changed(sampler="heun", num_inference_steps=100),
    ):
        request = pipeline.request(
            PROMPTS[:1], {"seeds": [0], "sampling": how, "on_evaluation": lambda: evaluations.append(None)}
        )
        ends.append(pipeline.latents(request, pipeline.prompts(PROMPTS[:1]), slice(0, 1)))
    assert float((ends[0] - ends[1]).norm() / ends[1].norm()) < 0.04
    assert 200 < len(evaluations) < 200 + 300


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"process": {"schedule": "linear"}}, r"pipeline\.json: process: .* is not a process; its kind is vp"),
        ({"process": {"kind": "ve", "sigma": 25.0}}, r"pipeline\.json: process\.t_min: Field required"),
        (
            {"process": {"kind": "ve", "sigma": 0.5, "t_min": 0.1}},
            r"process\.sigma = 0\.5: Input should be g",
        ),
    ],
)
def test_a_description_of_no_process_is_refused(
    change: dict[str, Any], message: str, make: Make, tmp_path: Any
) -> None:
    from darkroom.core.artifact import write_json

    write_json(tmp_path / "pipeline.json", read_json(make().path / "pipeline.json") | change)
    with pytest.raises(DarkroomError, match=message):
        PipelineInfo.read(tmp_path)
