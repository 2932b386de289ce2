"""Rows of gpu.py that train: U-Nets on latents and Stable Diffusion's autoencoder, ours and diffusers'.

Ours runs in the project's own training loop. The other is the loop of diffusers' training scripts: its modules under
autocast, AdamW (fused), clip_grad_norm_, EMAModel (foreach), and the loss read at every step for the log. Its data lie
on the device already, which costs it nothing.
"""

from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass, replace
from itertools import count
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from darkroom.config.denoisers import UNet2DConditionConfig, UNetSpec
from darkroom.config.networks import AutoencoderSpec
from darkroom.config.params import load
from darkroom.config.sections import TrainUNet
from darkroom.config.training import AdamW, Constant
from darkroom.core.device import autocast, channels_last
from darkroom.core.rng import generator
from darkroom.core.tensors import to_float
from darkroom.data.conditioning import ConditioningInfo
from darkroom.data.sources.torchvision_import import torchvision
from darkroom.diffusion.objective import Objective
from darkroom.diffusion.process import process_of
from darkroom.interop.configs import unet_config, vae_config, vae_spec
from darkroom.nn.autoencoder.vae import AutoencoderKL, Moments
from darkroom.nn.denoiser.base import build
from darkroom.training.autoencoder import VAELoss, VAELosses, kl_divergence
from darkroom.training.engine.context import TrainingContext
from darkroom.training.engine.ema import EMA
from darkroom.training.engine.loop import Loop, Loss, Phase
from darkroom.training.latent_batches import LatentBatches
from darkroom.training.unet import UNetTask, spec_of
from gpu_measure import FLOP_A_MAC, Clock, Emit, EnoughError, Laps, forward_macs
from synthetic import HELD_OUT, PROJECT, condition_of, conditioning, latent_of, latents

RECIPES = PROJECT / "recipes"
LONG = 75_000  # steps of a training that no recipe gives a number of: as many as one of this size has
PUBLISHED_GMAC = {"unet-32": 90.1, "unet-64": 401.6}  # of SD 1.x's U-Net, forward, one picture
SD = {"unet-32": (32, 64), "unet-64": (64, 24)}  # row: side of the latents, batch
WORDS = (77, 768)  # of Stable Diffusion's text states
SD_VAE = vae_spec({}, Path("Stable Diffusion 1.x"))
TINY_VAE = vae_spec({"block_out_channels": [16, 32], "layers_per_block": 1, "norm_num_groups": 8}, Path("tiny"))
ADAMW = AdamW(kind="adamw", learning_rate=1e-4, betas=[0.9, 0.999], weight_decay=0.01, clip_norm=1.0)
LIKE_SD = {"precision": "bf16", "optimizer": ADAMW, "lr_schedule": Constant(kind="constant", warmup_steps=0)}
BETAS = {"cosine": "squaredcos_cap_v2"}  # our names of schedules in diffusers, where they differ
KL_WEIGHT = 1e-6
Step = Callable[[], Tensor]  # the loss of the next batch


@dataclass(frozen=True)
class UNetCase:
    """A U-Net in training.

    latent: (c, h, w). words: told to it. samples, captions: of the synthetic data. gmac: forward, of one picture, where
    it is known; else it is counted.
    """

    p: TrainUNet
    latent: tuple[int, ...]
    words: ConditioningInfo
    samples: int
    captions: int
    warm_up: int
    gmac: float | None = None

    @property
    def spec(self) -> UNetSpec:
        """The network, as its stage would build it."""
        spec = spec_of(self.p, self.latent, self.words)
        assert isinstance(spec.network, UNet2DConditionConfig)
        return UNetSpec(network=spec.network, sizes=spec.sizes)


def unet_case(row: str, tiny: bool) -> UNetCase:
    """The default recipe's U-Net, or one of Stable Diffusion 1.x's size."""
    if row not in SD:
        params = load(RECIPES / "scenes.yaml")
        case = UNetCase(params.train_unet, latent_of(params), condition_of(params), 20_000, 5_000, 60)
    else:
        side, batch = SD[row]
        changed = {**LIKE_SD, "init_from": None, "condition_dropout": 0.0, "batch_size": batch, "accumulation": 1}
        p = load(RECIPES / "sd15-finetune.yaml").train_unet.model_copy(update=changed)
        words = ConditioningInfo("text", None, *WORDS, [])
        case = UNetCase(p, (4, side, side), words, 4096, 1024, 20, PUBLISHED_GMAC[row])
    if tiny:
        widths = [16 * (i // 2 + 1) for i in range(len(case.p.unet.block_out_channels))]
        small: dict[str, Any] = {
            "block_out_channels": widths,
            "layers_per_block": 1,
            "num_attention_heads": [2] * len(widths),
            "norm_num_groups": 4,
        }
        p = case.p.model_copy(update={"batch_size": 2, "unet": case.p.unet.model_copy(update=small)})
        words = replace(case.words, max_length=5, dim=8)
        case = replace(case, p=p, latent=(4, 8, 8), words=words, samples=8, captions=4, gmac=None)
    return case


def unet(row: str, contestant: str, clock: Clock, emit: Emit, scratch: Path) -> None:
    """Training steps of a U-Net a second."""
    case, ours = unet_case(row, clock.tiny), contestant.startswith("ours")
    if row == "unet-adamw":
        how = {**LIKE_SD, "precision": contestant.rpartition("-")[2]}
        case = replace(case, p=case.p.model_copy(update=how))
    network = our_unet(case, clock.device) if ours else their_unet(case, clock.device)
    macs = case.gmac * 1e9 if case.gmac is not None else _unet_macs(network, case, clock.device)
    about = {
        "latent": list(case.latent),
        "weights": _weights(network),
        "precision": case.p.precision,
        "optimizer": case.p.optimizer.kind if ours else "adamw",
    }
    laps = Laps(
        clock,
        emit,
        warm_up=case.warm_up,
        steps=case.p.steps,
        batch=case.p.batch_size,
        flop_an_image=FLOP_A_MAC * macs,
        about={**about, "forward_gmac": round(macs / 1e9, 3), "compile": "" if ours else compiler(contestant, clock)},
        profiled=True,
    )
    with suppress(EnoughError):
        if ours:
            train_our_unet(network, case, clock.device, laps)
        else:
            standard_loop(
                network, case.p, contestant, clock, laps, lambda called: noise_loss(called, case, clock.device)
            )


def our_unet(case: UNetCase, device: torch.device) -> Any:
    """As stages/train_unet.py makes it, but at once on the device, where random numbers are quick."""
    with torch.device(device):
        return build(case.spec.network, case.spec.sizes).to(device).stored()


def train_our_unet(network: Any, case: UNetCase, device: torch.device, laps: Laps) -> None:
    """As stages/train_unet.py trains it, without what is done between steps."""
    p = case.p
    data = LatentBatches(
        latents(case.samples, case.latent),
        latents(HELD_OUT, case.latent),
        conditioning(case.words, case.samples, case.captions),
        TrainingContext(p.batch_size, p.seed, p.precision, device),
        p.condition_dropout,
        p.horizontal_flip,
        p.held_out,
    )
    task = UNetTask(network, Objective(process_of(p.process), p.objective), data)
    _train(network, p, task.loss, laps)


def _train(network: Any, p: Any, loss: Loss, laps: Laps) -> None:
    """Until the hook has seen enough; `p.steps` is what the training is told that it has."""
    Loop(
        [Phase("", network, p, loss)],
        EMA(network, p.ema_half_life),
        steps=p.steps,
        batch_size=p.batch_size,
        hooks=[laps],
        read_every=(p.log_every,),
        description="benchmark",
    ).run()


def diffusers() -> Any:
    """The package."""
    torchvision("datasets")  # before diffusers imports it: beside a CPU build of PyTorch it needs the help
    import diffusers as package

    return package


def their_unet(case: UNetCase, device: torch.device) -> Any:
    """diffusers' network of the same shape."""
    package = diffusers()
    with torch.device(device):
        return package.UNet2DConditionModel(**unet_config(case.spec)).train()


def noise_loss(network: Any, case: UNetCase, device: torch.device) -> Step:
    """The loss of diffusers' scripts on the case's synthetic data."""
    p = case.p
    assert p.process.kind == "vp"
    kind = {"epsilon": "epsilon", "v_prediction": "v_prediction"}[p.objective.prediction_type]
    named = p.process.schedule.kind
    schedule = {} if named == "cosine" else p.process.schedule.model_dump(include={"beta_start", "beta_end"})
    scheduler = diffusers().DDPMScheduler(beta_schedule=BETAS.get(named, named), prediction_type=kind, **schedule)
    data, told = latents(case.samples, case.latent), conditioning(case.words, case.samples, case.captions)
    assert data.std is not None
    assert told.table is not None
    mean, std, states = (rows.in_memory().to(device) for rows in (data.mean, data.std, told.table))
    index = told.index["train"].to(device)

    def loss() -> Tensor:
        rows = torch.randint(case.samples, (p.batch_size,), device=device)
        x0 = mean[rows].float()
        x0 = x0 + std[rows].float() * torch.randn_like(x0)
        noise = torch.randn_like(x0)
        t = torch.randint(scheduler.config.num_train_timesteps, (p.batch_size,), device=device)
        noisy = scheduler.add_noise(x0, noise, t)
        wanted = noise if kind == "epsilon" else scheduler.get_velocity(x0, noise, t)
        with autocast(device, p.precision):
            predicted = network(noisy, t, encoder_hidden_states=states[index[rows]].float(), return_dict=False)[0]
        return F.mse_loss(predicted.float(), wanted)

    return loss


def standard_loop(
    network: Any, p: Any, contestant: str, clock: Clock, laps: Laps, loss_of: Callable[[Any], Step]
) -> None:
    """diffusers' loop, until the hook has seen enough. loss_of: of the network as it is called, compiled or not."""
    from diffusers.training_utils import EMAModel

    optimizer = torch.optim.AdamW(
        network.parameters(), lr=1e-4, betas=tuple(p.optimizer.betas), weight_decay=p.optimizer.weight_decay, fused=True
    )
    rate = torch.optim.lr_scheduler.LambdaLR(optimizer, lambda step: 1.0)
    ema = EMAModel(network.parameters(), foreach=True)
    backend = compiler(contestant, clock)
    loss = loss_of(torch.compile(network, backend=backend) if backend else network)
    for step in count(1):
        value = loss()
        value.backward()
        torch.nn.utils.clip_grad_norm_(network.parameters(), 1.0)
        optimizer.step()
        rate.step()
        optimizer.zero_grad()
        ema.step(network.parameters())
        laps(step, {"loss": value.item()})


def compiler(contestant: str, clock: Clock) -> str:
    """torch.compile's backend for a contestant of theirs; empty for one that is not compiled."""
    if not contestant.endswith("compiled"):
        return ""
    return "inductor" if clock.device.type == "cuda" else "eager"  # a CPU tests the way there, not the compiler


def vae(row: str, contestant: str, clock: Clock, emit: Emit, scratch: Path) -> None:
    """Training steps of Stable Diffusion's autoencoder on pictures of 256 x 256, L1 and KL, a second."""
    spec, device, ours = TINY_VAE if clock.tiny else SD_VAE, clock.device, contestant == "ours"
    batch, side = (2, 16) if clock.tiny else (8, 256)
    changed = {**LIKE_SD, "batch_size": batch, "steps": LONG}
    p = load(RECIPES / "scenes.yaml").train_vae.model_copy(update=changed)
    pictures = random_pictures(4 * batch if clock.tiny else 256, side)
    network = channels_last(our_vae(spec, device)) if ours else their_vae(spec, device)
    example = torch.zeros(1, 3, side, side, device=device)
    macs = forward_macs(lambda: _through(network, example, ours))
    laps = Laps(
        clock,
        emit,
        warm_up=12,
        steps=p.steps,
        batch=batch,
        flop_an_image=FLOP_A_MAC * macs,
        about={
            "side": side,
            "weights": _weights(network),
            "forward_gmac": round(macs / 1e9, 3),
            "compile": "" if ours else compiler(contestant, clock),
        },
    )
    with suppress(EnoughError):
        if ours:
            context = TrainingContext(batch, p.seed, p.precision, device)
            losses = VAELosses(network, VAELoss("l1", KL_WEIGHT), pictures.__getitem__, len(pictures), context)
            _train(network, p, losses.loss, laps)
        else:
            there = pictures.to(device)
            standard_loop(network, p, contestant, clock, laps, lambda called: _picture_loss(called, there, batch))


def our_vae(spec: AutoencoderSpec, device: torch.device) -> AutoencoderKL:
    """Random weights."""
    with torch.device(device):
        return AutoencoderKL(spec.network, spec.sizes).to(device)


class TheirAutoencoder(nn.Module):
    """diffusers' network, as a training calls it."""

    def __init__(self, spec: AutoencoderSpec) -> None:
        super().__init__()
        self.vae: Any = diffusers().AutoencoderKL(**vae_config(spec, 256, 1.0))

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Pictures (N, 3, H, W) -> the same again from samples of their posteriors, whose moments come with it."""
        posterior = self.vae.encode(x).latent_dist
        return self.vae.decode(posterior.sample()).sample, posterior.mean, posterior.logvar


def their_vae(spec: AutoencoderSpec, device: torch.device) -> TheirAutoencoder:
    """Random weights."""
    with torch.device(device):
        return TheirAutoencoder(spec)


def random_pictures(n: int, side: int) -> Tensor:
    """uint8 (n, 3, side, side)."""
    return torch.randint(256, (n, 3, side, side), dtype=torch.uint8, generator=generator(0, "synthetic pictures"))


def _picture_loss(network: Any, pictures: Tensor, batch: int) -> Step:
    def loss() -> Tensor:
        x = to_float(pictures[torch.randint(len(pictures), (batch,), device=pictures.device)])
        with autocast(x.device, "bf16"):
            y, mean, logvar = (part.float() for part in network(x))
        return F.l1_loss(y, x) + KL_WEIGHT * kl_divergence(Moments(mean, logvar)).mean()

    return loss


def _through(network: Any, x: Tensor, ours: bool) -> object:
    return network.decode(network.encode(x).mean) if ours else network(x)


def _unet_macs(network: Any, case: UNetCase, device: torch.device) -> float:
    x = torch.zeros(1, *case.latent, device=device)
    t, words = torch.zeros(1, device=device), torch.zeros(1, case.words.max_length, case.words.dim, device=device)
    if hasattr(network, "prepare_context"):
        return forward_macs(lambda: network(x, t, network.prepare_context(words)))
    return forward_macs(lambda: network(x, t, words))


def _weights(network: nn.Module) -> int:
    return sum(weight.numel() for weight in network.parameters())
