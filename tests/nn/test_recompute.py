"""Activation checkpointing: the same numbers to the bit, with less kept between the passes, and only in training.

Would catch: a layer computed again with the next layer's words, gradients that differ, a switch without effect, blocks
computed twice where no gradient is taken, and blocks that torch.compile cannot take.
"""

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from darkroom.config.denoisers import UNetSpec
from darkroom.core.device import autocast
from darkroom.nn.layers.recompute import checkpoint_activations
from tests.support.measures import Randomise
from tests.support.networks import CROSS_DOWN, CROSS_UP, DOWN, UP, built, kl, unet
from tests.support.noting import gradient

CPU = torch.device("cpu")
WORDS = unet(layers=2, depths=2, words=10)
CLASSES = unet(down=(DOWN, CROSS_DOWN), up=(CROSS_UP, UP), layers=2, heads=4, linear=True, classes=2)
Loss = Callable[[], Tensor]
Maker = Callable[[], tuple[nn.Module, Loss]]


def denoiser(spec: UNetSpec) -> tuple[nn.Module, Loss]:
    network = built(spec)
    x, words = torch.randn(2, 4, 7, 8), torch.randn(2, 5, 10)  # a side that halving rounds
    told = None if spec.sizes.num_classes is None else torch.tensor([0, 2])

    def loss() -> Tensor:
        context = network.prepare_context(words) if spec.sizes.cross_attention_dim else None
        result: Tensor = network(x, torch.tensor([3.0, 700.0]), context, told).square().mean()
        return result

    return network, loss


def autoencoder() -> tuple[nn.Module, Loss]:
    vae, x, noise = built(kl()), torch.randn(2, 3, 16, 16), torch.randn(2, 4, 8, 8)
    return vae, lambda: vae.decode(vae.encode(x).sample(noise)).square().mean()


MAKERS = {"words": lambda: denoiser(WORDS), "classes": lambda: denoiser(CLASSES), "autoencoder": autoencoder}
both = pytest.mark.parametrize("kind", MAKERS)


def gradients(network: nn.Module, loss: Loss, precision: str) -> tuple[Tensor, list[Tensor], int]:
    """The loss, every gradient, and the bytes that were kept for the backward pass, weights apart."""
    kept: dict[int, int] = {}
    weights = {p.untyped_storage().data_ptr() for p in network.parameters()}

    def keep(x: Tensor) -> Tensor:
        storage = x.untyped_storage()
        if storage.data_ptr() not in weights:
            kept[storage.data_ptr()] = storage.nbytes()
        return x

    network.zero_grad()
    with torch.autograd.graph.saved_tensors_hooks(keep, lambda x: x), autocast(CPU, precision):
        value = loss()
    held = sum(kept.values())
    value.backward()
    return value.detach(), [gradient(p).clone() for p in network.parameters()], held


@both
@pytest.mark.parametrize("precision", ["fp32", "bf16"])
def test_gradients_are_the_same_to_the_bit(kind: str, precision: Any, randomise: Randomise) -> None:
    network, loss = MAKERS[kind]()
    randomise(network)
    expected, expected_gradients, before = gradients(network, loss, precision)
    checkpoint_activations(network, True)
    found, found_gradients, after = gradients(network, loss, precision)
    assert torch.equal(found, expected)
    assert all(torch.equal(x, y) for x, y in zip(found_gradients, expected_gradients, strict=True))
    assert after < 0.6 * before
    checkpoint_activations(network, False)
    assert gradients(network, loss, precision)[2] == before


@both
def test_blocks_are_computed_twice_in_training_only(kind: str) -> None:
    network, loss = MAKERS[kind]()
    checkpoint_activations(network, True)
    calls = []
    first = next(m for name, m in network.named_modules() if name.endswith("resnets.0"))
    first.register_forward_pre_hook(lambda *_: calls.append(1))  # it need not come to its end again
    loss().backward()
    assert len(calls) == 2
    for context in (torch.no_grad(), torch.enable_grad()):
        calls.clear()
        network.train(isinstance(context, torch.no_grad))
        with context:
            loss()
        assert len(calls) == 1


def test_no_state_of_a_random_generator_is_asked_for(monkeypatch: pytest.MonkeyPatch) -> None:
    """Asking waits for the device and cannot be captured in a CUDA graph."""
    network, loss = MAKERS["words"]()
    checkpoint_activations(network, True)
    monkeypatch.setattr(torch, "get_rng_state", lambda: pytest.fail("a generator's state was read"))
    loss().backward()


@pytest.mark.parametrize("maker", [lambda: denoiser(unet(words=10)), autoencoder], ids=["words", "autoencoder"])
def test_a_compiled_network_computes_again_too(maker: Maker, randomise: Randomise) -> None:
    network, loss = maker()
    randomise(network)
    checkpoint_activations(network, True)
    _, expected, _ = gradients(network, loss, "fp32")
    compiled = torch.compile(loss, backend="aot_eager", fullgraph=True)
    network.zero_grad()
    compiled().backward()
    for parameter, wanted in zip(network.parameters(), expected, strict=True):
        torch.testing.assert_close(parameter.grad, wanted, rtol=1e-4, atol=1e-6)
