"""What docs/remotes.md takes as given, for real and on loopback: a PostgreSQL cluster and a server of buckets."""

import os
import pwd
import shutil
import subprocess
import tempfile
import time
from pathlib import Path
from typing import Any

from tests.support.ports import free_port

ADMIN = "postgres"
STARTS_WITHIN = 120  # seconds


def programs() -> Path | None:
    """The folder of PostgreSQL's programs: on the PATH, or where Debian puts them."""
    if found := shutil.which("initdb"):
        return Path(found).resolve().parent
    return max(Path("/usr/lib/postgresql").glob("*/bin"), default=None, key=lambda one: int(one.parent.name))


def why_no_cluster() -> str:
    """Why PostgreSQL cannot run here; "" where it can. It does not run as root, but as a user who may have no login."""
    if programs() is None:
        return "PostgreSQL is not installed: apt-get install postgresql"
    try:
        pwd.getpwnam(ADMIN)
    except KeyError:
        return f"PostgreSQL does not run as root, and there is no user {ADMIN}" if os.geteuid() == 0 else ""
    return ""


class Cluster:
    """A PostgreSQL cluster of its own: a password for connections by TCP, none through its socket, for ADMIN."""

    def __init__(self) -> None:
        found = programs()
        assert found is not None
        self.programs, self.port = found, free_port()
        self.folder = Path(tempfile.mkdtemp(prefix="darkroom-postgres-"))  # pytest's are closed to other users
        self._server: subprocess.Popen[bytes] | None = None
        self._user: dict[str, Any] = {}
        if os.geteuid() == 0:
            owner = pwd.getpwnam(ADMIN)
            self._user = {"user": owner.pw_uid, "group": owner.pw_gid, "extra_groups": []}
            os.chown(self.folder, owner.pw_uid, owner.pw_gid)
        make = ["initdb", "--username", ADMIN, "--auth-local", "trust", "--auth-host", "scram-sha-256", "--no-sync"]
        self._run(*make, "--pgdata", str(self.folder / "data"))

    @property
    def environment(self) -> dict[str, str]:
        """For an administrator's commands."""
        return {"PGHOST": str(self.folder), "PGPORT": str(self.port), "PGUSER": ADMIN, "PGDATABASE": ADMIN}

    def start(self) -> None:
        words = ["-D", str(self.folder / "data"), "-p", str(self.port), "-h", "127.0.0.1", "-k", str(self.folder)]
        with (self.folder / "log").open("ab") as log:
            command = [str(self.programs / "postgres"), *words, "-c", "fsync=off"]
            self._server = subprocess.Popen(command, cwd=self.folder, stdout=log, stderr=log, **self._user)
        deadline = time.monotonic() + STARTS_WITHIN
        ready = [str(self.programs / "pg_isready"), "--quiet"]
        while subprocess.run(ready, env=os.environ | self.environment, check=False).returncode:
            assert time.monotonic() < deadline, (self.folder / "log").read_text()
            assert self._server.poll() is None, (self.folder / "log").read_text()
            time.sleep(0.1)

    def stop(self) -> None:
        """At once: clients lose their connections."""
        if self._server is not None:
            self._run("pg_ctl", "stop", "--mode", "immediate", "--pgdata", str(self.folder / "data"))
            self._server.wait()
            self._server = None

    def close(self) -> None:
        self.stop()
        shutil.rmtree(self.folder)

    def psql(self, database: str, statement: str) -> str:
        return self._run("psql", "--no-psqlrc", "--tuples-only", "--no-align", "-d", database, "-c", statement)

    def dump(self) -> str:
        """All databases and roles, as text."""
        return self._run("pg_dumpall")

    def _run(self, program: str, *arguments: str) -> str:
        done: subprocess.CompletedProcess[str] = subprocess.run(
            [str(self.programs / program), *arguments],
            cwd=self.folder,
            env=os.environ | self.environment,
            capture_output=True,
            text=True,
            check=False,
            **self._user,
        )
        assert done.returncode == 0, done.stdout + done.stderr
        return done.stdout


class Buckets:
    """A server of buckets, moto's, in this process: everything is in memory, and stays there while it is stopped."""

    def __init__(self) -> None:
        self.port = free_port()
        self.address = f"http://127.0.0.1:{self.port}"
        self._server: Any = None

    def start(self) -> None:
        from moto.server import ThreadedMotoServer

        self._server = ThreadedMotoServer("127.0.0.1", self.port, verbose=False)
        self._server.start()

    def stop(self) -> None:
        if self._server is not None:
            self._server.stop()
            self._server = None

    def _backend(self) -> Any:
        from moto.backends import get_backend
        from moto.core import DEFAULT_ACCOUNT_ID

        return get_backend("s3")[DEFAULT_ACCOUNT_ID]["aws"]

    def take_away(self, bucket: str) -> Any:
        """Have a bucket be gone, with all it holds; what `put_back` takes."""
        return self._backend().buckets.pop(bucket)

    def put_back(self, bucket: Any) -> None:
        self._backend().buckets[bucket.name] = bucket

    def contents(self, bucket: str) -> dict[str, bytes]:
        """Every object, by its key."""
        return {str(key): bytes(one.value) for key, one in self._backend().buckets[bucket].keys.items()}
