"""Adapters: the equation, what is frozen, what a copy costs, and 16-bit frozen weights that change no number."""

import copy

import pytest
import torch
from torch import nn

from darkroom.core.device import autocast
from darkroom.core.errors import DarkroomError
from darkroom.core.rng import generator, seeded
from darkroom.nn.denoiser.adapted import AdaptedDenoiser
from darkroom.nn.denoiser.unet import UNet2DConditionModel
from darkroom.nn.layers.lora import LoRAConv2d, LoRALinear, adapt, adapted_layers
from darkroom.nn.layers.recompute import checkpoint_activations
from tests.support import networks
from tests.support.adapters import TARGETS
from tests.support.worlds import randomise

RANK, ALPHA = 3, 6.0


def unet() -> UNet2DConditionModel:
    with seeded(0, "unet"):
        network: UNet2DConditionModel = networks.built(networks.unet(widths=(16, 32), groups=8, side=8, words=16))
    randomise(network)
    return network


def adapted(halved: bool = False) -> AdaptedDenoiser:
    """None of whose adapters is zero."""
    with seeded(0, "lora"):
        found = AdaptedDenoiser(unet(), None, TARGETS, RANK, ALPHA, halved)
        for value in found.state_dict().values():
            value.normal_(std=0.1)
    return found


def predicted(network: AdaptedDenoiser | UNet2DConditionModel) -> torch.Tensor:
    draw = generator(0, "inputs")
    x, words = torch.randn(2, 4, 8, 8, generator=draw), torch.randn(2, 5, 16, generator=draw)
    out: torch.Tensor = network(x, torch.tensor([3.0, 700.0]), network.prepare_context(words))
    return out


@pytest.mark.parametrize(
    ("layer", "shape"),
    [
        (nn.Linear(6, 5), (2, 7, 6)),
        (nn.Linear(6, 5, bias=False), (2, 6)),
        (nn.Conv2d(4, 6, 3, stride=2, padding=1), (2, 4, 8, 8)),
        (nn.Conv2d(4, 6, 1), (2, 4, 5, 5)),
    ],
)
def test_a_layer_computes_the_equation(layer: nn.Linear | nn.Conv2d, shape: tuple[int, ...]) -> None:
    """W x + (alpha / rank) B A x is what the layer with the weight W + (alpha / rank) B A gives."""
    x = torch.randn(shape, dtype=torch.float64)
    if isinstance(layer, nn.Linear):
        found: LoRALinear | LoRAConv2d = LoRALinear(layer, RANK, ALPHA)
    else:
        found = LoRAConv2d(layer, RANK, ALPHA)
    found.double()
    assert torch.equal(found(x), layer(x))  # B begins with zeros
    weights = dict(found.named_parameters())
    a, b = weights["lora_A.weight"], weights["lora_B.weight"]
    nn.init.normal_(b)
    merged = copy.deepcopy(layer)
    merged.weight.data = layer.weight + ALPHA / RANK * (b.flatten(1) @ a.flatten(1)).reshape(layer.weight.shape)
    torch.testing.assert_close(found(x), merged(x), rtol=1e-12, atol=1e-12)
    found.strength = 0.0
    assert torch.equal(found(x), layer(x))


def test_new_adapters_change_nothing_and_alone_learn() -> None:
    plain = predicted(unet())
    with seeded(0, "lora"):
        network = AdaptedDenoiser(unet(), None, TARGETS, RANK, ALPHA, halved=False)
    torch.testing.assert_close(predicted(network), plain, rtol=1e-5, atol=1e-5)
    network = adapted()
    with network.without():
        torch.testing.assert_close(predicted(network), plain, rtol=1e-5, atol=1e-5)
    predicted(network).square().mean().backward()
    learning = {name for name, p in network.named_parameters() if p.grad is not None and p.grad.abs().max() > 0}
    assert learning == set(network.state_dict())
    assert len(learning) == 2 * len(list(adapted_layers(network)))


def test_recomputed_activations_give_the_same_gradients() -> None:
    gradients = []
    for again in (False, True):
        network = adapted().train()
        checkpoint_activations(network, again)
        predicted(network).square().mean().backward()
        gradients.append([p.grad for p in network.parameters() if p.grad is not None])
    assert all(torch.equal(*pair) for pair in zip(*gradients, strict=True))


def test_a_copy_shares_what_is_frozen_and_a_state_is_the_adapters() -> None:
    """Fails if an average or a checkpoint holds the base once more."""
    network = adapted()
    other = copy.deepcopy(network)
    pairs = zip(network.named_parameters(), other.parameters(), strict=True)
    assert all((a is b) == ("lora_" not in name) for (name, a), b in pairs)
    state = {name: torch.zeros_like(value) for name, value in network.state_dict().items()}
    assert all(".lora_" in name for name in state)
    other.load_state_dict(state)
    assert not torch.equal(predicted(other), predicted(network))
    with pytest.raises(RuntimeError, match="not of these adapters"):
        other.load_state_dict(dict(list(state.items())[1:]))


def test_frozen_weights_in_16_bits_change_no_number() -> None:
    """Autocast would round them so at every call."""
    found = []
    for halved in (False, True):
        network = adapted(halved)
        with autocast(torch.device("cpu"), "bf16"):
            out = predicted(network)
        out.float().square().mean().backward()
        found.append([out, *(p.grad for p in network.parameters() if p.grad is not None)])
    assert all(torch.equal(*pair) for pair in zip(*found, strict=True))
    kept = {p.dtype for name, p in adapted(True).named_parameters() if "conv" in name and "lora_" not in name}
    assert torch.bfloat16 in kept


def test_a_target_that_names_no_layer_is_refused_with_those_that_do() -> None:
    with pytest.raises(DarkroomError, match=r"targets: 'to_x' .* give some of .*to_out\.0.*to_q"):
        adapt(unet(), ["to_q", "to_x"], RANK, ALPHA)
    names = adapt(unet(), ["attn2.to_q"], RANK, ALPHA)
    assert names
    assert all(name.endswith("attn2.to_q") for name in names)
