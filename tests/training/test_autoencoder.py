"""Training the autoencoder: its terms, its critic, and what is measured of it."""

from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from darkroom.config.networks import IdentityConfig
from darkroom.config.training import Optimization
from darkroom.core.rng import generator, seeded
from darkroom.core.tensors import to_float
from darkroom.nn.autoencoder.identity import IdentityAutoencoder
from darkroom.nn.autoencoder.vae import AutoencoderKL, Moments
from darkroom.training.autoencoder import VAELoss, VAELosses, comparison, encode, kl_divergence, validate
from darkroom.training.engine.context import TrainingContext
from darkroom.training.engine.ema import EMA
from darkroom.training.engine.loop import Loop, Phase
from tests.support.networks import built, discriminator, identity, kl

N, ALL, CPU = 12, slice(0, 8), torch.device("cpu")
IMAGES = torch.randint(0, 256, (N, 3, 16, 16), dtype=torch.uint8, generator=generator(0, "images"))
Make = Callable[..., Optimization]


def images(rows: Any) -> Tensor:
    return IMAGES[rows]


def make_vae() -> AutoencoderKL:
    with seeded(0, "vae"):
        network: AutoencoderKL = built(kl((16, 16), groups=1))
    return network


def make_task(context: TrainingContext, loss: VAELoss | None = None) -> VAELosses:
    return VAELosses(make_vae(), loss or VAELoss("l1", 0.1), images, N, context)


def with_critic(start: int, weight: float = 0.5) -> VAELoss:
    with seeded(0, "critic"):
        critic = discriminator(layers=2)
    return VAELoss("l1", 0.1, discriminator=critic, adversarial_weight=weight, adversarial_start=start)


def test_kl_is_the_textbooks() -> None:
    draw = generator(0, "moments")
    mean, logvar = torch.randn(3, 4, 2, 2, generator=draw), torch.randn(3, 4, 2, 2, generator=draw)
    q = torch.distributions.Normal(mean, (0.5 * logvar).exp())
    expected = torch.distributions.kl_divergence(q, torch.distributions.Normal(0.0, 1.0)).mean(dim=(1, 2, 3))
    torch.testing.assert_close(kl_divergence(Moments(mean, logvar)), expected)
    assert kl_divergence(Moments(torch.zeros(1, 4, 2, 2), torch.zeros(1, 4, 2, 2))).tolist() == [0.0]


@pytest.mark.parametrize("reconstruction", ["l1", "l2"])
def test_the_loss_is_the_sum_of_its_terms(reconstruction: Any, context: TrainingContext) -> None:
    class Distance(nn.Module):
        def forward(self, y: Tensor, x: Tensor) -> Tensor:
            return torch.full((len(x),), 3.0)

    terms = make_task(context, VAELoss(reconstruction, 0.25, Distance(), 0.5)).loss(0, ALL)
    assert set(terms) == {"loss", "reconstruction", "kl", "perceptual"}
    expected = terms["reconstruction"] + 0.5 * 3.0 + 0.25 * terms["kl"]
    torch.testing.assert_close(terms["loss"], expected)


def test_l1_and_l2_are_what_they_say(context: TrainingContext) -> None:
    l1, l2 = (make_task(context, VAELoss(kind, 0.0)) for kind in ("l1", "l2"))
    x, y, _ = l1._reconstruct(l1._inputs(0, ALL))
    torch.testing.assert_close(l1.loss(0, ALL)["reconstruction"], (x - y).abs().mean())
    torch.testing.assert_close(l2.loss(0, ALL)["reconstruction"], (x - y).square().mean())


def test_a_loss_is_a_function_of_its_step_and_rows(context: TrainingContext) -> None:
    task = make_task(context)
    whole = [float(task.loss(step, ALL)["loss"].detach()) for step in (0, 1)]
    assert whole[0] != whole[1]
    parts = [float(task.loss(0, rows)["loss"].detach()) for rows in (slice(0, 2), slice(2, 8))]
    assert 0.25 * parts[0] + 0.75 * parts[1] == pytest.approx(whole[0], rel=1e-5)


def test_the_critics_weight_balances_the_gradients_at_the_last_layer(context: TrainingContext) -> None:
    """Esser et al. 2021, eq. 7."""
    task = make_task(context, with_critic(start=0, weight=0.5))
    terms = task.loss(0, ALL)
    last = task.vae.last_layer
    likeness, adversarial = (
        torch.autograd.grad(terms[name], last, retain_graph=True)[0].norm()
        for name in ("reconstruction", "adversarial")
    )
    torch.testing.assert_close(terms["adversarial_weight"], 0.5 * likeness / adversarial, rtol=1e-3, atol=0)
    expected = terms["reconstruction"] + 0.1 * terms["kl"] + terms["adversarial_weight"] * terms["adversarial"]
    torch.testing.assert_close(terms["loss"], expected)


def test_the_critic_learns_from_pictures_it_does_not_change(context: TrainingContext) -> None:
    task = make_task(context, with_critic(start=0))
    loss = task.discriminator_loss(0, ALL)["loss"]
    loss.backward()
    assert all(p.grad is None for p in task.vae.parameters())
    critic = task.terms.discriminator
    assert critic is not None
    assert all(p.grad is not None for p in critic.parameters())
    x, y, _ = task._reconstruct(task._inputs(0, ALL))
    expected = 0.5 * ((1 - critic(x)).clamp(min=0).mean() + (1 + critic(y)).clamp(min=0).mean())
    torch.testing.assert_close(loss, expected)


@pytest.mark.parametrize("precision", ["fp32", "bf16"])
def test_the_critic_begins_at_its_step(
    precision: Any, context: TrainingContext, optimizer: Make, flat: Callable[[nn.Module], Tensor]
) -> None:
    task = make_task(replace(context, precision=precision), with_critic(start=2))
    critic = task.terms.discriminator
    assert critic is not None
    opinions, seen = [flat(critic)], []

    def watch(step: int, values: Mapping[str, float]) -> None:
        opinions.append(flat(critic))
        seen.append(set(values))

    phases = [
        Phase("", task.vae, optimizer(), task.loss),
        Phase("discriminator", critic, optimizer(), task.discriminator_loss, start=2),
    ]
    Loop(phases, EMA(task.vae, 50), steps=4, batch_size=8, accumulation=1, hooks=[watch], description="vae").run()
    assert torch.equal(opinions[0], opinions[2])
    assert not torch.equal(opinions[2], opinions[3])
    new = {"adversarial", "adversarial_weight", "discriminator_loss"}
    assert not new & seen[1]
    assert new <= seen[2]


def test_trained_twice_the_weights_are_the_same(
    context: TrainingContext, optimizer: Make, flat: Callable[[nn.Module], Tensor]
) -> None:
    def trained() -> Tensor:
        task = make_task(replace(context, precision="bf16"))
        phase = Phase("", task.vae, optimizer(), task.loss)
        Loop([phase], EMA(task.vae, 50), steps=3, batch_size=8, accumulation=1, hooks=[], description="vae").run()
        return flat(task.vae)

    first = trained()
    assert torch.equal(first, trained())
    assert not torch.equal(first, flat(make_vae()))


def test_training_makes_pictures_liker(context: TrainingContext, optimizer: Make) -> None:
    colours = torch.tensor([[255, 0, 0], [0, 0, 255], [250, 250, 250]], dtype=torch.uint8)
    plain = colours[:, :, None, None].expand(3, 3, 16, 16)
    task = VAELosses(make_vae(), VAELoss("l1", 1e-4), lambda rows: plain[rows], 3, context)
    before = validate(task.vae, task.images, 3, 2, CPU)
    phase = Phase("", task.vae, optimizer(), task.loss)
    Loop([phase], EMA(task.vae, 50), steps=30, batch_size=8, accumulation=1, hooks=[], description="vae").run()
    after = validate(task.vae, task.images, 3, 2, CPU)
    assert after["held_out/l1"] < 0.7 * before["held_out/l1"]
    assert after["held_out/psnr"] > before["held_out/psnr"]


def test_likeness_is_measured_over_all_pictures_in_any_batches() -> None:
    class Greyer(IdentityAutoencoder):
        def decode(self, z: Tensor) -> Tensor:
            return 0.9 * z

    x = to_float(IMAGES)
    expected = {
        "held_out/l1": float((0.1 * x).abs().mean()),
        "held_out/psnr": float(10 * (4 / (0.1 * x).square().mean()).log10()),
    }
    for batch_size in (1, 5, 12):
        assert validate(Greyer(IdentityConfig(range=[-1, 1])), images, N, batch_size, CPU) == pytest.approx(
            expected, rel=1e-4
        )
    assert validate(identity(-1, 1), images, N, 5, CPU) == {
        "held_out/l1": 0.0,
        "held_out/psnr": pytest.approx(126, abs=0.1),
    }


def test_comparisons_show_each_picture_beside_its_reconstruction() -> None:
    pairs = comparison(identity(-1, 1), IMAGES[:3], CPU)
    assert torch.equal(pairs, IMAGES[:3].repeat_interleave(2, dim=0))


def test_encoded_moments_are_in_order_and_half_precision() -> None:
    vae = make_vae()
    found = encode(vae, images, N, 5, "fp32", CPU, "encode")
    with torch.no_grad():
        expected = vae.encode(to_float(IMAGES))
    for half, full in zip(found, expected, strict=True):
        assert half.dtype == torch.float16
        torch.testing.assert_close(half, full.half(), rtol=1e-3, atol=1e-3)
