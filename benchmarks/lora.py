"""Peak memory of a training step of Stable Diffusion 1.x's U-Net at batch 1: adapters, all weights, diffusers' script.

    python benchmarks/lora.py                     latents of 64 x 64, bf16: 20 GB; minutes on a CPU
    python benchmarks/lora.py --side 32 --steps 2

Each trains by itself in a process of its own, with random weights: adapters of the recipe sd15-lora beside frozen
weights in 16 bits, once more with recomputed activations; all weights as sd15-finetune does; and the loop of diffusers'
train_text_to_image_lora.py: its network in bfloat16 with PEFT's adapters, AdamW, autocast, gradients clipped. Text
encoder and autoencoder, which that script keeps in memory besides, are left out. Memory is what no file holds
(RssAnon), or on CUDA what PyTorch has allocated at most. A line of JSON for each.
"""

import argparse
import gc
import json
import os
import subprocess
import sys
import threading
import time
from contextlib import suppress
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from torch import nn

from darkroom.config.params import load
from darkroom.config.sections import LoRAConfig
from darkroom.core.rng import seeded
from darkroom.nn.denoiser.adapted import AdaptedDenoiser
from darkroom.nn.layers.recompute import checkpoint_activations
from gpu_measure import EnoughError
from gpu_training import RECIPES, UNetCase, diffusers, noise_loss, our_unet, their_unet, train_our_unet, unet_case

WAYS = ("adapters", "adapters, recomputed", "all weights", "diffusers")
INTERVAL = 0.02  # seconds
STATUS = Path("/proc/self/status")


class Peak:
    """The most memory of this process while the block lasts, in MiB."""

    def __init__(self, device: torch.device) -> None:
        self.device, self.mib = device, 0.0
        self._over = threading.Event()
        self._thread = threading.Thread(target=self._watch, daemon=True)

    def __enter__(self) -> "Peak":
        if self.device.type == "cuda":
            torch.cuda.reset_peak_memory_stats()
        else:
            self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._over.set()
        if self.device.type == "cuda":
            self.mib = torch.cuda.max_memory_allocated() / 2**20

    def _watch(self) -> None:
        while not self._over.wait(INTERVAL):
            (line,) = (line for line in STATUS.read_text().splitlines() if line.startswith("RssAnon"))
            self.mib = max(self.mib, int(line.split()[1]) / 2**10)


class Steps:
    """Ends a training after a number of steps."""

    def __init__(self, n: int) -> None:
        self.n = n

    def __call__(self, step: int, *_: Any, **__: Any) -> None:
        if step >= self.n:
            raise EnoughError


def train(way: str, case: UNetCase, lora: LoRAConfig, device: torch.device, steps: int) -> int:
    """Some steps; returns how many weights are trained."""
    if way == "diffusers":
        return _theirs(case, lora, device, steps)
    network: Any = our_unet(case, device)
    checkpoint_activations(network, way.endswith("recomputed"))
    if way != "all weights":
        with seeded(0, "lora"):
            network = AdaptedDenoiser(network, None, lora.targets, lora.rank, lora.alpha, halved=True)
    gc.collect()
    with suppress(EnoughError):
        train_our_unet(network, case, device, Steps(steps))
    return _trained(network)


def _theirs(case: UNetCase, lora: LoRAConfig, device: torch.device, steps: int) -> int:
    from peft import LoraConfig

    torch.set_default_dtype(torch.bfloat16)
    network = their_unet(case, device)
    torch.set_default_dtype(torch.float32)
    network.requires_grad_(False)
    network.add_adapter(
        LoraConfig(
            r=lora.rank, lora_alpha=lora.alpha, init_lora_weights="gaussian", target_modules=[*map(str, lora.targets)]
        )
    )
    trained = [weight for weight in network.parameters() if weight.requires_grad]
    for weight in trained:
        weight.data = weight.data.float()
    optimizer = torch.optim.AdamW(trained, lr=1e-4, weight_decay=0.01)
    loss_of = noise_loss(network, case, device)
    for _ in range(steps):
        loss = loss_of()
        loss.backward()
        nn.utils.clip_grad_norm_(trained, 1.0)
        optimizer.step()
        optimizer.zero_grad()
        loss.item()
    return _trained(network)


def _trained(network: nn.Module) -> int:
    return sum(weight.numel() for weight in network.parameters() if weight.requires_grad)


def measure(way: str, side: int, steps: int) -> dict[str, Any]:
    """One way, in this process."""
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    lora = load(RECIPES / "sd15-lora.yaml").train_unet.lora
    assert lora is not None
    case = unet_case("unet-64", tiny=False)
    case = replace(
        case, p=case.p.model_copy(update={"batch_size": 1}), latent=(4, side, side), samples=16, captions=4, gmac=None
    )
    if way == "diffusers":
        diffusers()
    began = time.monotonic()
    with Peak(device) as peak:
        trained = train(way, case, lora, device, steps)
    seconds = round(time.monotonic() - began, 1)
    return {"way": way, "latent": side, "steps": steps, "trained": trained, "mib": round(peak.mib), "seconds": seconds}


def main() -> None:
    """Read the command line, and measure."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--side", type=int, default=64, help="of the latents (default: 64)")
    parser.add_argument("--steps", type=int, default=3)
    parser.add_argument("--way", choices=WAYS, help="in this process, one of them")
    given = parser.parse_args()
    if given.way:
        print(json.dumps(measure(given.way, given.side, given.steps)), flush=True)
        return
    for way in WAYS:
        command = [sys.executable, __file__, "--side", str(given.side), "--steps", str(given.steps), "--way", way]
        subprocess.run(command, check=True, env=os.environ)


if __name__ == "__main__":
    main()
