"""Norms in 16 bits for training on CUDA: PyTorch's numbers and gradients, and PyTorch's operations everywhere else.

They would catch a wrong gradient (of pictures, weights, biases, times), sums that miss positions, channels or chunks
where these do not fill a tile, sums in an order that changes, and a CPU's bytes that change with what is for CUDA.
Without a GPU the programs run in Triton's interpreter: `TRITON_INTERPRET=1` where Triton is installed.
"""

import os
from importlib.util import find_spec
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from darkroom.core.device import autocast, channels_last
from darkroom.nn.layers import fused_norm, kernels
from darkroom.nn.layers.fused_norm import enlarged, layer_normed, normed
from darkroom.nn.layers.recompute import checkpoint_activations
from tests.support.networks import built, unet
from tests.support.unets import inputs, predict

CUDA = torch.cuda.is_available()
DEVICE = torch.device("cuda" if CUDA else "cpu")
INTERPRETED = find_spec("triton") is not None and os.environ.get("TRITON_INTERPRET") == "1"
runs = pytest.mark.skipif(not (CUDA or INTERPRETED), reason="needs a GPU, or Triton and TRITON_INTERPRET=1")
SHAPES = [  # N, C, H, W, groups
    (2, 320, 13, 7, 32),
    (1, 96, 70, 60, 32),
    (3, 96, 1, 1, 8),
    (1, 40, 5, 5, 40),
    (2, 1280, 3, 3, 1),
    (2, 16, 9, 5, 1),
    (1, 2560, 2, 2, 32),
]
CONFIG = unet(widths=(32, 64), heads=4, groups=8, words=8)


@pytest.fixture
def everywhere(monkeypatch: pytest.MonkeyPatch) -> None:
    """16 bits on this device too, whatever it is."""
    monkeypatch.setattr(fused_norm, "_in_16_bits", lambda x: True)


def leaves(shape: tuple[int, ...], dtype: torch.dtype, added: bool) -> list[Tensor]:
    n, c, h, w, _ = shape
    torch.manual_seed(0)
    x = (3 * torch.randn(n, c, h, w) + 1).contiguous(memory_format=torch.channels_last).to(dtype)
    values = [x, torch.randn(c), torch.randn(c), *([torch.randn(n, c)] if added else [])]
    return [value.to(DEVICE).requires_grad_() for value in values]


def taken(values: list[Tensor], groups: int, activate: bool, dy: Tensor) -> tuple[Tensor, ...]:
    x, weight, bias, *added = values
    apply: Any = fused_norm._GroupNorm.apply
    y = apply(x, weight, bias, added[0] if added else None, groups, 1e-5, activate)
    return y.detach(), *torch.autograd.grad(y, values, dy)


@runs
@pytest.mark.parametrize("added", [False, True])
@pytest.mark.parametrize("activate", [False, True])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("shape", SHAPES)
def test_results_and_gradients_are_pytorchs(
    shape: tuple[int, ...], dtype: torch.dtype, activate: bool, added: bool
) -> None:
    values = leaves(shape, dtype, added)
    n, c, h, w, groups = shape
    dy = torch.randn(n, c, w, h, device=DEVICE).transpose(2, 3).to(dtype)  # in an order that nothing else here has
    wide = [value.detach().double().requires_grad_() for value in values]
    y = F.group_norm(wide[0] if not added else wide[0] + wide[3][:, :, None, None], groups, wide[1], wide[2], 1e-5)
    y = F.silu(y) if activate else y
    wanted = (y.detach(), *torch.autograd.grad(y, wide, dy.double()))
    found = taken(values, groups, activate, dy)
    assert found[0].is_contiguous(memory_format=torch.channels_last)
    assert found[1].is_contiguous(memory_format=torch.channels_last)
    for ours, theirs in zip(found, wanted, strict=True):
        bound = 1e-2 if ours.dtype == torch.bfloat16 else 2e-5
        assert float((ours.double() - theirs).abs().max()) <= bound * max(1.0, float(theirs.abs().max()))
    for once, again in zip(found, taken(values, groups, activate, dy), strict=True):
        assert torch.equal(once, again)


@runs
@pytest.mark.usefixtures("everywhere")
@pytest.mark.parametrize("recomputed", [False, True])
def test_a_unet_learns_the_same(recomputed: bool, randomise: Any, relative_difference: Any) -> None:
    unet = built(CONFIG)
    randomise(unet)
    unet = channels_last(unet.to(DEVICE)).train()
    given: dict[str, Any] = {key: None if value is None else value.to(DEVICE) for key, value in inputs(CONFIG).items()}
    with pytest.MonkeyPatch.context() as plain:
        plain.setattr(fused_norm, "_in_16_bits", lambda x: False)
        y = predict(unet, **given)
        y.square().mean().backward()
    wanted = [y.detach(), *[p.grad.clone() for p in unet.parameters() if p.grad is not None]]
    unet.zero_grad()
    checkpoint_activations(unet, recomputed)
    with autocast(DEVICE, "bf16"):
        y = predict(unet, **given)
    y.float().square().mean().backward()
    found = [y.detach(), *[p.grad.clone() for p in unet.parameters() if p.grad is not None]]
    assert len(found) == len(wanted)
    assert relative_difference(found[0].float(), wanted[0]) <= 0.05
    ours, theirs = (torch.cat([g.flatten().float() for g in all_[1:]]) for all_ in (found, wanted))
    assert float(F.cosine_similarity(ours, theirs, dim=0)) >= 0.99


@pytest.mark.parametrize("precision", ["fp32", "bf16"])
def test_a_cpu_has_pytorchs_operations(precision: str) -> None:
    x, added, tokens = torch.randn(2, 32, 6, 5), torch.randn(2, 32), torch.randn(2, 7, 32)
    group, layer = nn.GroupNorm(8, 32), nn.LayerNorm(32)
    with autocast(torch.device("cpu"), precision):
        pairs = [
            (normed(group, x, activate=False), group(x)),
            (normed(group, x, activate=True), F.silu(group(x))),
            (normed(group, x, activate=True, added=added), F.silu(group(x + added[:, :, None, None]))),
            (layer_normed(layer, tokens), layer(tokens)),
            (enlarged(x, (12, 10)), F.interpolate(x, size=(12, 10), mode="nearest")),
        ]
    for ours, theirs in pairs:
        assert ours.dtype == theirs.dtype
        assert torch.equal(ours, theirs)


def test_they_are_not_tried_where_they_cannot_run_or_are_not_wanted(monkeypatch: pytest.MonkeyPatch) -> None:
    assert not kernels.trainable(torch.device("cpu"))
    monkeypatch.setenv("DARKROOM_FUSED_NORMS", "0")
    monkeypatch.setattr(kernels, "_trial_of_gradients", lambda device: True)
    assert not kernels.trainable(torch.device("cuda:7"))
    kernels.trainable.cache_clear()
    monkeypatch.setenv("DARKROOM_FUSED_NORMS", "1")
    assert kernels.trainable(torch.device("cuda:7"))
    kernels.trainable.cache_clear()


def test_a_failed_trial_is_said_once(monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture) -> None:
    def broken(device: torch.device) -> bool:
        raise RuntimeError("no compiler")

    monkeypatch.setattr(kernels, "_trial_of_gradients", broken)
    for _ in range(2):
        assert not kernels.trainable(torch.device("cuda:7"))
    kernels.trainable.cache_clear()
    assert [record.getMessage() for record in caplog.records] == [
        "training without fused kernels, which is slower: RuntimeError: no compiler"
    ]


@pytest.mark.skipif(not CUDA, reason="needs a GPU")
def test_the_programs_for_training_hold_on_this_gpu() -> None:
    assert kernels.trainable(torch.device("cuda", 0))
