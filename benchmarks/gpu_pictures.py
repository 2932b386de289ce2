"""Rows of gpu.py that train nothing: encoding pictures to latents, and drawing from text, ours and diffusers'."""

import statistics
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from darkroom import Pipeline
from darkroom.config.networks import AutoencoderSpec
from darkroom.core.weights import DIFFUSERS_WEIGHTS, write_network
from darkroom.nn.autoencoder.vae import AutoencoderKL
from darkroom.training.autoencoder import encode
from darkroom.training.trained import read_autoencoder
from gpu_measure import Clock, Emit, compiled_graphs, forward_macs
from gpu_training import SD_VAE, TINY_VAE, compiler, diffusers, our_vae, random_pictures, their_vae
from inference import PROMPT, random_sd

FLOP_A_MAC = 2  # of a network that is not trained
ROUNDS = {1: 4, 8: 2}  # batch -> how often it is drawn
GUIDANCE = 7.5


def encoding(row: str, contestant: str, clock: Clock, emit: Emit, scratch: Path) -> None:
    """Pictures of 256 x 256 a second whose moments are brought to the CPU, as fp16, with SD's autoencoder in bf16."""
    spec, ours = TINY_VAE if clock.tiny else SD_VAE, contestant == "ours"
    batch, side, n = (2, 16, 4) if clock.tiny else (32, 256, 1024)
    pictures = random_pictures(n, side)
    vae = _read(spec, clock, scratch) if ours else _theirs(spec, contestant, clock)
    example = torch.zeros(1, 3, side, side, device=clock.device, dtype=next(vae.parameters()).dtype)
    macs = forward_macs(lambda: vae.encode(example))

    def work(of: Tensor) -> object:
        if ours:
            return encode(vae, of.__getitem__, len(of), batch, "bf16", clock.device, "benchmark")
        return _encode(vae, of, batch, clock.device)

    clock.restart()
    warm = clock.around(lambda: [work(pictures[: 2 * batch]) for _ in range(2)])
    taken = [clock.around(lambda: work(pictures)) for _ in range(3)]
    images = n / statistics.median(taken)
    emit(
        {
            "batch": batch,
            "side": side,
            "images_per_second": round(images, 3),
            "spread": round((max(taken) - min(taken)) / statistics.median(taken), 4),
            "forward_gmac": round(macs / 1e9, 3),
            **clock.arithmetic(images, FLOP_A_MAC * macs),
            **clock.memory(),
            "warm_up_seconds": round(warm, 2),
            "compile": "" if ours else compiler(contestant, clock),
            **compiled_graphs(),
        }
    )


def _read(spec: AutoencoderSpec, clock: Clock, scratch: Path) -> AutoencoderKL:
    """Through its artifact, as stages/cache_latents.py has it."""
    folder = scratch / "vae"
    if not folder.exists():
        about = {"kind": "kl", **spec.model_dump(), "scaling_factor": None}
        write_network(folder, DIFFUSERS_WEIGHTS, our_vae(spec, clock.device), about, {"inputs": {}})
    vae = read_autoencoder(folder, clock.device)
    assert isinstance(vae, AutoencoderKL)
    return vae


def _theirs(spec: AutoencoderSpec, contestant: str, clock: Clock) -> Any:
    """With weights in 16 bits, as diffusers' scripts hold an autoencoder that is not trained."""
    vae = their_vae(spec, clock.device).vae.to(torch.bfloat16).eval().requires_grad_(False)
    if backend := compiler(contestant, clock):
        vae.encoder = torch.compile(vae.encoder, backend=backend)
    return vae


@torch.no_grad()
def _encode(vae: Any, pictures: Tensor, batch: int, device: torch.device) -> object:
    parts: list[tuple[Tensor, Tensor]] = []
    for first in range(0, len(pictures), batch):
        x = pictures[first : first + batch].to(device).to(torch.bfloat16) / 127.5 - 1
        posterior = vae.encode(x).latent_dist
        parts.append((posterior.mean.half().cpu(), posterior.logvar.half().cpu()))
    return [torch.cat(moments) for moments in zip(*parts, strict=True)]


def drawing(row: str, contestant: str, clock: Clock, emit: Emit, scratch: Path) -> None:
    """Seconds for a batch of pictures of 512 x 512 from their prompts, DDIM, guided, in bf16; 1 and then 8 at once."""
    side, steps = (64, 2) if clock.tiny else (512, 50)
    folder = scratch / "random-sd"
    if not folder.exists():
        random_sd(scratch / "made", clock.device.type, clock.tiny).rename(folder)
    began = clock.now()
    draw = (_ours if contestant == "ours" else _pipeline)(folder, contestant, clock, side, steps)
    load = clock.now() - began
    for batch, rounds in ROUNDS.items():
        clock.restart()
        warm = clock.around(partial(draw, batch))
        taken = [clock.around(partial(draw, batch)) for _ in range(1 if clock.tiny else rounds)]
        seconds = statistics.median(taken)
        emit(
            {
                "batch": batch,
                "side": side,
                "steps": steps,
                "seconds": round(seconds, 4),
                "images_per_second": round(batch / seconds, 4),
                "spread": round((max(taken) - min(taken)) / seconds, 4),
                **clock.memory(),
                "load_seconds": round(load, 2),
                "warm_up_seconds": round(warm, 2),
                "compile": "" if contestant == "ours" else compiler(contestant, clock),
                **compiled_graphs(),
            }
        )


def _ours(folder: Path, contestant: str, clock: Clock, side: int, steps: int) -> Callable[[int], object]:
    pipeline = Pipeline.from_pretrained(folder, device=clock.device, precision="bf16")
    how: dict[str, Any] = {"num_inference_steps": steps, "guidance_scale": GUIDANCE, "sampler": "ddim"}

    def draw(batch: int) -> object:
        seeds = list(range(batch))
        return pipeline.text_to_image([PROMPT] * batch, height=side, width=side, seeds=seeds, batch_size=batch, **how)

    return draw


def _pipeline(folder: Path, contestant: str, clock: Clock, side: int, steps: int) -> Callable[[int], object]:
    package = diffusers()
    theirs = package.StableDiffusionPipeline.from_pretrained(folder, torch_dtype=torch.bfloat16, safety_checker=None)
    theirs.scheduler = package.DDIMScheduler.from_config(theirs.scheduler.config)
    theirs.set_progress_bar_config(disable=True)
    theirs.to(clock.device)
    if backend := compiler(contestant, clock):  # as diffusers' guide to fast drawing has it
        theirs.unet.to(memory_format=torch.channels_last)
        mode = {"mode": "reduce-overhead"} if backend == "inductor" else {}
        theirs.unet = torch.compile(theirs.unet, backend=backend, fullgraph=True, dynamic=False, **mode)

    def draw(batch: int) -> object:
        generators = [torch.Generator().manual_seed(seed) for seed in range(batch)]
        size = {"height": side, "width": side}
        return theirs(
            [PROMPT] * batch, num_inference_steps=steps, guidance_scale=GUIDANCE, generator=generators, **size
        )

    return draw
