"""A real Ray cluster on this machine, with nodes of one CPU each."""

import os
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

STORE = 80 << 20  # bytes of a node's object store


@contextmanager
def ray_cluster(nodes: int) -> Iterator[Any]:
    """ray.cluster_utils.Cluster; RAY_ADDRESS names it within the block, so that DARKROOM_RAY=auto finds it."""
    os.environ["RAY_USAGE_STATS_ENABLED"] = "0"
    from ray.cluster_utils import Cluster

    node = {"num_cpus": 1, "num_gpus": 0, "object_store_memory": STORE, "dashboard_host": "127.0.0.1"}
    cluster = Cluster(initialize_head=True, head_node_args={**node, "include_dashboard": False})
    try:
        for _ in range(nodes - 1):
            cluster.add_node(**node)
        before = os.environ.get("RAY_ADDRESS")
        os.environ["RAY_ADDRESS"] = cluster.address
        yield cluster
    finally:
        os.environ.pop("RAY_ADDRESS", None)
        if before is not None:
            os.environ["RAY_ADDRESS"] = before
        cluster.shutdown()
