"""train_vae: the autoencoder between pictures and latents. data/prepared -> artifacts/vae, reports/train_vae."""

import darkroom.runner.startup  # noqa: F401

# isort: split
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch

from darkroom.config.networks import AutoencoderSpec, IdentityConfig, PictureSizes
from darkroom.config.params import Params, TrainVAE
from darkroom.core.artifact import content_hash, provenance, write_json
from darkroom.core.device import channels_last, runtime
from darkroom.core.errors import DarkroomError
from darkroom.core.rng import seeded
from darkroom.core.tensors import save_png, to_pil
from darkroom.core.weights import DIFFUSERS_WEIGHTS, write_network
from darkroom.data.prepared import Prepared
from darkroom.interop.pretrained import read_pretrained_autoencoder
from darkroom.nn.autoencoder.discriminator import PatchDiscriminator
from darkroom.nn.autoencoder.identity import Autoencoder, IdentityAutoencoder
from darkroom.nn.autoencoder.perceptual import load_perceptual
from darkroom.nn.autoencoder.vae import AutoencoderKL
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
from darkroom.view.sheet import Plate, sheet

PREPARED, ARTIFACT, REPORT = Path("data/prepared"), Path("artifacts/vae"), Path("reports/train_vae")
N_SHOWN, COLUMNS = 16, 4  # held-out pictures shown, in a row
HEADING = "left: held-out picture · right: what the autoencoder makes of it"


def body(params: Params, work: Work) -> Mapping[str, float | str]:
    """Train, take over or do without an autoencoder, as `mode` says, and measure it on held-out pictures."""
    p, data, curves = params.train_vae, Prepared.open(PREPARED), Curves(params.train_vae.log_every, work.run.metrics)
    config: dict[str, Any] = {"kind": "identity" if p.mode == "identity" else "kl", "scaling_factor": None}
    vae: Autoencoder
    sources = [PREPARED]
    if p.identity_range is not None:
        vae = IdentityAutoencoder(IdentityConfig(range=p.identity_range))
    elif p.pretrained_path is not None:
        vae, config["scaling_factor"] = read_pretrained_autoencoder(Path(p.pretrained_path), work.device)
        sources.append(Path(p.pretrained_path))
        _check_fits(p, vae, data.info.channels)
    else:
        vae = _train(p, data, work, curves)
    if isinstance(vae, AutoencoderKL):
        config |= AutoencoderSpec(network=vae.config, sizes=vae.sizes).model_dump()
    else:
        config["network"] = vae.config.model_dump()
    held_out = data.split("validation")
    figures: dict[str, float | str] = dict(validate(vae, held_out.images, len(held_out), p.batch_size, work.device))
    if p.mode == "train":
        chance = mean_colour_psnr(held_out.images, len(held_out), p.batch_size)
        reached = Reached("held_out/psnr", float(figures["held_out/psnr"]), chance, "each picture's mean colour", True)
        figures |= against_chance("train_vae", p.on_worse_than_chance, [reached])
    if p.pretrained_path is not None:
        figures["pretrained"] = content_hash(p.pretrained_path)
    measured: dict[str, Any] = dict(figures)
    if isinstance(vae, AutoencoderKL):
        n = len(held_out)
        moments = encode(vae, held_out.images, n, p.batch_size, "fp32", work.device, "train_vae held-out latents")
        channels = Channels.of(moments)
        measured |= channels.as_json()
        figures |= channels.summary(pretrained=p.pretrained_path is not None)
        work.run.metrics(p.steps, channels.metrics())
    write_json(REPORT / "metrics.json", measured)
    curves.write(REPORT)
    pairs = [to_pil(x) for x in comparison(vae, held_out.images(range(min(len(held_out), N_SHOWN))), work.device)]
    plates = [Plate(pair, "") for pair in zip(pairs[::2], pairs[1::2], strict=True)]
    save_png(REPORT / "reconstructions.png", sheet(plates, COLUMNS, HEADING))
    write_network(ARTIFACT, DIFFUSERS_WEIGHTS, vae, config, provenance(*sources))
    return figures


def _check_fits(p: TrainVAE, vae: AutoencoderKL, channels: int) -> None:
    """Refuse a pretrained autoencoder that the parameters describe otherwise."""
    for key, value in p.autoencoder:
        if (found := getattr(vae.config, key)) != value:
            raise DarkroomError(f"train_vae.{key} = {value}, but {p.pretrained_path} has {found}; they must agree")
    if vae.sizes.in_channels != channels:
        raise DarkroomError(
            f"prepare_data.channels = {channels}, but {p.pretrained_path} takes {vae.sizes.in_channels}"
        )


def _train(p: TrainVAE, data: Prepared, work: Work, curves: Curves) -> AutoencoderKL:
    pictures, held_out, channels = data.split("train"), data.split("validation"), data.info.channels
    device = work.device
    with seeded(p.seed, "vae"):
        vae = channels_last(AutoencoderKL(p.autoencoder, PictureSizes(in_channels=channels)).to(device))
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


def _loss(p: TrainVAE, channels: int, device: torch.device) -> VAELoss:
    loss = VAELoss(p.reconstruction, p.kl_weight)
    if p.perceptual is not None:
        loss = replace(loss, perceptual=load_perceptual(p.perceptual.weights).to(device))
        loss = replace(loss, perceptual_weight=p.perceptual.weight)
    if p.adversarial is not None:
        loss = replace(loss, discriminator=PatchDiscriminator(p.adversarial.discriminator, channels).to(device))
        weight, start = p.adversarial.weight, p.adversarial.start_step
        loss = replace(loss, adversarial_weight=weight, adversarial_start=start)
    return loss


if __name__ == "__main__":
    run_stage("train_vae", body, trains=True)
