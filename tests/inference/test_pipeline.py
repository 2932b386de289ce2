"""The laws of drawing pictures, and what the pipeline refuses."""

import json
import logging
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from darkroom.core.artifact import content_hash
from darkroom.core.device import autocast
from darkroom.core.errors import DarkroomError
from darkroom.inference import prompts as prompts_module
from darkroom.inference.pipeline import Pipeline
from darkroom.interop.diffusers import UNET, read_unet
from darkroom.nn.autoencoder.vae import AutoencoderKL
from darkroom.nn.denoiser.unet import UNet2DConditionModel
from tests.support import pipelines

PROMPTS = ["a small red circle", "a large blue square", "a small green square", "a small red circle"]
Make = Callable[..., Pipeline]
Apart = Callable[[torch.Tensor, torch.Tensor], int]


@pytest.mark.parametrize("sampler", ["ddim", "ddpm"])
def test_a_picture_depends_on_its_own_prompt_and_seed_and_not_on_its_batch(
    sampler: Any, make: Make, apart: Apart
) -> None:
    pipeline, seeds = make(), [7, 40, 2, 9]  # in no order that counting would give
    how = {"sampler": sampler}
    together = pipeline.text_to_image(PROMPTS, seeds=seeds, **how).tensor
    alone = torch.cat([pipeline.text_to_image(p, seeds=[s], **how).tensor for s, p in zip(seeds, PROMPTS, strict=True)])
    split = pipeline.text_to_image(PROMPTS, seeds=seeds, batch_size=3, **how).tensor
    assert apart(together, alone) <= 1
    assert apart(together, split) <= 1
    assert apart(together[0], together[3]) > 20  # the same prompt, another seed
    other = pipeline.text_to_image(PROMPTS[1], seeds=seeds[:1], **how).tensor
    assert apart(together[0], other[0]) > 20  # the same seed, another prompt


def test_the_default_seeds_count_from_zero_which_is_a_seed(make: Make, apart: Apart) -> None:
    pipeline = make()
    default = pipeline.text_to_image(PROMPTS[:2]).tensor
    assert torch.equal(default, pipeline.text_to_image(PROMPTS[:2], seeds=[0, 1]).tensor)
    assert apart(default[:1], pipeline.text_to_image(PROMPTS[0], seeds=[1]).tensor) > 20


def test_pictures_come_as_pil_of_the_same_pixels(make: Make) -> None:
    for channels, mode in ((3, "RGB"), (1, "L")):
        pipeline = make(channels=channels)
        (picture,) = pipeline.text_to_image(PROMPTS[0]).images
        assert (picture.mode, picture.size) == (mode, (16, 16))
        tensor = pipeline.text_to_image(PROMPTS[0]).tensor
        assert tensor.shape == (1, channels, 16, 16)
        assert picture.getpixel((3, 5)) in (tuple(tensor[0, :, 5, 3].tolist()), int(tensor[0, 0, 5, 3]))


def test_guidance_one_is_the_conditional_model_at_half_the_work(make: Make, forwards: list[int], apart: Apart) -> None:
    pipeline = make()
    plain = pipeline.text_to_image(PROMPTS, guidance_scale=1.0).tensor
    assert forwards == [4] * 4
    forwards.clear()
    nearly = pipeline.text_to_image(PROMPTS, guidance_scale=1 + 1e-6).tensor
    assert forwards == [8] * 4
    assert apart(plain, nearly) <= 1
    guided = pipeline.text_to_image(PROMPTS, guidance_scale=3.0).tensor
    assert apart(plain, guided) > 10


def test_keys_and_values_are_made_once_a_run_and_for_distinct_prompts_only(
    make: Make, monkeypatch: pytest.MonkeyPatch
) -> None:
    pipeline, sizes = make(), []
    prepare = UNet2DConditionModel.prepare_context

    def counting(self: UNet2DConditionModel, states: torch.Tensor) -> Any:
        sizes.append(len(states))
        return prepare(self, states)

    monkeypatch.setattr(UNet2DConditionModel, "prepare_context", counting)
    pipeline.text_to_image(PROMPTS, num_inference_steps=5)
    assert sizes == [1 + 3]  # the null, and three distinct prompts


def test_guidance_uses_the_null_the_pipeline_states(make: Make, apart: Apart) -> None:
    empty, zeros = make(), make(null="zeros")
    assert content_hash(empty.path / UNET) == content_hash(zeros.path / UNET)
    text = empty.prompts(["", "a small red circle"])
    assert isinstance(text, prompts_module.TextPrompts)
    assert torch.allclose(text.encoded.tokens[0], text.encoded.tokens[1], atol=1e-5)
    nothing = zeros.prompts([""])
    assert isinstance(nothing, prompts_module.TextPrompts)
    assert not nothing.encoded.tokens[0].any()
    for pipeline, given in ((empty, text), (zeros, nothing)):
        prepared = pipeline.unet.prepare(given.conditions(slice(0, 1)).null)
        expected = pipeline.unet.prepare_context(given.encoded.tokens[:1])
        assert prepared.context is not None
        for (k, v), (k2, v2) in zip(prepared.context, expected, strict=True):
            assert torch.allclose(k, k2, atol=1e-5)
            assert torch.allclose(v, v2, atol=1e-5)
    drawn = [p.text_to_image(PROMPTS[0]).tensor for p in (empty, zeros)]
    assert apart(*drawn) > 2
    assert not (zeros.path / "model_index.json").exists()  # diffusers starts from the empty prompt


def test_guidance_of_the_empty_prompt_changes_nothing(make: Make, apart: Apart) -> None:
    """With the empty prompt both halves are the same, so the scale has nothing to enlarge."""
    pipeline = make()
    drawn = [pipeline.text_to_image("", guidance_scale=g).tensor for g in (1.0, 7.0)]
    assert apart(*drawn) <= 1


def test_classes_are_asked_for_by_name(make: Make, apart: Apart) -> None:
    pipeline = make(kind="class")
    drawn = pipeline.text_to_image(["zero", "two"], seeds=[0, 0]).tensor
    assert apart(drawn[0], drawn[1]) > 5
    with pytest.raises(DarkroomError, match="'nine' is not a class of this model; its classes: zero, one, two"):
        pipeline.text_to_image("nine")
    _, null = pipeline.prompts(["one"]).conditions(slice(0, 1))
    assert null.class_ids is not None
    assert null.class_ids.tolist() == [3]
    assert not (pipeline.path / "model_index.json").exists()


def test_a_model_without_condition_takes_the_empty_prompt_alone(make: Make) -> None:
    pipeline = make(kind="none")
    assert pipeline.text_to_image(["", ""]).tensor.shape == (2, 3, 16, 16)
    with pytest.raises(DarkroomError, match="without captions"):
        pipeline.text_to_image("a dog")


def test_pixels_need_no_autoencoder(make: Make) -> None:
    pipeline = make(autoencoder="identity")
    assert pipeline.text_to_image(PROMPTS[:2]).tensor.shape == (2, 3, 16, 16)
    assert not (pipeline.path / "vae").exists()
    assert not (pipeline.path / "model_index.json").exists()


def test_pixels_have_the_range_they_were_trained_in(make: Make, apart: Apart) -> None:
    wide, narrow = make(autoencoder="identity"), make(autoencoder="identity", identity_range=(0.0, 1.0))
    levels = torch.arange(3 * 256).remainder(256).to(torch.uint8).view(1, 3, 16, 16)
    scale = narrow.info.scaling_factor
    assert narrow.info.identity_range == (0.0, 1.0)
    assert torch.allclose(narrow.encode(levels) / scale, (wide.encode(levels) / scale + 1) / 2, atol=1e-6)
    for pipeline in (wide, narrow):
        assert torch.equal(pipeline.decode(pipeline.encode(levels)), levels)
    assert torch.equal(narrow.decode(torch.zeros(1, 3, 16, 16)), torch.zeros_like(levels))
    drawn = [pipeline.text_to_image(PROMPTS[0]).tensor for pipeline in (wide, narrow)]
    assert apart(*drawn) > 20  # the same network and noise, read otherwise


def test_bf16_draws_nearly_the_same_and_keeps_to_its_seed(make: Make, apart: Apart) -> None:
    exact, fast = make(), make(precision="bf16")
    drawn = [p.text_to_image(PROMPTS).tensor for p in (exact, fast)]
    difference = (drawn[0].float() - drawn[1].float()).abs().mean()
    assert 0 < difference < 6
    alone = torch.cat([fast.text_to_image(p, seeds=[s]).tensor for s, p in enumerate(PROMPTS)])
    assert apart(drawn[1], alone) <= 1


def test_bf16_reaches_the_decoder_and_neither_encoder(make: Make) -> None:
    pipeline, seen = make(precision="bf16"), dict[str, bool]()
    assert pipeline.text is not None
    assert isinstance(pipeline.vae, AutoencoderKL)
    for name, part in (
        ("text", pipeline.text[1]),
        ("encoder", pipeline.vae.encoder),
        ("decoder", pipeline.vae.decoder),
    ):
        part.register_forward_hook(lambda *_, name=name: seen.update({name: torch.is_autocast_enabled("cpu")}))
    picture = pipeline.text_to_image(PROMPTS[0]).tensor
    pipeline.image_to_image(PROMPTS[0], picture)
    assert seen == {"text": False, "encoder": False, "decoder": True}
    pipeline.reconstruct(torch.rand(1, 3, 16, 16))
    assert seen["decoder"] is False  # what the autoencoder is measured on


@pytest.mark.parametrize("kind", ["text", "class"])
def test_bf16_weights_are_what_autocast_makes_of_fp32_ones_to_the_bit(kind: str, make: Make) -> None:
    pipeline, cpu = make(kind=kind), torch.device("cpu")
    networks = [read_unet(pipeline.path / UNET, cpu, precision) for precision in ("bf16", "fp32")]
    assert [n.conv_in.weight.dtype for n in networks] == [torch.bfloat16, torch.float32]
    prompts = pipeline.prompts({"text": PROMPTS[:2], "class": ["zero", "two"]}[kind])
    answers = []
    for network in networks:
        with torch.no_grad(), autocast(cpu, "bf16"):
            prepared = network.prepare(prompts.conditions(slice(0, 2)).asked)
            start = pipeline.start([0, 1])
            answers.append(network(start, torch.tensor([9.0, 900.0]), *prepared))
    assert torch.equal(*answers)


def test_a_long_prompt_is_cut_and_the_words_not_seen_are_named(make: Make, caplog: pytest.LogCaptureFixture) -> None:
    pipeline = make()
    with caplog.at_level(logging.WARNING, "darkroom"):
        pipeline.text_to_image("a small red circle " * 2 + "a large blue square and beyond")
    record, unseen = caplog.records
    assert "words that the model never saw: and, beyond" in unseen.getMessage()
    assert record.getMessage().endswith("beyond'")
    assert "12 tokens" in record.getMessage()


def test_every_step_can_be_watched(make: Make) -> None:
    pipeline, seen = make(), []
    drawn = pipeline.text_to_image(PROMPTS, on_step=lambda k, x, x0: seen.append((k, x, x0))).tensor
    assert [k for k, _, _ in seen] == [0, 1, 2, 3]
    assert torch.equal(pipeline.decode(seen[-1][1]), drawn)
    assert torch.equal(seen[-1][1], seen[-1][2])  # the last step ends at what was expected


def test_the_same_parts_give_the_same_folder(make: Make, tmp_path: Path) -> None:
    again = Pipeline.from_pretrained(pipelines.assembled(tmp_path), device="cpu")
    assert again.model_hash == make().model_hash
    assert again.model_hash != make(null="zeros").model_hash


@pytest.mark.parametrize(
    ("call", "message"),
    [
        ({"prompt": []}, "prompt: none given"),
        ({"prompt": ["a"], "seeds": [1, 2]}, "seeds: 2 given for 1 prompt;"),
        ({"prompt": "a", "num_inference_steps": 0}, "num_inference_steps = 0: give 1 to 1000"),
        ({"prompt": "a", "num_inference_steps": 1001}, "num_inference_steps = 1001: give 1 to 1000"),
        ({"prompt": "a", "sampler": "lms"}, "sampler = 'lms': unknown; choose from ddpm, ddim"),
        ({"prompt": "a", "guidance_scale": float("nan")}, "guidance_scale = nan"),
        ({"prompt": "a", "guidance_scale": -1.0}, "guidance_scale = -1.0"),
        ({"prompt": "a", "batch_size": 0}, "batch_size = 0"),
    ],
)
def test_bad_requests_are_refused_in_one_line(call: dict[str, Any], message: str, make: Make) -> None:
    with pytest.raises(DarkroomError, match=message) as caught:
        make().text_to_image(**call)
    assert "\n" not in str(caught.value)


def test_folders_that_are_no_pipeline_are_refused(make: Make, tmp_path: Path) -> None:
    with pytest.raises(DarkroomError, match="no such pipeline"):
        Pipeline.from_pretrained(tmp_path / "nowhere")
    with pytest.raises(DarkroomError, match=r"holds no pipeline\.json"):
        Pipeline.from_pretrained(tmp_path)
    folder = tmp_path / "copy"
    shutil.copytree(make().path, folder)
    (folder / "unet" / "diffusion_pytorch_model.safetensors").write_bytes(b"torn")
    with pytest.raises(DarkroomError, match="not a readable safetensors file"):
        Pipeline.from_pretrained(folder, device="cpu")
    value = json.loads((folder / "pipeline.json").read_text())
    for change, message in (({"format": 1}, "format 1, not 2"), ({"sampling": None}, "does not describe a pipeline")):
        (folder / "pipeline.json").write_text(json.dumps({**value, **change}))
        with pytest.raises(DarkroomError, match=message):
            Pipeline.from_pretrained(folder, device="cpu")
