"""Training photos-ddpm-small's network beside diffusers' UNet2DModel of the same size: which learns more in a time?

    python benchmarks/training.py --minutes 30    both for so long, in turns of a minute
    python benchmarks/training.py --large         photos-ddpm's network of 62 M weights alone: 100 steps of 16 pictures

Both see the same pictures in the same batches, with the same noise at the same times, mirrored alike, and minimise the
L1 error of epsilon with the recipe's optimiser, whose learning rate falls over the time given; the L1 error on held-out
pictures is that of the averaged weights. Time is that of training alone. --data names a folder of photographs, such as
recipes/cifar10_photos.py writes.
"""

import argparse
import statistics
import sys
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from darkroom.config.autoencoder import IdentityVAE
from darkroom.config.denoisers import BatchNormUNetConfig, DenoiserSizes
from darkroom.config.networks import IdentityConfig
from darkroom.config.params import Params, load
from darkroom.config.sections import TrainUNet
from darkroom.config.training import AdamW, Muon
from darkroom.core import device as devices
from darkroom.core.errors import DarkroomError
from darkroom.core.rng import seeded
from darkroom.data.conditioning import Conditioning, ConditioningInfo
from darkroom.data.latents import Latents
from darkroom.data.prepare import prepare
from darkroom.data.prepared import Prepared
from darkroom.data.sources.image_folder import ImageFolder
from darkroom.data.sources.torchvision_import import torchvision
from darkroom.diffusion.denoiser import Condition
from darkroom.diffusion.objective import Objective
from darkroom.diffusion.process import process_of
from darkroom.nn.autoencoder.identity import IdentityAutoencoder
from darkroom.nn.denoiser.batch_norm_unet import BatchNormUNet
from darkroom.training.autoencoder import encode
from darkroom.training.engine.context import TrainingContext
from darkroom.training.engine.distributed import ALONE
from darkroom.training.engine.ema import EMA
from darkroom.training.engine.latch import Latch, Values
from darkroom.training.engine.loop import Phase, update
from darkroom.training.latent_batches import LatentBatches
from darkroom.training.unet import UNetTask
from side_by_side import peak_mib

RECIPES = Path(__file__).parents[1] / "recipes"
PHOTOS = Path("data/raw/cifar10-photos")
CPU = torch.device("cpu")
SAME_SIZE = 0.05  # how far the numbers of weights may be apart
LARGE_BATCH, ENDS = 16, 10  # pictures of a step, and steps of which the loss at the start and at the end is the mean

# As google/ddpm-cifar10-32, narrower: four levels of two blocks, attention at 16 x 16, and its paddings and epsilons.
PEER: dict[str, Any] = {
    "in_channels": 3,
    "out_channels": 3,
    "block_out_channels": (48, 48, 96, 96),
    "down_block_types": ("DownBlock2D", "AttnDownBlock2D", "DownBlock2D", "DownBlock2D"),
    "up_block_types": ("UpBlock2D", "UpBlock2D", "AttnUpBlock2D", "UpBlock2D"),
    "layers_per_block": 2,
    "norm_num_groups": 8,
    "norm_eps": 1e-6,
    "downsample_padding": 0,
    "flip_sin_to_cos": False,
    "freq_shift": 1,
}


class Peer(nn.Module):
    """diffusers' network, called as ours are."""

    def __init__(self, side: int) -> None:
        super().__init__()
        torchvision("datasets")  # before diffusers imports it: beside a CPU build of PyTorch it needs the help
        from diffusers import UNet2DModel

        self.unet: Any = UNet2DModel(sample_size=side, **PEER)

    def prepare(self, *conditions: Condition) -> tuple[None, None]:
        """No context, no classes."""
        return None, None

    def forward(self, sample: Tensor, timestep: Tensor, context: None = None, class_labels: None = None) -> Tensor:
        """See nn.denoiser.base.DenoisingNetwork; there are no conditions."""
        predicted: Tensor = self.unet(sample, timestep).sample
        return predicted


@dataclass(frozen=True)
class Photos:
    """Pictures as the denoiser sees them."""

    train: Latents
    held_out: Latents

    @classmethod
    def read(cls, folder: Path, params: Params) -> "Photos":
        """The photographs in a folder, prepared as a recipe says."""
        p = params.prepare_data
        assert isinstance(params.train_vae, IdentityVAE)
        pixels = IdentityAutoencoder(IdentityConfig(range=params.train_vae.range))
        with tempfile.TemporaryDirectory() as scratch:
            prepare(ImageFolder(str(folder.resolve()), "a {label}"), Path(scratch) / "prepared", p)
            splits = [Prepared.open(Path(scratch) / "prepared").split(name) for name in ("train", "validation")]
            means = [encode(pixels, split.images, len(split), 1024, "fp32", CPU, "read").mean for split in splits]
        return cls(*(Latents(mean, None, 1.0) for mean in means))


class Contestant:
    """A network in training; ours and theirs differ in nothing else."""

    def __init__(
        self, network: Any, photos: Photos, p: TrainUNet, device: torch.device, seconds: float | None = None
    ) -> None:
        """`seconds`: that it will have in all; None: `p.steps` steps, however long they take."""
        network = devices.channels_last(network.to(device))
        self.weights = sum(weight.numel() for weight in network.parameters())
        self.p, self.wanted, self.steps, self.seconds = p, seconds, 0, 0.0
        data = LatentBatches(
            photos.train,
            photos.held_out,
            Conditioning(ConditioningInfo("none", None, 0, 0, []), {}, None, None),
            TrainingContext(p.batch_size, p.seed, p.precision, device),
            p.condition_dropout,
            p.horizontal_flip,
            p.held_out,
        )
        self.task = UNetTask(network, Objective(process_of(p.process), p.objective), data)
        self.phase, self.ema = Phase("", network, p, self.task.loss), EMA(network, p.ema_half_life)
        self.latch = Latch(device)

    def step(self) -> float:
        """Train for one step; its loss."""
        began = time.perf_counter()
        phase, n = self.phase, self.p.batch_size
        rate = phase.rate(self.steps, self.expected)
        phase.set_rate(rate)
        self.ema.set_weight((self.steps + 1) * n, n)
        self.latch.start(self.steps)
        batch = phase.loss.inputs(self.steps, slice(0, n)).to(phase.device)
        measured = update([phase], [[batch]], fractions=[1.0], ema=self.ema, processes=ALONE, latch=self.latch)
        self.latch.check(lambda name, step: rate)
        loss = Values(measured, {phase.name: rate})["loss"]
        self.steps += 1
        self.seconds += time.perf_counter() - began
        return loss

    @property
    def expected(self) -> int:
        """The steps it will have made in all, as far as one can tell from those made."""
        if self.wanted is None or not self.steps:
            return self.p.steps
        return max(round(self.steps * self.wanted / self.seconds), self.steps + 1)

    def train_until(self, seconds: float) -> None:
        """Train until it has had so many seconds in all."""
        while self.seconds < seconds:
            self.step()

    def held_out(self) -> float:
        """The mean L1 error on held-out pictures."""
        return self.task.validate(self.ema.network)["held_out/loss"]


def ours(p: TrainUNet) -> BatchNormUNet:
    """The recipe's network, as train_unet begins with it."""
    assert isinstance(p.unet, BatchNormUNetConfig)
    sizes = DenoiserSizes(in_channels=3, sample_size=64, cross_attention_dim=None, num_classes=None)
    with seeded(p.seed, "unet"):
        return BatchNormUNet(p.unet, sizes)


def compare(given: argparse.Namespace, device: torch.device) -> None:
    """Train both in turns and print a row after each."""
    params = load(RECIPES / "photos-ddpm-small.yaml")
    photos, p = Photos.read(given.data, params), params.train_unet
    with seeded(p.seed, "peer"):
        peer = Peer(params.prepare_data.image_size)
    changed = {"learning_rate": given.peer_learning_rate, "kind": given.peer_optimizer}
    keys = p.optimizer.model_dump() | {key: value for key, value in changed.items() if value is not None}
    optimizer = (Muon if keys["kind"] == "muon" else AdamW).model_validate(keys)
    theirs = p.model_copy(update={"optimizer": optimizer})
    wanted = 60 * given.minutes
    both = [Contestant(ours(p), photos, p, device, wanted), Contestant(peer, photos, theirs, device, wanted)]
    if abs(both[1].weights / both[0].weights - 1) > SAME_SIZE:
        raise SystemExit(f"{both[0].weights:,} and {both[1].weights:,} weights are no longer the same size")
    print(
        f"{len(photos.train)} pictures, {min(len(photos.held_out), p.held_out)} held out; weights: "
        f"{both[0].weights:,} and {both[1].weights:,}; "
        f"{p.optimizer.kind} at {p.optimizer.learning_rate:g} and "
        f"{theirs.optimizer.kind} at {theirs.optimizer.learning_rate:g}"
    )
    print("| seconds of each | steps | s/step | held-out L1 | steps, diffusers | s/step | held-out L1 |")
    print("|---|---|---|---|---|---|---|", flush=True)
    until = 0.0
    while until < wanted:
        until = min(until + given.turn, wanted)
        for one in both:
            one.train_until(until)
        cells = [f"{one.steps} | {one.seconds / one.steps:.3f} | {one.held_out():.4f}" for one in both]
        print(f"| {until:.0f} | {' | '.join(cells)} |", flush=True)


def large(given: argparse.Namespace, device: torch.device) -> None:
    """A few steps of the large network, and what they cost."""
    params = load(RECIPES / "photos-ddpm.yaml")
    p = params.train_unet.model_copy(update={"batch_size": LARGE_BATCH, "steps": given.steps})
    one = Contestant(ours(p), Photos.read(given.data, params), p, device)
    losses, seconds = [], []
    for _ in range(given.steps):
        before = one.seconds
        losses.append(one.step())
        seconds.append(one.seconds - before)
    first, last = (statistics.mean(part) for part in (losses[:ENDS], losses[-ENDS:]))
    print(
        f"{one.weights:,} weights, {LARGE_BATCH} pictures of {params.prepare_data.image_size}² a step, "
        f"{given.steps} steps: L1 {first:.4f} at the start, {last:.4f} at the end (means of {ENDS} steps); "
        f"{statistics.median(seconds):.2f} s a step; peak {peak_mib():.0f} MiB"
    )


def main() -> None:
    """Read the command line, and measure."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, default=PHOTOS, help=f"folder of photographs (default {PHOTOS})")
    parser.add_argument("--minutes", type=float, default=30, help="of training, for each")
    parser.add_argument("--turn", type=float, default=60, help="seconds of a turn")
    parser.add_argument("--peer-learning-rate", type=float, help="of diffusers' network, in place of the recipe's")
    parser.add_argument("--peer-optimizer", choices=["adamw", "muon"], help="likewise")
    parser.add_argument("--large", action="store_true")
    parser.add_argument("--steps", type=int, default=100, help="of --large")
    given = parser.parse_args()
    if given.minutes <= 0 or given.turn <= 0 or given.steps < 1:
        parser.error("--minutes and --turn are above 0, --steps is 1 or more")
    try:
        (large if given.large else compare)(given, devices.start())
    except DarkroomError as error:
        sys.exit(f"training: {error}")


if __name__ == "__main__":
    main()
