"""train_unet: the denoiser, from cached latents and conditions. data/latents, data/conditioning -> artifacts/unet.

artifacts/vae decodes what is shown; nothing is learned from it.
"""

import darkroom.runner.startup  # noqa: F401

# isort: split
from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path

import torch
from PIL import Image

from darkroom.config.denoisers import DenoiserSizes, DenoiserSpec, UNet2DConditionConfig
from darkroom.config.params import Params
from darkroom.core.artifact import content_hash, provenance, write_json
from darkroom.core.device import runtime
from darkroom.core.rng import seeded
from darkroom.core.tensors import save_png
from darkroom.core.weights import DIFFUSERS_WEIGHTS, write_network
from darkroom.data.conditioning import Conditioning, read_asked
from darkroom.data.latents import Latents, read_info
from darkroom.diffusion.generate import Sampling
from darkroom.diffusion.objective import Objective
from darkroom.diffusion.process import process_of
from darkroom.interop.pretrained import read_pretrained_unet
from darkroom.nn.denoiser.base import DenoisingNetwork, build
from darkroom.nn.layers.recompute import checkpoint_activations
from darkroom.runner.stage import Work, run_stage
from darkroom.training.decoder import LatentDecoder
from darkroom.training.engine.best import Best
from darkroom.training.engine.blank import denoised
from darkroom.training.engine.chance import Reached, against_chance
from darkroom.training.engine.context import TrainingContext
from darkroom.training.engine.curves import Curves
from darkroom.training.engine.ema import EMA
from darkroom.training.engine.loop import Phase, train
from darkroom.training.engine.throughput import TRAINING, Throughput, flops
from darkroom.training.previews import Shown, preview
from darkroom.training.unet import UNetTask
from darkroom.view.forward import ROWS, forward

LATENTS, CONDITIONING, VAE = Path("data/latents"), Path("data/conditioning"), Path("artifacts/vae")
ARTIFACT, REPORT = Path("artifacts/unet"), Path("reports/train_unet")


def body(params: Params, work: Work) -> Mapping[str, float | str]:
    """Train with condition dropout; hand on the averaged weights of the best held-out loss."""
    p, device = params.train_unet, work.device
    conditioning, latents = Conditioning.read(CONDITIONING), Latents.read(LATENTS, "train")
    told = conditioning.info
    sizes = DenoiserSizes(
        in_channels=latents.shape[0],
        sample_size=latents.shape[-1],
        cross_attention_dim=told.dim if told.kind == "text" else None,
        num_classes=len(told.classes) or None,
    )
    unet: DenoisingNetwork
    if p.init_from is not None and isinstance(p.unet, UNet2DConditionConfig):
        trained_for = (p.process.model_dump(), p.prediction_type)
        unet = read_pretrained_unet(Path(p.init_from), p.unet, sizes, device, *trained_for).stored()
    else:
        with seeded(p.seed, "unet"):
            unet = build(p.unet, sizes).to(device).stored()
    checkpoint_activations(unet, runtime().checkpoint_activations)
    task = UNetTask(
        unet,
        Objective(process_of(p.process.model_dump()), p.prediction_type, p.weighting, p.loss, p.reduction),
        latents,
        Latents.read(LATENTS, "validation"),
        conditioning,
        condition_dropout=p.condition_dropout,
        horizontal_flip=p.horizontal_flip,
        max_held_out=p.held_out,
        setting=TrainingContext(p.batch_size, p.seed, p.precision, device, work.processes),
    )
    ema, best, curves = EMA(unet, p.ema_half_life), Best(), Curves(p.log_every, work.run.metrics)
    ending = work.ending(p.steps, p.stop_at)
    sampling, decoder = Sampling(**p.sampling.model_dump()), LatentDecoder(VAE, LATENTS, latents.scaling_factor, device)
    shown = Shown(decoder, decoder.centre, read_asked(CONDITIONING, "validation", max(p.samples, ROWS)))

    def held_out(step: int, values: Mapping[str, float]) -> None:
        if step % p.validate_every == 0 or step == ending.step:
            measured = task.validate(ema.network)
            curves.record(step, measured)
            best.consider(step, measured["held_out/loss"], ema.network)

    def show(step: int) -> None:
        grid, strip = preview(ema.network, task, shown, sampling, p.samples, step)
        for name, picture in (("samples", grid), ("denoising", strip)):
            work.run.picture(picture, name, step)
            save_png(REPORT / f"{name}.png", picture)

    def samples(step: int, values: Mapping[str, float]) -> None:
        if step % p.sample_every == 0 and step < ending.step:
            show(step)

    if work.processes.leads:
        noisy = _forward(task, shown)
        work.run.picture(noisy, "forward")
        save_png(REPORT / "forward.png", noisy)
        show(0)
    words = None if conditioning.null is None else tuple(conditioning.null.shape)
    cost = TRAINING * flops(unet, lambda: denoised(unet, 1, latents.shape, words))
    speed = Throughput(cost, curves.every, task.setting, work.run.metrics)
    phase = Phase("", unet, p, task.loss)
    train(
        [phase],
        ema,
        steps=p.steps,
        batch_size=p.batch_size,
        accumulation=p.accumulation,
        hooks=speed.around([curves, held_out, samples]),
        description="train_unet",
        read_every=(curves.every, p.validate_every, p.sample_every),
        checkpoints=work.checkpoints,
        remembered={"curves": curves, "best": best},
        processes=work.processes,
        ending=ending,
    )
    show(ending.step)  # not in the last step, to which a training that is gone on with may have come before
    best.restore(ema.network)
    curves.write(REPORT)
    reached = Reached("held_out_loss", best.value, task.by_chance(), "the best prediction that looks at nothing")
    figures: dict[str, float | str] = {
        "held_out_loss": best.value,
        **against_chance("train_unet", p.on_worse_than_chance, [reached]),
        "held_out_pictures": min(len(task.held_out), p.held_out),
        "best_step": best.step,
    }
    sources = [LATENTS, CONDITIONING]
    if p.init_from is not None:
        sources.append(Path(p.init_from))
        figures["init_from"] = content_hash(p.init_from)
    write_json(REPORT / "metrics.json", figures)
    config = {
        **DenoiserSpec(network=p.unet, sizes=sizes).model_dump(),
        "process": p.process.model_dump(),
        "prediction_type": p.prediction_type,
        "condition": asdict(conditioning.info),
        "latents": asdict(read_info(LATENTS)),
    }
    write_network(ARTIFACT, DIFFUSERS_WEIGHTS, ema.network, config, provenance(*sources))
    return figures


def _forward(task: UNetTask, shown: Shown) -> Image.Image:
    first = torch.arange(min(ROWS, len(task.held_out)))
    means = task.held_out.sample(first, torch.zeros(len(first), *task.held_out.shape))
    words = [asked or f"held-out picture {i + 1}" for i, asked in zip(first, shown.asked, strict=False)]
    return forward(means, words, task.objective.schedule, shown.decode, shown.centre)


if __name__ == "__main__":
    run_stage("train_unet", body, trains=True)
