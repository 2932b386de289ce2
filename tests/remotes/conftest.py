"""The services of docs/remotes.md, set up once as the page says."""

import sys
from collections.abc import Iterator

import pytest

from tests.support.remotes import Buckets, Cluster, why_no_cluster
from tests.support.remotes_page import Walkthrough

NEEDED = {"psycopg": "server", "flask_wtf": "server", "boto3": "s3", "dvc_s3": "s3", "moto": "test"}  # and their extras
SETUP = ("What is installed", "The database", "The server")


@pytest.fixture(scope="session")
def cluster() -> Iterator[Cluster]:
    """A PostgreSQL cluster, or a skip that says what is missing."""
    if why := why_no_cluster():
        pytest.skip(why)
    for name, extra in NEEDED.items():
        pytest.importorskip(name, reason=f"{name} is not installed: pip install 'darkroom[{extra}]'")
    cluster = Cluster()
    try:
        cluster.start()
        yield cluster
    finally:
        cluster.close()


@pytest.fixture(scope="session")
def buckets(cluster: Cluster) -> Iterator[Buckets]:
    buckets = Buckets()
    buckets.start()
    yield buckets
    buckets.stop()


@pytest.fixture(scope="session")
def walkthrough(cluster: Cluster, buckets: Buckets, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Walkthrough]:
    """The page, followed up to a server that runs and knows a user."""
    walkthrough = Walkthrough(tmp_path_factory.mktemp("home"), cluster, buckets)
    walkthrough.write_files()
    installed = walkthrough.place / ".venv"
    installed.symlink_to(sys.prefix)
    try:
        for heading in SETUP:
            walkthrough.follow(heading, walkthrough.place, cluster.environment if heading == "The database" else None)
        installed.unlink()
        yield walkthrough
    finally:
        walkthrough.close()
