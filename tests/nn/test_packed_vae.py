"""The autoencoder for encoding and drawing on CUDA is the trained one, in 32 bits and, up to rounding, in 16.

It would catch a layer left out or in another order, a bias taken twice or not at all where it is added elsewhere, and
weights of the autoencoder itself that are changed on the way. Fused kernels are tried by their meaning, in PyTorch's
own operations; on a GPU, themselves.
"""

import copy
from typing import Any

import pytest
import torch
import torch.nn.functional as F

from darkroom.inference.packed_unet import PackedUNet
from darkroom.nn.autoencoder.packed_vae import PackedAutoencoder, quick
from darkroom.nn.autoencoder.vae import AutoencoderKL
from darkroom.nn.layers import kernels, packed
from tests.support.networks import built, identity, kl
from tests.support.unets import CONFIGS, IDS, halved, inputs, predict

CONFIG = kl((16, 32, 32), layers=2, groups=8)
BOUNDS = {torch.float32: 1e-5, torch.bfloat16: 2e-2}


@pytest.fixture
def vae(randomise: Any) -> AutoencoderKL:
    made: AutoencoderKL = built(CONFIG)
    randomise(made)
    return made.eval().requires_grad_(False)


@pytest.fixture
def fused(monkeypatch: pytest.MonkeyPatch) -> None:
    """The fused kernels, as what they mean."""

    def group_norm(x: Any, norm: kernels.Norm, silu: bool, added: Any = None) -> Any:
        weight, bias, groups, eps = norm
        y = x.float() if added is None else x.float() + added.float()[:, :, None, None]
        y = F.group_norm(y, groups, weight, bias, eps)
        return (F.silu(y) if silu else y).to(x.dtype).contiguous(memory_format=torch.channels_last)

    def layer_norm(x: Any, weight: Any, bias: Any, eps: float) -> Any:
        return F.layer_norm(x.float(), x.shape[-1:], weight, bias, eps).to(x.dtype)

    def gated(x: Any) -> Any:
        value, gate = x.float().chunk(2, dim=-1)
        return (value * F.gelu(gate)).to(x.dtype)

    def add_(h: Any, x: Any, bias: Any) -> Any:
        return h.copy_(h.float() + x.float() + bias.float()[:, None, None])

    monkeypatch.setattr(kernels, "usable", lambda device, dtype: True)
    for stand_in in (group_norm, layer_norm, gated, add_):
        monkeypatch.setattr(kernels, stand_in.__name__, stand_in)


def agree(vae: AutoencoderKL, dtype: torch.dtype, relative_difference: Any) -> None:
    before = copy.deepcopy(vae.state_dict())
    x = torch.randn(2, 3, 32, 24).clamp(-1, 1)
    moments = vae.encode(x)
    pictures = vae.decode(moments.mean)
    fast = PackedAutoencoder(vae, dtype)
    found = fast.encode(x)
    assert found.mean.dtype == dtype
    for ours, theirs in zip((*found, fast.decode(moments.mean)), (*moments, pictures), strict=True):
        assert relative_difference(ours.float(), theirs) <= BOUNDS[dtype]
    for key, value in vae.state_dict().items():
        assert torch.equal(value, before[key])


@pytest.mark.parametrize("dtype", BOUNDS)
@pytest.mark.parametrize("packs", [True, False])
def test_it_is_the_same_autoencoder(
    vae: AutoencoderKL, dtype: torch.dtype, packs: bool, relative_difference: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    if not packs:  # as on CUDA
        monkeypatch.setattr(packed, "packs", lambda weight: False)
    agree(vae, dtype, relative_difference)


@pytest.mark.usefixtures("fused")
@pytest.mark.parametrize("dtype", BOUNDS)
def test_it_is_the_same_autoencoder_with_fused_kernels(
    vae: AutoencoderKL, dtype: torch.dtype, relative_difference: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(packed, "packs", lambda weight: False)
    agree(vae, dtype, relative_difference)


@pytest.mark.usefixtures("fused")
@pytest.mark.parametrize("dtype", BOUNDS)
@pytest.mark.parametrize("config", CONFIGS, ids=IDS)
def test_the_unet_with_fused_kernels(
    config: Any, dtype: torch.dtype, randomise: Any, relative_difference: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(packed, "packs", lambda weight: False)
    unet = built(config)
    randomise(unet)
    unet = unet.eval().requires_grad_(False)
    for same_time in (True, False):
        x = inputs(config)
        x = {**x, "timestep": torch.full((3,), 700.0)} if same_time else x
        expected = predict(unet, **x)
        fast = PackedUNet(copy.deepcopy(unet) if dtype == torch.float32 else halved(copy.deepcopy(unet)))
        with torch.autocast("cpu", torch.bfloat16, enabled=dtype == torch.bfloat16):
            assert relative_difference(predict(fast, **x).float(), expected) <= BOUNDS[dtype]


def test_only_cuda_in_16_bits_is_computed_otherwise(vae: AutoencoderKL) -> None:
    pixels = identity(-1, 1)
    cuda = torch.device("cuda")
    assert quick(vae, torch.device("cpu"), "bf16") is vae
    assert quick(vae, cuda, "fp32") is vae
    assert quick(pixels, cuda, "bf16") is pixels
    assert isinstance(quick(vae, cuda, "bf16"), PackedAutoencoder)


def test_kernels_are_not_tried_where_they_cannot_run() -> None:
    assert not kernels.usable(torch.device("cpu"), torch.bfloat16)
    assert not kernels.usable(torch.device("cuda"), torch.float32)


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")
def test_fused_kernels_are_what_they_mean() -> None:
    assert kernels.usable(torch.device("cuda"), torch.bfloat16)
