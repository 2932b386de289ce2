"""UNet2DConditionModel: the same network as diffusers', prepared contexts, zero initialisation, refusals."""

import json
from typing import Any

import pytest
import torch

from darkroom.config.denoisers import UNet2DConditionConfig, UNetSpec
from darkroom.config.networks import read_section
from darkroom.core.errors import DarkroomError
from darkroom.interop.configs import unet_config
from tests.support.measures import Difference, Epsilons, Randomise
from tests.support.networks import built
from tests.support.unets import CLASSES, CONFIGS, IDS, TINY, inputs, predict


@pytest.mark.parametrize("config", CONFIGS, ids=IDS)
def test_is_diffusers_unet(
    diffusers: Any,
    randomise: Randomise,
    relative_difference: Difference,
    config: UNetSpec,
) -> None:
    ours, theirs = built(config), diffusers.UNet2DConditionModel(**unet_config(config)).eval()
    randomise(ours)
    theirs.load_state_dict(ours.state_dict(), strict=True)
    x = inputs(config)
    with torch.no_grad():
        found = predict(ours, **x)
        expected = theirs(x["sample"], x["timestep"], x["words"], class_labels=x["class_labels"]).sample
    assert relative_difference(found, expected) <= 1e-5


@pytest.mark.parametrize("config", CONFIGS, ids=IDS)
def test_takes_diffusers_weights(diffusers: Any, epsilons: Epsilons, config: UNetSpec) -> None:
    theirs = diffusers.UNet2DConditionModel(**unet_config(config))
    ours = built(config)
    ours.load_state_dict(theirs.state_dict(), strict=True)
    assert all(torch.equal(value, theirs.state_dict()[key]) for key, value in ours.state_dict().items())
    assert epsilons(ours) == epsilons(theirs)


@pytest.mark.parametrize("config", CONFIGS, ids=IDS)
def test_every_weight_learns(config: UNetSpec) -> None:
    unet = built(config)
    predict(unet, **inputs(config)).square().mean().backward()
    silent = [n for n, p in unet.named_parameters() if p.grad is None or not p.grad.abs().max() > 0]
    assert silent == []


def test_gradients_reach_the_words_through_the_prepared_context(randomise: Randomise) -> None:
    unet = built(TINY)
    randomise(unet)
    x = inputs(TINY)
    words = x.pop("words").requires_grad_()
    predict(unet, **x, words=words).square().mean().backward()
    assert words.grad.abs().amax(dim=(1, 2)).min() > 0


def test_every_condition_changes_the_prediction(randomise: Randomise) -> None:
    text, classes = built(TINY), built(CLASSES)
    randomise(text)
    randomise(classes)
    x, y = inputs(TINY), inputs(CLASSES)
    assert not torch.allclose(predict(text, **x), predict(text, **{**x, "words": x["words"].flip(0)}))
    assert not torch.allclose(predict(text, **x), predict(text, **{**x, "timestep": x["timestep"].flip(0)}))
    assert not torch.allclose(predict(classes, **y), predict(classes, **{**y, "class_labels": torch.tensor([1, 1, 1])}))


def test_a_context_prepared_once_serves_any_batch(randomise: Randomise, relative_difference: Difference) -> None:
    unet = built(TINY)
    randomise(unet)
    captions, null = torch.randn(2, 6, 10), torch.randn(1, 6, 10)
    prepared = unet.prepare_context(torch.cat([captions, null]))
    sample, t = torch.randn(4, 4, 8, 8), torch.full((4,), 300.0)
    rows = torch.tensor([0, 1, 2, 2])
    found = unet(sample, t, [(keys[rows], values[rows]) for keys, values in prepared])
    expected = unet(sample, t, unet.prepare_context(torch.cat([captions, null, null])))
    assert relative_difference(found, expected) <= 1e-6


def cut(batch: dict[str, Any], i: int) -> dict[str, Any]:
    """One sample of a batch."""
    return {name: None if value is None else value[i : i + 1] for name, value in batch.items()}


def test_a_sample_does_not_depend_on_its_batch(randomise: Randomise, relative_difference: Difference) -> None:
    unet = built(TINY)
    randomise(unet)
    x = inputs(TINY)
    together = predict(unet, **x)
    alone = torch.cat([predict(unet, **cut(x, i)) for i in range(3)])
    assert relative_difference(together, alone) <= 1e-5


def test_channels_last_changes_nothing_but_the_order_in_memory(
    randomise: Randomise, relative_difference: Difference
) -> None:
    unet = built(TINY)
    randomise(unet)
    x = inputs(TINY)
    expected = predict(unet, **x)
    unet.to(memory_format=torch.channels_last)
    found = predict(unet, **{**x, "sample": x["sample"].to(memory_format=torch.channels_last)})
    assert found.is_contiguous(memory_format=torch.channels_last)
    assert relative_difference(found, expected) <= 1e-5


def test_bfloat16_agrees_to_its_precision(randomise: Randomise, relative_difference: Difference) -> None:
    unet = built(TINY)
    randomise(unet)
    x = inputs(TINY)
    with torch.no_grad():
        expected = predict(unet, **x)
        with torch.autocast("cpu", torch.bfloat16):
            found = predict(unet, **x)
    assert relative_difference(found.float(), expected) <= 0.03


def test_weights_of_16_bits_leave_the_timestep_exact(randomise: Randomise, relative_difference: Difference) -> None:
    unet = built(TINY)
    randomise(unet)
    x = inputs(TINY)
    with torch.no_grad():
        expected = predict(unet, **x)
        unet.bfloat16()
        found = predict(unet, x["sample"].bfloat16(), x["timestep"], x["words"].bfloat16(), None)
    assert relative_difference(found.float(), expected) <= 0.03


def test_config_survives_json() -> None:
    for config in CONFIGS:
        assert UNetSpec.read(json.loads(json.dumps(config.model_dump())), "config.json", "") == config


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"norm_num_groups": 3}, r"block_out_channels\.0 = 8 is not divisible by norm_num_groups = 3"),
        ({"num_attention_heads": [3, 2]}, r"block_out_channels\.0 = 8 is not divisible by num_attention_heads\.0 = 3"),
        ({"num_attention_heads": [2, 3]}, r"block_out_channels\.1 = 16 is not divisible by num_attention_heads\.1 = 3"),
        ({"num_attention_heads": [2, 2, 2]}, "num_attention_heads has not 2 entries"),
        ({"down_block_types": ["DownBlock2D"]}, "down_block_types has not 2 entries"),
        ({"down_block_types": ["DownBlock2D", "UpBlock2D"]}, r"down_block_types\.1 = 'UpBlock2D': give DownBlock2D or"),
        ({"block_out_channels": [], "down_block_types": [], "up_block_types": []}, "block_out_channels"),
    ],
)
def test_bad_configs_are_refused_in_one_line(change: dict[str, Any], message: str) -> None:
    with pytest.raises(DarkroomError, match=message) as caught:
        read_section(UNet2DConditionConfig, {**TINY.network.model_dump(), **change}, "file", "fix it")
    assert "\n" not in str(caught.value)


def test_a_condition_that_does_not_fit_is_refused() -> None:
    text, classes = built(TINY), built(CLASSES)
    sample, t, labels = torch.randn(1, 4, 8, 8), torch.zeros(1), torch.zeros(1, dtype=torch.int64)
    context = text.prepare_context(torch.randn(1, 6, 10))
    with pytest.raises(DarkroomError, match="needs text embeddings, but none are given"):
        text(sample, t)
    with pytest.raises(DarkroomError, match="takes no class labels, but they are given"):
        text(sample, t, context, labels)
    with pytest.raises(DarkroomError, match="takes no text embeddings, but they are given"):
        classes(sample, t, context, labels)
    with pytest.raises(DarkroomError, match="needs class labels, but none are given"):
        classes(sample, t)
    with pytest.raises(DarkroomError, match="takes no text"):
        classes.prepare_context(torch.randn(1, 6, 10))
    with pytest.raises(DarkroomError, match="cross_attention_dim = 10, but the text embeddings have width 7"):
        text.prepare_context(torch.randn(1, 6, 7))
