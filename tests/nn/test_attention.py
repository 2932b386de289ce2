"""Attention: both ways of computing it, causality, GEGLU, identity at initialisation."""

from itertools import repeat

import pytest
import torch
import torch.nn.functional as F

from darkroom.core.errors import DarkroomError
from darkroom.nn.layers import attention
from darkroom.nn.layers.attention import GEGLU, Attention, SpatialAttention, Transformer2DModel, attend
from darkroom.nn.layers.blocks import zero_
from tests.support.measures import Difference


@pytest.mark.parametrize("causal", [False, True])
def test_written_out_attention_equals_the_fused_kernel(
    monkeypatch: pytest.MonkeyPatch, relative_difference: Difference, causal: bool
) -> None:
    q, k, v = torch.randn(3, 2, 4, 9, 8).unbind(0)
    explicit = attend(q, (k, v), causal)
    monkeypatch.setattr(attention, "EXPLICIT_UP_TO", 0)
    fused = attend(q, (k, v), causal)
    assert explicit.shape == (2, 9, 32)
    assert relative_difference(explicit, fused) <= 1e-6


def test_causal_attention_does_not_see_later_tokens() -> None:
    q, k, v = torch.randn(3, 1, 2, 6, 4).unbind(0)
    before = attend(q, (k, v), causal=True)
    k[:, :, 4:], v[:, :, 4:] = 7.0, -3.0
    after = attend(q, (k, v), causal=True)
    assert torch.equal(before[:, :4], after[:, :4])
    assert not torch.allclose(before[:, 4:], after[:, 4:])


def test_one_token_of_context_is_copied_to_every_position() -> None:
    layer = Attention(8, heads=2, context_dim=6)
    context = torch.randn(3, 1, 6)
    out = layer(torch.randn(3, 5, 8), layer.keys_values(context))
    expected = layer.out_projection(layer.to_v(context)).expand(3, 5, 8)
    torch.testing.assert_close(out, expected)


def test_geglu_is_value_times_gelu_of_gate() -> None:
    layer, x = GEGLU(6, 10), torch.randn(2, 3, 6)
    value, gate = layer.proj(x).chunk(2, dim=-1)
    torch.testing.assert_close(layer(x), value * F.gelu(gate))


@pytest.mark.parametrize("linear", [False, True])
def test_a_transformer_without_output_is_exactly_the_identity(linear: bool) -> None:
    transformer = Transformer2DModel(8, 2, context_dim=8, layers=2, groups=2, use_linear_projection=linear)
    x = torch.randn(2, 8, 3, 5)
    assert not torch.equal(transformer(x, repeat(None)), x)
    zero_(transformer.proj_out)
    assert torch.equal(transformer(x, repeat(None)), x)


def test_spatial_attention_without_output_is_exactly_the_identity() -> None:
    layer, x = SpatialAttention(8, groups=2, eps=1e-6), torch.randn(2, 8, 3, 5)
    assert not torch.equal(layer(x), x)
    zero_(layer.out_projection)
    assert torch.equal(layer(x), x)


def test_too_short_a_context_is_refused() -> None:
    transformer = Transformer2DModel(8, 2, context_dim=8, layers=2, groups=2, use_linear_projection=False)
    keys_values = transformer.transformer_blocks[0].attn2.keys_values(torch.randn(1, 3, 8))
    with pytest.raises(DarkroomError, match="prepare_context"):
        transformer(torch.randn(1, 8, 2, 2), iter([keys_values]))
