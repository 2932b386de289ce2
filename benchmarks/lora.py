"""Peak memory of training Stable Diffusion 1.x's U-Net at batch 1: adapters, all weights, diffusers' script.

    python benchmarks/lora.py                     latents of 64 x 64, bf16: 20 GB; minutes on a CPU
    python benchmarks/lora.py --side 32 --steps 2 --ways adapters diffusers

Each reads the same fp32 file of random weights and trains by itself, in a process of its own: adapters of the recipe
sd15-lora beside frozen weights in 16 bits, as its stage reads them, and once more with recomputed activations; all
weights as sd15-finetune does; and diffusers' train_text_to_image_lora.py: its network in bfloat16 with PEFT's adapters
in fp32, AdamW, autocast, gradients clipped. That script reads fp32 and rounds the whole on its device; here it is
given its most frugal way, from_pretrained with torch_dtype. Autoencoder and text encoder, which it keeps in memory
besides, are left out.

A line of JSON for each. `reading` and `steps` are the peaks, in MiB, from the first weight that is read until the
network with its adapters is there, and of the steps after that; both above `before`, what the process had after it
trained a tiny network in the same way, so that libraries, of which diffusers loads more, count for neither. Counted is
what no file holds (RssAnon, every 5 ms; freed memory that malloc keeps counts), or on CUDA what PyTorch has allocated
at most. The steps include the average of the weights, which that script has not, and data: a few random latents and
text states.
"""

import argparse
import gc
import json
import os
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable
from contextlib import suppress
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from torch import nn

from darkroom.config.denoisers import UNet2DConditionConfig
from darkroom.config.params import load
from darkroom.config.sections import LoRAConfig
from darkroom.core.artifact import PIPELINE, write_json
from darkroom.core.rng import seeded
from darkroom.core.weights import DIFFUSERS_WEIGHTS
from darkroom.interop.configs import unet_config
from darkroom.interop.diffusers import UNET, write_network
from darkroom.interop.model import weights_in_memory
from darkroom.interop.pretrained import read_pretrained_unet
from darkroom.nn.denoiser.adapted import AdaptedDenoiser
from darkroom.nn.layers.recompute import checkpoint_activations
from gpu_measure import EnoughError
from gpu_training import RECIPES, UNetCase, diffusers, noise_loss, our_unet, train_our_unet, unet_case

WAYS = ("adapters", "adapters, recomputed", "all weights", "diffusers")
WRITE = "write"  # not a way to train: makes the files that all read
FULL, TINY = "full", "tiny"  # folders of them
TINY_SIDE, WARM_UP = 8, 2  # of its latents, and its steps
INTERVAL = 0.005  # seconds
STATUS = Path("/proc/self/status")


def anonymous_mib() -> float:
    """What this process has in memory that no file holds."""
    (line,) = (line for line in STATUS.read_text().splitlines() if line.startswith("RssAnon"))
    return int(line.split()[1]) / 2**10


class Peak:
    """The most memory of this process since the last mark, in MiB."""

    def __init__(self, device: torch.device) -> None:
        self.device, self._most = device, 0.0
        if device.type != "cuda":
            threading.Thread(target=self._watch, daemon=True).start()

    def now(self) -> float:
        """What it has."""
        return torch.cuda.memory_allocated() / 2**20 if self.device.type == "cuda" else anonymous_mib()

    def mark(self) -> float:
        """The most since the last mark; counting begins anew."""
        if self.device.type == "cuda":
            most = torch.cuda.max_memory_allocated() / 2**20
            torch.cuda.reset_peak_memory_stats()
        else:
            most, self._most = max(self._most, anonymous_mib()), 0.0
        return most

    def _watch(self) -> None:
        while True:
            self._most = max(self._most, anonymous_mib())
            time.sleep(INTERVAL)


class Steps:
    """Ends a training after a number of steps."""

    def __init__(self, n: int) -> None:
        self.n = n

    def __call__(self, step: int, *_: Any, **__: Any) -> None:
        if step >= self.n:
            raise EnoughError


Train = Callable[[int], None]  # some steps


def write(case: UNetCase, folder: Path) -> None:
    """A model of random weights, as far as training the U-Net asks for one."""
    with seeded(0, "unet"):
        network = our_unet(case, torch.device("cpu"))
    write_network(folder / UNET, DIFFUSERS_WEIGHTS, unet_config(case.spec), weights_in_memory(network))
    process, prediction = case.p.process.model_dump(), case.p.objective.prediction_type
    write_json(folder / PIPELINE, {"process": process, "prediction_type": prediction})


def ours(way: str, case: UNetCase, lora: LoRAConfig, device: torch.device, folder: Path) -> tuple[nn.Module, Train]:
    """As stages/train_unet.py reads a network, and trains it."""
    p, spec, adapts = case.p, case.spec, way != "all weights"
    assert isinstance(p.unet, UNet2DConditionConfig)
    trained_for = p.process, p.objective.prediction_type
    kept = p.precision if adapts else "fp32"
    network: Any = read_pretrained_unet(folder / UNET, p.unet, spec.sizes, device, *trained_for, kept)
    checkpoint_activations(network, way.endswith("recomputed"))
    if adapts:
        with seeded(p.seed, "lora"):
            network = AdaptedDenoiser(network, None, lora.targets, lora.rank, lora.alpha, p.precision == "bf16")

    def train(steps: int) -> None:
        with suppress(EnoughError):
            train_our_unet(network, case, device, Steps(steps))

    return network, train


def theirs(case: UNetCase, lora: LoRAConfig, device: torch.device, folder: Path) -> tuple[nn.Module, Train]:
    """As train_text_to_image_lora.py does."""
    from peft import LoraConfig

    network = diffusers().UNet2DConditionModel.from_pretrained(folder / UNET, torch_dtype=torch.bfloat16)
    network.to(device).train().requires_grad_(False)
    targets = [*map(str, lora.targets)]
    network.add_adapter(
        LoraConfig(r=lora.rank, lora_alpha=lora.alpha, init_lora_weights="gaussian", target_modules=targets)
    )
    trained = [weight for weight in network.parameters() if weight.requires_grad]
    for weight in trained:
        weight.data = weight.data.float()

    def train(steps: int) -> None:
        optimizer = torch.optim.AdamW(trained, lr=1e-4, weight_decay=0.01)
        loss_of = noise_loss(network, case, device)
        for _ in range(steps):
            loss = loss_of()
            loss.backward()
            nn.utils.clip_grad_norm_(trained, 1.0)
            optimizer.step()
            optimizer.zero_grad()
            loss.item()

    return network, train


def made(way: str, case: UNetCase, device: torch.device, folder: Path) -> tuple[nn.Module, Train]:
    """The network as it is trained, and what trains it."""
    lora = load(RECIPES / "sd15-lora.yaml").train_unet.lora
    assert lora is not None
    return theirs(case, lora, device, folder) if way == "diffusers" else ours(way, case, lora, device, folder)


def measure(way: str, case: UNetCase, steps: int, folder: Path) -> dict[str, Any]:
    """One way, in this process."""
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    if way == "diffusers":
        diffusers()  # before PEFT, see there
    made(way, case_of(TINY_SIDE, tiny=True), device, folder / TINY)[1](WARM_UP)
    gc.collect()
    peak = Peak(device)
    before = peak.now()
    network, train = made(way, case, device, folder / FULL)
    gc.collect()
    reading = peak.mark()
    began = time.monotonic()
    train(steps)
    seconds = (time.monotonic() - began) / steps
    most = peak.mark()
    return {
        "way": way,
        "latent": case.latent[-1],
        "trained": sum(weight.numel() for weight in network.parameters() if weight.requires_grad),
        "before": round(before),
        "reading": round(reading - before),
        "steps": round(most - before),
        "seconds_a_step": round(seconds, 1),
    }


def case_of(side: int, tiny: bool) -> UNetCase:
    """One picture a step."""
    case = unet_case("unet-64", tiny)
    p = case.p.model_copy(update={"batch_size": 1})
    return replace(case, p=p, latent=(4, side, side), samples=16, captions=4, gmac=None)


def main() -> None:
    """Read the command line, and measure."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--side", type=int, default=64, help="of the latents (default: 64)")
    parser.add_argument("--steps", type=int, default=3)
    parser.add_argument("--ways", nargs="+", choices=WAYS, default=WAYS)
    parser.add_argument("--tiny", action="store_true", help="a small network, to see whether all runs")
    parser.add_argument("--folder", type=Path, help="of the weights; made where it is not there (default: a new one)")
    parser.add_argument("--way", choices=(*WAYS, WRITE), help=argparse.SUPPRESS)  # in this process, one of them
    given = parser.parse_args()
    if given.way == WRITE:
        write(case_of(TINY_SIDE, tiny=True), given.folder / TINY)
        write(case_of(given.side, given.tiny), given.folder / FULL)
        return
    if given.way:
        found = measure(given.way, case_of(given.side, given.tiny), given.steps, given.folder)
        print(json.dumps(found), flush=True)
        return
    with tempfile.TemporaryDirectory() as temporary:
        folder = given.folder or Path(temporary) / "weights"
        for way in (*([] if folder.exists() else [WRITE]), *given.ways):
            command = [sys.executable, __file__, "--side", str(given.side), "--steps", str(given.steps)]
            command += ["--way", way, "--folder", str(folder), *(["--tiny"] if given.tiny else [])]
            subprocess.run(command, check=True, env=os.environ)


if __name__ == "__main__":
    main()
