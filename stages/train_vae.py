"""train_vae: the autoencoder between pictures and latents. data/prepared -> artifacts/vae, reports/train_vae."""

import darkroom.runner.startup  # noqa: F401

# isort: split
from collections.abc import Mapping
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import torch

from darkroom.config.autoencoder import IdentityVAE, PretrainedVAE, TrainedVAE
from darkroom.config.params import Params
from darkroom.core.artifact import content_hash, provenance, write_json
from darkroom.core.device import channels_last, runtime
from darkroom.core.rng import seeded
from darkroom.core.tensors import save_png, to_pil
from darkroom.core.weights import DIFFUSERS_WEIGHTS, write_network
from darkroom.data.prepared import Prepared
from darkroom.nn.autoencoder.discriminator import DiscriminatorConfig, PatchDiscriminator
from darkroom.nn.autoencoder.identity import Autoencoder, IdentityAutoencoder
from darkroom.nn.autoencoder.perceptual import load_perceptual
from darkroom.nn.autoencoder.vae import AutoencoderKL, AutoencoderKLConfig
from darkroom.nn.layers.recompute import checkpoint_activations
from darkroom.runner.stage import Work, run_stage
from darkroom.training.autoencoder import VAELoss, VAETask, comparison, encode, mean_colour_psnr, validate
from darkroom.training.channels import Channels
from darkroom.training.engine.best import Best
from darkroom.training.engine.blank import reconstructed
from darkroom.training.engine.chance import Reached, against_chance
from darkroom.training.engine.context import TrainingContext
from darkroom.training.engine.curves import Curves
from darkroom.training.engine.ema import EMA
from darkroom.training.engine.loop import Phase, train
from darkroom.training.engine.throughput import TRAINING, Throughput, flops
from darkroom.training.trained import read_pretrained_autoencoder
from darkroom.view.sheet import Plate, sheet

PREPARED, ARTIFACT, REPORT = Path("data/prepared"), Path("artifacts/vae"), Path("reports/train_vae")
N_SHOWN, COLUMNS = 16, 4  # held-out pictures shown, in a row
HEADING = "left: held-out picture · right: what the autoencoder makes of it"


def body(params: Params, work: Work) -> Mapping[str, float | str]:
    """Train, take over or do without an autoencoder, and measure it on held-out pictures."""
    p, data = params.train_vae, Prepared.open(PREPARED)
    curves = Curves(p.log_every if isinstance(p, TrainedVAE) else 1, work.run.metrics)
    vae: Autoencoder
    sources, scaling_factor, pretrained = [PREPARED], None, dict[str, str]()
    if isinstance(p, IdentityVAE):
        vae = IdentityAutoencoder(*p.range)
    elif isinstance(p, PretrainedVAE):
        vae, scaling_factor = read_pretrained_autoencoder(Path(p.path), work.device)
        sources.append(Path(p.path))
        pretrained = {"pretrained": content_hash(p.path)}
    else:
        vae = _train(p, data, work, curves)
    held_out = data.split("validation")
    figures: dict[str, float | str] = dict(validate(vae, held_out.images, len(held_out), p.batch_size, work.device))
    if isinstance(p, TrainedVAE):
        chance = mean_colour_psnr(held_out.images, len(held_out), p.batch_size)
        reached = Reached("held_out/psnr", float(figures["held_out/psnr"]), chance, "each picture's mean colour", True)
        figures |= against_chance("train_vae", p.on_worse_than_chance, [reached])
    figures |= pretrained
    measured: dict[str, Any] = dict(figures)
    if isinstance(vae, AutoencoderKL):
        n = len(held_out)
        moments = encode(vae, held_out.images, n, p.batch_size, "fp32", work.device, "train_vae held-out latents")
        channels = Channels.of(moments)
        measured |= channels.as_json()
        figures |= channels.summary(pretrained=isinstance(p, PretrainedVAE))
        work.run.metrics(p.steps if isinstance(p, TrainedVAE) else 0, channels.metrics())
    write_json(REPORT / "metrics.json", measured)
    curves.write(REPORT)
    pairs = [to_pil(x) for x in comparison(vae, held_out.images(range(min(len(held_out), N_SHOWN))), work.device)]
    plates = [Plate(pair, "") for pair in zip(pairs[::2], pairs[1::2], strict=True)]
    save_png(REPORT / "reconstructions.png", sheet(plates, COLUMNS, HEADING))
    config: dict[str, Any] = {
        "kind": "kl" if isinstance(vae, AutoencoderKL) else "identity",
        "network": asdict(vae.config) if isinstance(vae, AutoencoderKL) else {},
        "identity_range": p.range if isinstance(p, IdentityVAE) else None,
        "scaling_factor": scaling_factor,
    }
    write_network(ARTIFACT, DIFFUSERS_WEIGHTS, vae, config, provenance(*sources))
    return figures


def _train(p: TrainedVAE, data: Prepared, work: Work, curves: Curves) -> AutoencoderKL:
    pictures, held_out, channels = data.split("train"), data.split("validation"), data.info.channels
    device = work.device
    shape = AutoencoderKLConfig(channels, channels, **p.autoencoder.model_dump())
    with seeded(p.seed, "vae"):
        vae = channels_last(AutoencoderKL(shape).to(device))
        vae.shift_logvar(p.initial_logvar)
        loss = _loss(p, channels, device)
    checkpoint_activations(vae, runtime().checkpoint_activations)
    task = VAETask(
        vae,
        loss,
        pictures.images,
        len(pictures),
        TrainingContext(p.batch_size, p.seed, p.precision, device, work.processes),
    )
    phases = [Phase("", vae, p, task.loss)]
    if p.adversarial is not None and loss.discriminator is not None:
        config, start = p.adversarial, p.adversarial.start_step
        phases.append(Phase("discriminator", loss.discriminator, config, task.discriminator_loss, start))
    ema, best = EMA(vae, p.ema_half_life), Best()
    ending = work.ending(p.steps, p.stop_at)

    def held_out_loss(step: int, values: Mapping[str, float]) -> None:
        if step % p.validate_every == 0 or step == ending.step:
            measured = validate(ema.network, held_out.images, len(held_out), p.batch_size, device)
            curves.record(step, measured)
            if p.adversarial is None:  # a GAN trades the held-out loss for likeness: there the last weights count
                best.consider(step, measured["held_out/l1"], ema.network)

    speed = Throughput(_cost(vae, loss, data), curves.every, task.setting, work.run.metrics)
    train(
        phases,
        ema,
        steps=p.steps,
        batch_size=p.batch_size,
        accumulation=1,
        hooks=speed.around([curves, held_out_loss]),
        description="train_vae",
        read_every=(curves.every, p.validate_every),
        checkpoints=work.checkpoints,
        remembered={"curves": curves, "best": best},
        processes=work.processes,
        ending=ending,
    )
    best.restore(ema.network)
    return ema.network


def _cost(vae: AutoencoderKL, loss: VAELoss, data: Prepared) -> float:
    """Floating-point operations of a step for each picture, once all terms of the loss count."""
    size = (data.info.channels, data.info.image_size, data.info.image_size)
    forward = flops(vae, lambda: reconstructed(vae, 1, size))
    total, x = float(TRAINING * forward), next(vae.parameters()).new_zeros(1, *size)
    if (perceptual := loss.perceptual) is not None:  # of two pictures, and back to one of them
        total += 1.5 * flops(perceptual, lambda: perceptual(x, x))
    if (critic := loss.discriminator) is not None:  # of one in the autoencoder's turn, then of it and a real one
        total += forward + 3 * TRAINING * flops(critic, lambda: critic(x))
    return total


def _loss(p: TrainedVAE, channels: int, device: torch.device) -> VAELoss:
    loss = VAELoss(p.reconstruction, p.kl_weight)
    if p.perceptual is not None:
        loss = replace(loss, perceptual=load_perceptual(p.perceptual.weights).to(device))
        loss = replace(loss, perceptual_weight=p.perceptual.weight)
    if p.adversarial is not None:
        shape = DiscriminatorConfig(channels, p.adversarial.channels, p.adversarial.n_layers)
        loss = replace(loss, discriminator=PatchDiscriminator(shape).to(device))
        weight, start = p.adversarial.weight, p.adversarial.start_step
        loss = replace(loss, adversarial_weight=weight, adversarial_start=start)
    return loss


if __name__ == "__main__":
    run_stage("train_vae", body, trains=True)
