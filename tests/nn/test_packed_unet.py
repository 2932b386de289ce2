"""The U-Net for drawing is the trained one, for every shape, size, time and condition, on any processor."""

import copy
import gc
import weakref
from typing import Any

import pytest
import torch

from darkroom.config.denoisers import UNetSpec
from darkroom.core.device import autocast
from darkroom.core.errors import DarkroomError
from darkroom.inference.packed_unet import PackedUNet
from darkroom.nn.layers import packed
from tests.support.measures import Difference, Randomise
from tests.support.networks import built
from tests.support.unets import CLASSES, CONFIGS, IDS, STABLE, TINY, halved, inputs, predict

FP32, BF16 = 1e-5, 2e-2  # relative differences


def trained(config: UNetSpec, randomise: Randomise) -> Any:
    unet = built(config)
    randomise(unet)
    return unet.eval().requires_grad_(False)


@pytest.mark.parametrize("config", CONFIGS, ids=IDS)
def test_it_is_the_same_network(randomise: Randomise, relative_difference: Difference, config: UNetSpec) -> None:
    unet = trained(config, randomise)
    x = inputs(config)
    expected = predict(unet, **x)
    assert relative_difference(predict(PackedUNet(unet), **x), expected) <= FP32


@pytest.mark.parametrize("config", CONFIGS, ids=IDS)
def test_at_one_time_as_in_drawing_and_at_other_sizes(
    randomise: Randomise, relative_difference: Difference, config: UNetSpec
) -> None:
    unet = trained(config, randomise)
    fast = PackedUNet(copy.deepcopy(unet))
    for n, side in ((1, 8), (2, 16), (3, 24)):
        x = {**inputs(config, n), "timestep": torch.full((n,), 700.0)}
        x["sample"] = torch.randn(n, config.sizes.in_channels, side, 2 * side)
        assert relative_difference(predict(fast, **x), predict(unet, **x)) <= FP32


@pytest.mark.parametrize("config", CONFIGS, ids=IDS)
def test_in_bfloat16_under_autocast_as_pipelines_run_it(
    randomise: Randomise, relative_difference: Difference, config: UNetSpec
) -> None:
    unet = trained(config, randomise)
    x = {**inputs(config), "timestep": torch.full((3,), 700.0)}
    expected = predict(unet, **x)
    fast = PackedUNet(halved(unet))
    with autocast(torch.device("cpu"), "bf16"):
        found = predict(fast, **x)
    assert found.dtype == torch.bfloat16
    assert 0 < relative_difference(found.float(), expected) <= BF16


@pytest.mark.parametrize("bits", [torch.float32, torch.bfloat16])
def test_without_packed_weights(
    randomise: Randomise,
    relative_difference: Difference,
    monkeypatch: pytest.MonkeyPatch,
    bits: torch.dtype,
) -> None:
    unet = trained(STABLE, randomise)
    x = {**inputs(STABLE), "timestep": torch.full((3,), 700.0)}
    expected = predict(unet, **x)
    monkeypatch.setattr(packed, "packs", lambda weight: False)
    fast = PackedUNet(unet if bits == torch.float32 else halved(unet))
    with autocast(torch.device("cpu"), "fp32" if bits == torch.float32 else "bf16"):
        found = predict(fast, **x)
    assert relative_difference(found.float(), expected) <= (FP32 if bits == torch.float32 else BF16)


def test_the_time_and_the_condition_matter(randomise: Randomise) -> None:
    fast = PackedUNet(trained(TINY, randomise))
    x = inputs(TINY)
    base = predict(fast, **x)
    assert not torch.allclose(base, predict(fast, **{**x, "timestep": x["timestep"] + 50}))
    assert not torch.allclose(base, predict(fast, **{**x, "words": x["words"].flip(0)}))
    fast = PackedUNet(trained(CLASSES, randomise))
    x = {**inputs(CLASSES), "timestep": torch.full((3,), 5.0)}
    assert not torch.allclose(predict(fast, **x), predict(fast, **{**x, "class_labels": torch.tensor([1, 1, 1])}))


def test_inputs_stay_as_they_are(randomise: Randomise) -> None:
    fast = PackedUNet(trained(TINY, randomise))
    x = inputs(TINY)
    before = copy.deepcopy(x)
    predict(fast, **x)
    for key, value in x.items():
        assert value is None or torch.equal(value, before[key])


def test_the_weights_are_taken_over_not_kept_twice(randomise: Randomise) -> None:
    unet = trained(STABLE, randomise)
    convolutions = [m for m in unet.modules() if isinstance(m, torch.nn.Conv2d)]
    weights = [weakref.ref(m.weight) for m in convolutions]
    PackedUNet(unet)
    gc.collect()
    assert len(weights) > 0
    assert all(weight() is None for weight in weights)
    assert all(m.weight is None for m in convolutions)


def test_conditions_it_does_not_take_are_refused(randomise: Randomise) -> None:
    fast = PackedUNet(trained(TINY, randomise))
    x = inputs(TINY)
    with pytest.raises(DarkroomError, match="UNet2DConditionModel needs text embeddings, but none are given"):
        fast(x["sample"], x["timestep"])
    with pytest.raises(DarkroomError, match="UNet2DConditionModel takes no class labels, but they are given"):
        fast(x["sample"], x["timestep"], fast.prepare_context(x["words"]), torch.tensor([0, 1, 2]))
