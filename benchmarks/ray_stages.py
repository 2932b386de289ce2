"""prepare_data and cache_latents alone and on Ray clusters on this machine: the same bytes, and how fast.

    python benchmarks/ray_stages.py --scenes 20000                    of drawn scenes
    python benchmarks/ray_stages.py --scenes 100000 --photos 3000     and prepare_data of photographs, 4 megapixels each

Alone: this process, with one thread. On three nodes of one CPU each, of which one is killed in the middle. And, for
the speed, on a head without CPUs and one, then two workers of one CPU each: the cluster is up, and the clock runs
from the first finished shard to the last (at least a minute of work is wanted). The autoencoder is the default
recipe's, with random weights. A line of JSON for each.
"""

import argparse
import json
import os
import tempfile
import time
from collections.abc import Callable, Generator, Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image

from darkroom.config.autoencoder import TrainedVAE
from darkroom.config.networks import AutoencoderSpec, PictureSizes
from darkroom.config.params import load
from darkroom.core.artifact import content_hash, provenance
from darkroom.core.device import Runtime
from darkroom.core.output_shards import Shard, Shards
from darkroom.core.rng import seeded
from darkroom.core.weights import DIFFUSERS_WEIGHTS, write_network
from darkroom.data import latents
from darkroom.data.prepare import prepare
from darkroom.data.prepared import Prepared
from darkroom.data.sources.image_folder import ImageFolder
from darkroom.data.sources.scenes import Scenes
from darkroom.nn.autoencoder.vae import AutoencoderKL
from darkroom.training.latent_shards import Encoding, Pictures, kept_autoencoder
from synthetic import PROJECT

ALONE, ON_RAY = Runtime(device="cpu", threads=1), Runtime(device="cpu", ray="auto")
STORE = 100 << 20  # bytes of a node's object store
DISTINCT, PHOTO = 64, (2048, 2048)  # photographs, and their pixels
PARAMS = load(PROJECT / "recipes" / "scenes.yaml")
Stage = Callable[[Path, Shards], None]


class Clocked(Shards):
    """Notes when each shard is there; `on_third` is called once three are."""

    def __init__(self, folder: Path, settings: Runtime, on_third: Callable[[], None] = lambda: None) -> None:
        super().__init__(folder, settings)
        self.times: list[float] = []
        self._on_third = on_third

    def made(self, shards: Iterable[Shard], light: bool = False) -> Generator[Path]:
        """See Shards."""
        for path in super().made(shards, light):
            self.times.append(time.monotonic())
            if len(self.times) == 3:
                self._on_third()
            yield path

    @property
    def figures(self) -> dict[str, float]:
        """Seconds from the first shard to the last, and shards a second meanwhile."""
        seconds = self.times[-1] - self.times[0]
        return {"seconds": round(seconds, 1), "shards_per_second": round((len(self.times) - 1) / seconds, 4)}


@contextmanager
def cluster(cpus: list[int]) -> Iterator[Any]:
    """Nodes with so many CPUs each, the first of which is the head."""
    os.environ["RAY_USAGE_STATS_ENABLED"] = "0"
    from ray.cluster_utils import Cluster

    node = {"num_gpus": 0, "object_store_memory": STORE}
    made = Cluster(initialize_head=True, head_node_args={**node, "num_cpus": cpus[0], "include_dashboard": False})
    try:
        for number in cpus[1:]:
            made.add_node(**node, num_cpus=number)
        os.environ["RAY_ADDRESS"] = made.address
        yield made
    finally:
        made.shutdown()


def prepare_scenes(n: int) -> Stage:
    """The stage prepare_data, of n training scenes."""
    source = Scenes(n, 1000, 1000, 500, 0, PARAMS.prepare_data.image_size)

    def stage(out: Path, shards: Shards) -> None:
        prepare(source, out, PARAMS.prepare_data, shards=shards)

    return stage


def prepare_photos(folder: Path, n: int) -> Stage:
    """The stage prepare_data, of n files of photographs' size, a few of which differ."""
    (folder / "smooth").mkdir(parents=True)
    for i in range(n):
        file, first = folder / "smooth" / f"{i:06d}.jpg", folder / "smooth" / f"{i % DISTINCT:06d}.jpg"
        if file == first:
            coarse = np.random.default_rng(i).integers(0, 256, (256, 256, 3), dtype=np.uint8)
            Image.fromarray(coarse).resize(PHOTO, Image.Resampling.BICUBIC).save(file, quality=90)
        else:
            file.hardlink_to(first)
    preparation = PARAMS.prepare_data.model_copy(update={"repeats": "keep"})

    def stage(out: Path, shards: Shards) -> None:
        prepare(ImageFolder(str(folder), "{label}"), out, preparation, shards=shards)

    return stage


def encode_scenes(prepared: Path, vae: Path) -> Stage:
    """The stage cache_latents, as far as its shards."""

    def stage(out: Path, shards: Shards) -> None:
        pictures = Pictures(prepared, "train", len(Prepared.open(prepared).split("train")), mirrored=False)
        encoding = Encoding(kept_autoencoder(vae), PARAMS.cache_latents.batch_size, PARAMS.cache_latents.precision)
        shards.all(encoding.shards(pictures), "encode", "image")

    return stage


def random_autoencoder(folder: Path, prepared: Path) -> Path:
    """The default recipe's, untrained."""
    p = PARAMS.train_vae
    assert isinstance(p, TrainedVAE)
    with seeded(0, "vae"):
        vae = AutoencoderKL(p.autoencoder, PictureSizes(in_channels=PARAMS.prepare_data.channels))
    spec = AutoencoderSpec(network=vae.config, sizes=vae.sizes).model_dump()
    config = {"kind": "kl", **spec, "scaling_factor": None}
    write_network(folder, DIFFUSERS_WEIGHTS, vae, config, provenance(prepared))
    return folder


def runs(name: str, stage: Stage, folder: Path, output: bool) -> Iterator[dict[str, Any]]:
    """A finding for each way to run a stage; output: it writes one beside its shards, by which it is compared."""

    def ran(way: str, settings: Runtime, on_third: Callable[[], None] = lambda: None) -> dict[str, Any]:
        shards, out = Clocked(folder / f"{name} {way} shards", settings, on_third), folder / f"{name} {way}"
        began = time.monotonic()
        stage(out, shards)
        found = {"all_seconds": round(time.monotonic() - began, 1), **shards.figures}
        return {"stage": name, "way": way, **found, "hash": content_hash(out if output else shards.folder)}

    yield ran("alone", ALONE)
    with cluster([0, 1]):
        yield ran("one worker", ON_RAY)
    with cluster([0, 1, 1]):
        yield ran("two workers", ON_RAY)
    with cluster([1, 1, 1]) as nodes:

        def kill() -> None:
            nodes.remove_node(nodes.worker_nodes.copy().pop(), allow_graceful=False)

        yield ran("three nodes, one killed", ON_RAY, kill)


def main() -> None:
    """Read the command line, and measure."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--scenes", type=int, default=20_000, help="training scenes")
    parser.add_argument("--photos", type=int, default=0, help="photographs (default: none)")
    parser.add_argument("--folder", type=Path, default=Path(tempfile.gettempdir()), help="for what is made")
    parser.add_argument("--shard-rows", type=int, default=1024, help="latents of a shard (default: 1024)")
    given = parser.parse_args()
    torch.set_num_threads(1)
    latents.SHARD_ROWS = given.shard_rows
    with tempfile.TemporaryDirectory(dir=given.folder) as scratch:
        folder = Path(scratch)
        prepared = folder / "prepare_data alone"
        stages = [
            ("prepare_data", prepare_scenes(given.scenes), True),
            ("cache_latents", encode_scenes(prepared, folder / "vae"), False),
        ]
        if given.photos:
            stages.append(("prepare_data of photographs", prepare_photos(folder / "photos", given.photos), True))
        for name, stage, output in stages:
            if name == "cache_latents":
                random_autoencoder(folder / "vae", prepared)
            found = []
            for one in runs(name, stage, folder, output):
                found.append(one)
                print(json.dumps(one), flush=True)
            rates = {one["way"]: one["shards_per_second"] for one in found}
            summary = {
                "stage": name,
                "same_bytes": len({one["hash"] for one in found}) == 1,
                "two_workers_against_one": round(rates["two workers"] / rates["one worker"], 3),
            }
            print(json.dumps(summary), flush=True)


if __name__ == "__main__":
    main()
