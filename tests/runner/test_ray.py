"""Stages in local processes and on a real Ray cluster of three nodes: the bytes of a stage alone, also where a node is
lost on the way.

It would catch tasks that compute with another number of threads or in other batches, that see other settings or another
folder, errors that arrive as a traceback of Ray's, and a stage that Ray's own handling of signals ends without a word.
"""

import os
import signal
import time
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
import torch

from darkroom.config.paths import PREPARED, TEXT_ENCODER, VAE
from darkroom.core.artifact import content_hash
from darkroom.core.device import Runtime
from darkroom.core.errors import DarkroomError
from darkroom.core.output_shards import Shard, Shards
from darkroom.data import conditioning, latents
from darkroom.data.caption_table import write_captions
from darkroom.data.prepare import prepare
from darkroom.data.prepared import Prepared
from darkroom.data.prepared_writer import PreparedWriter, Row
from darkroom.data.sources.scenes import Scenes
from darkroom.evaluation.drawing import draw, kept_pipeline
from darkroom.training import caption_shards, latent_shards
from tests.support import pipelines
from tests.support.projects import ROOT
from tests.support.settings import preparation

SIDE, PICTURES, CAPTIONS = pipelines.SIZE, 46, 40
ALONE = Runtime(device="cpu", threads=1)
PROCESSES = Runtime(device="cpu", threads=1, processes=2)
RAY = Runtime(device="cpu", ray="auto")
ON_GPUS = Runtime(ray="auto", threads=1)


@pytest.fixture(scope="module")
def cluster() -> Iterator[Any]:
    pytest.importorskip("ray")
    from tests.support.ray_cluster import ray_cluster

    with pytest.MonkeyPatch.context() as patch, ray_cluster(3) as made:
        patch.setenv("PYTHONPATH", str(ROOT))  # where tasks of these tests come from
        yield made


@pytest.fixture(params=["two processes", "ray"])
def others(request: pytest.FixtureRequest) -> Runtime:
    """Whoever makes shards besides the stage itself."""
    if request.param == "ray":
        request.getfixturevalue("cluster")
    return RAY if request.param == "ray" else PROCESSES


@pytest.fixture
def project(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """Tiny networks and some pictures; this process computes with one thread."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("DARKROOM_DEVICE", "cpu")
    pipelines.assembled(Path("artifacts"))
    writer = PreparedWriter(PREPARED, "noise", (), True, SIDE, 3)
    for i in range(PICTURES):
        pixels = np.random.default_rng(i).integers(0, 256, (SIDE, SIDE, 3), dtype=np.uint8)
        writer.add("train" if i % 23 else "test", Row(pixels, f"{i}.png", pipelines.CAPTIONS[i % 12], (), ()))
    writer.finish()
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield tmp_path
    torch.set_num_threads(threads)


def surroundings(folder: Path, path: Path) -> None:
    threads = torch.get_num_threads(), os.environ["OMP_NUM_THREADS"], os.environ["DARKROOM_THREADS"]
    path.write_text(f"{threads} {Path.cwd() == folder}")


def refused(path: Path) -> None:
    raise DarkroomError("pictures/7.png: is torn; fetch it again")


def slow(text: str, path: Path) -> None:
    time.sleep(1.5)
    path.write_text(text)


def test_latents_are_the_same(project: Path, others: Runtime, monkeypatch: pytest.MonkeyPatch) -> None:
    """In several shards, one across the first mirrored picture."""
    monkeypatch.setattr(latents, "SHARD_ROWS", 20)
    pictures = latent_shards.Pictures(PREPARED, "train", PICTURES - 2, mirrored=True)
    for name, settings in (("alone", ALONE), ("others", others)):
        encoding = latent_shards.Encoding(latent_shards.kept_autoencoder(VAE), 8, "fp32")
        with Shards(Path(name), settings) as shards:
            files = shards.all(encoding.shards(pictures), "encode", "image")
        assert len(files) == 5
    assert content_hash("alone") == content_hash("others")


@pytest.mark.slow
def test_conditions_are_the_same(project: Path, others: Runtime, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(caption_shards, "SHARD_ROWS", 15)
    captions = Path("captions.arrow").absolute()
    write_captions(
        captions, pa.array([f"{pipelines.CAPTIONS[i % 12]} {i}" for i in range(CAPTIONS)], pa.large_string())
    )
    for name, settings in (("alone", ALONE), ("others", others)):
        encoder = caption_shards.kept_encoder(TEXT_ENCODER, "states")
        wanted = caption_shards.CaptionShards(encoder, "states", captions, "v1").of(CAPTIONS)
        with Shards(Path(name), settings) as shards:
            assert len(shards.all(wanted, "embed", "caption")) == 3
    assert content_hash("alone") == content_hash("others")
    assert conditioning.SHARD_ROWS % 256 == 0, "shards of whole batches are the same as all captions in one"


@pytest.mark.slow
def test_drawn_pictures_are_the_same(project: Path, others: Runtime) -> None:
    split = Prepared.open(PREPARED).split("train")
    folder = Path("artifacts/pipeline")
    for name, settings in (("alone", ALONE), ("others", others)):
        with Shards(Path(name), settings) as shards:
            drawn = draw(kept_pipeline(folder), split, 11, 3, 4, shards)
        assert len(drawn.pictures) == 11
    assert content_hash("alone") == content_hash("others")
    output = kept_pipeline(folder)().text_to_image(drawn.prompts, seeds=drawn.seeds, batch_size=4)
    assert torch.equal(output.tensor, drawn.pictures)
    assert drawn.evaluations == output.network_evaluations / 3


def test_scenes_are_prepared_to_the_same_bytes_on_ray(cluster: Any, tmp_path: Path) -> None:
    source = Scenes(900, 100, 100, 20, 0, 16)
    for name, settings in (("alone", ALONE), ("ray", RAY)):
        prepare(source, tmp_path / name, preparation(), shards=Shards(tmp_path / f"{name} shards", settings))
    assert content_hash(tmp_path / "alone") == content_hash(tmp_path / "ray")


def test_a_task_sees_what_the_stage_sees(cluster: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    before = signal.getsignal(signal.SIGTERM)
    with Shards(tmp_path / "shards", RAY) as shards:
        (told,) = shards.made([Shard("told", partial(surroundings, tmp_path))])
        assert signal.getsignal(signal.SIGTERM) is before
    assert told.read_text() == "(1, '1', '1') True"


def test_an_error_of_a_task_is_the_stages(cluster: Any, tmp_path: Path) -> None:
    with pytest.raises(DarkroomError, match=r"^pictures/7.png: is torn; fetch it again$"):
        list(Shards(tmp_path / "shards", RAY).made([Shard("torn", refused)]))


def test_a_node_that_is_lost_costs_no_byte(cluster: Any, tmp_path: Path) -> None:
    """It is killed while it works; a node of its kind takes its place, for the tests behind."""
    shards = [Shard(f"{i:02d}", partial(slow, f"shard {i}"), 1) for i in range(9)]
    made = Shards(tmp_path / "shards", RAY).made(shards)
    first = next(made)
    cluster.remove_node(sorted(cluster.worker_nodes, key=lambda node: node.node_id)[0], allow_graceful=False)
    assert [path.read_text() for path in (first, *made)] == [f"shard {i}" for i in range(9)]


@pytest.mark.slow
def test_pictures_are_read_beside_a_task_that_has_a_gpu(
    cluster: Any, project: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A node says it has one, so that the task asks others to read; what it computes with is the CPU all the same."""
    cluster.add_node(num_cpus=1, num_gpus=1, object_store_memory=80 << 20)
    monkeypatch.setattr(latents, "SHARD_ROWS", 20)
    monkeypatch.setenv("DARKROOM_DEVICE", "auto")
    pictures = latent_shards.Pictures(PREPARED, "train", PICTURES - 2, mirrored=True)
    for name, settings in (("alone", ALONE), ("gpu", ON_GPUS)):
        encoding = latent_shards.Encoding(latent_shards.kept_autoencoder(VAE), 8, "fp32")
        with Shards(Path(name), settings) as shards:
            shards.all(encoding.shards(pictures), "encode", "image")
    assert content_hash("alone") == content_hash("gpu")
