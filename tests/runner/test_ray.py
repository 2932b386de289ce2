"""Stages on a real Ray cluster of three nodes: the bytes of a stage alone, also where a node is lost on the way.

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

import pytest

from darkroom.config.sections import Preparation
from darkroom.core.artifact import content_hash
from darkroom.core.device import Runtime
from darkroom.core.errors import DarkroomError
from darkroom.core.shards import Shard, Shards
from darkroom.data.prepare import prepare
from darkroom.data.sources.scenes import Scenes
from tests.support.ray_cluster import ray_cluster

pytest.importorskip("ray")
ON_RAY = Runtime(device="cpu", ray="auto")
ALONE = Runtime(device="cpu", threads=1)


@pytest.fixture(scope="module")
def cluster() -> Iterator[Any]:
    with ray_cluster(3) as made:
        yield made


def surroundings(folder: Path, path: Path) -> None:
    import torch

    threads = torch.get_num_threads(), os.environ["OMP_NUM_THREADS"], os.environ["DARKROOM_THREADS"]
    path.write_text(f"{threads} {Path.cwd() == folder}")


def refused(path: Path) -> None:
    raise DarkroomError("pictures/7.png: is torn; fetch it again")


def slow(text: str, path: Path) -> None:
    time.sleep(1.5)
    path.write_text(text)


def test_a_task_sees_what_the_stage_sees(cluster: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    before = signal.getsignal(signal.SIGTERM)
    with Shards(tmp_path / "x" / "shards", ON_RAY) as shards:
        (told,) = shards.made([Shard("told", partial(surroundings, tmp_path))])
        assert signal.getsignal(signal.SIGTERM) is before
    assert told.read_text() == "(1, '1', '1') True"


def test_an_error_of_a_task_is_the_stages(cluster: Any, tmp_path: Path) -> None:
    with pytest.raises(DarkroomError, match=r"^pictures/7.png: is torn; fetch it again$"):
        list(Shards(tmp_path / "shards", ON_RAY).made([Shard("torn", refused)]))


def test_scenes_are_prepared_to_the_same_bytes(cluster: Any, tmp_path: Path) -> None:
    preparation = Preparation.model_validate(PREPARATION)
    source = Scenes(900, 100, 100, 20, 0, 16)
    for name, settings in (("alone", ALONE), ("ray", ON_RAY)):
        prepare(source, tmp_path / name, preparation, shards=Shards(tmp_path / f"{name} shards", settings))
    assert content_hash(tmp_path / "alone") == content_hash(tmp_path / "ray")


def test_a_node_that_is_lost_costs_no_byte(cluster: Any, tmp_path: Path) -> None:
    """Last, for it takes a node from the cluster: killed while it works."""
    shards = [Shard(f"{i:02d}", partial(slow, f"shard {i}"), 1) for i in range(9)]
    made = Shards(tmp_path / "shards", ON_RAY).made(shards)
    first = next(made)
    cluster.remove_node(sorted(cluster.worker_nodes, key=lambda node: node.node_id)[0], allow_graceful=False)
    assert [path.read_text() for path in (first, *made)] == [f"shard {i}" for i in range(9)]
