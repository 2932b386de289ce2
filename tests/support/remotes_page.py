"""docs/remotes.md, followed: its files written, its commands run, with addresses and passwords of a test's own."""

import base64
import os
import re
import shlex
import signal
import subprocess
import sys
import time
import urllib.request
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from urllib.parse import quote, quote_plus

from tests.support.ports import free_port
from tests.support.projects import ROOT
from tests.support.remotes import Buckets, Cluster

PAGE = ROOT / "docs" / "remotes.md"
PART = re.compile(r"^## (.*)\n", re.MULTILINE)
BLOCK = re.compile(r"^```(\w+)\n(.*?)^```$", re.MULTILINE | re.DOTALL)
PLACEHOLDER = re.compile(r"^export (\w+)='…'$", re.MULTILINE)
BUCKET, USER = "darkroom-example", "me"
STARTS_WITHIN = 300  # seconds
# What the page leaves to its reader; each is looked for afterwards wherever it could have gone.
SECRETS = {
    "DATABASE_PASSWORD": 'd@ta/b:a#s%e "1"',
    "MLFLOW_AUTH_ADMIN_PASSWORD": "admin@h/e:i%m#-15",
    "MLFLOW_FLASK_SERVER_SECRET_KEY": "flask secret 16+/",
    "AWS_SECRET_ACCESS_KEY": "wJalrXUtnFEMI/K7MDENG+bPxRfiCYKEY",
    "MLFLOW_TRACKING_PASSWORD": "ge@h/e:i%m#-17",
}


def forms(secret: str) -> set[str]:
    """In which a secret could stand in a file."""
    logins = {base64.b64encode(f"{user}:{secret}".encode()).decode() for user in (USER, "admin", "mlflow")}
    return {secret, quote(secret, safe=""), quote(secret), quote_plus(secret), *logins}


@dataclass
class Walkthrough:
    """place: the home of whoever follows the page. said: all that its commands and the server said."""

    place: Path
    cluster: Cluster
    buckets: Buckets
    port: int = field(default_factory=free_port)
    said: list[str] = field(default_factory=list)
    _server: "subprocess.Popen[bytes] | None" = None

    @property
    def address(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    @property
    def log(self) -> Path:
        return self.place / "server.log"

    def parts(self) -> dict[str, list[tuple[str, str]]]:
        """{heading: [(kind of block, its text)]}, with this test's addresses."""
        text = PAGE.read_text(encoding="utf-8")
        for stands_for, own in {
            "127.0.0.1:5432": f"127.0.0.1:{self.cluster.port}",
            "--port 5432": f"--port {self.cluster.port}",
            "http://127.0.0.1:5000": self.address,
            "--port 5000": f"--port {self.port}",
            "http://127.0.0.1:9000": self.buckets.address,
        }.items():
            assert stands_for in text
            text = text.replace(stands_for, own)
        _, *found = PART.split(text)
        return {
            heading: [(kind, block) for kind, block in BLOCK.findall(part)]
            for heading, part in zip(found[::2], found[1::2], strict=True)
        }

    def write_files(self) -> None:
        """The files of the page, with what it leaves out."""
        values = SECRETS | {"AWS_ACCESS_KEY_ID": "AKIDEXAMPLE", "REPOSITORY": str(self.place / "repository.git")}
        for kind, block in (one for part in self.parts().values() for one in part):
            if kind in ("sh", "ini"):
                name = block.partition("\n")[0].removeprefix("# ~/")
                filled = PLACEHOLDER.sub(lambda found: f"export {found[1]}={shlex.quote(values[found[1]])}", block)
                assert "…" not in filled
                (self.place / name).write_text(filled)

    def environment(self, more: Mapping[str, str] | None = None) -> dict[str, str]:
        left_out = ("DARKROOM_", "MLFLOW_", "DVC_", "AWS_", "PG")
        kept = {name: value for name, value in os.environ.items() if not name.startswith(left_out)}
        path = f"{Path(sys.executable).parent}{os.pathsep}{self.cluster.programs}{os.pathsep}{os.environ['PATH']}"
        git = {f"GIT_{who}_{what}": "a@b" for who in ("AUTHOR", "COMMITTER") for what in ("NAME", "EMAIL")}
        quick = {"DARKROOM_THREADS": "1", "OMP_NUM_THREADS": "1", "AWS_MAX_ATTEMPTS": "1", "MLFLOW_WORKERS": "1"}
        installed = {"PIP_NO_INDEX": "1", "PIP_DISABLE_PIP_VERSION_CHECK": "1", "PIP_ROOT_USER_ACTION": "ignore"}
        loopback = {"NO_PROXY": "127.0.0.1", "no_proxy": "127.0.0.1"}
        return {**kept, **git, **quick, **installed, **loopback, "PATH": path, "HOME": str(self.place), **(more or {})}

    def follow(self, heading: str, folder: Path, more: Mapping[str, str] | None = None) -> str:
        """Run the commands of a part in a folder, each block in a shell of its own; what they said."""
        begun = len(self.said)
        for kind, block in self.parts()[heading]:
            if kind == "console":
                self.run_block(block, folder, self.environment(more))
        return "".join(self.said[begun:])

    def run_block(self, block: str, folder: Path, environment: Mapping[str, str]) -> None:
        """Run commands as the page has them; a server is left running."""
        commands = [line.removeprefix("$ ").removeprefix("> ") for line in block.splitlines()]
        assert all(line.startswith(("$ ", "> ")) for line in block.splitlines()), block
        script = "set -euo pipefail\n" + "\n".join(commands) + "\n"
        if re.search(r"^(\S+=\S+ )*mlflow server ", script, re.MULTILINE):
            return self._serve(script, folder, environment)
        done = subprocess.run(
            ["bash", "-c", script],
            cwd=folder,
            env=environment,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            check=False,
        )
        self.said.append(done.stdout)
        server = self.log.read_text() if self.log.exists() else ""
        assert done.returncode == 0, f"{script}\n{done.stdout[-4000:]}\n{server[-2000:]}"
        return None

    def _serve(self, script: str, folder: Path, environment: Mapping[str, str]) -> None:
        with self.log.open("ab") as log:
            self._server = subprocess.Popen(
                ["bash", "-c", script], cwd=folder, env=environment, stdout=log, stderr=log, start_new_session=True
            )
        deadline = time.monotonic() + STARTS_WITHIN
        while True:
            try:
                with urllib.request.urlopen(f"{self.address}/health", timeout=60):
                    return
            except OSError:
                assert self._server.poll() is None, self.log.read_text()
                assert time.monotonic() < deadline, self.log.read_text()
                time.sleep(0.1)

    def close(self) -> None:
        if self._server is not None:
            os.killpg(self._server.pid, signal.SIGKILL)
            self._server.wait()

    def places(self) -> Iterator[tuple[str, bytes]]:
        """Everything that was said, and all files, objects and tables that the page's commands can have made."""
        yield "what the commands said", "".join(self.said).encode()
        yield "the databases", self.cluster.dump().encode()
        yield from self.buckets.contents(BUCKET).items()
        for file in sorted(self.place.rglob("*")):
            if file.is_file() and file.parent != self.place and not {"cache", ".cache"} & {*file.parts}:
                yield str(file), file.read_bytes()
        yield str(self.log), self.log.read_bytes()

    def leaks(self) -> list[str]:
        """Where a secret stands, by its name."""
        looked_for = {name: [form.encode() for form in forms(secret)] for name, secret in SECRETS.items()}
        return [
            f"{name} in {where}"
            for where, content in self.places()
            for name, some in looked_for.items()
            if any(form in content for form in some)
        ]
