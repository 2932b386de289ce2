"""The output of a stage made shard by shard, each a file that waits in `.checkpoints/` until all are there.

A stage that is killed loses the shards that were under way and no others. The folder's name is a fingerprint of all
that makes the output (see runner.resuming), so a file that lies there is right, whoever made it.
"""

import os
import shutil
import tempfile
import uuid
from collections import deque
from collections.abc import Callable, Generator, Iterable, Sequence
from contextlib import AbstractContextManager, ExitStack, closing, nullcontext
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from types import TracebackType

from darkroom.core import device as devices
from darkroom.core.artifact import name_errors
from darkroom.core.checkpoint import sync
from darkroom.core.pools import pool
from darkroom.core.progress import Progress
from darkroom.core.tasks import Pending, Pool


@dataclass(frozen=True)
class Shard:
    """name: of its file. write: a pure function, which pickles, that writes the file at the path it is given.

    size: the units of work in it, for progress.
    """

    name: str
    write: Callable[[Path], None]
    size: int = 0


class Shards:
    """Makes shards, by whoever the settings name: in a `with` block, by the same processes to its end.

    Args:
        folder: of the output's fingerprint; None: one that goes with this object, for what is made anew each time.
        settings: None: those of this process.

    made_by: who did, if it was not this process.
    """

    def __init__(self, folder: Path | None = None, settings: devices.Runtime | None = None) -> None:
        self._folder, self._settings = folder, settings
        self._aside: tempfile.TemporaryDirectory[str] | None = None
        self.made_by = ""
        self._stack: ExitStack | None = None
        self._pools: dict[bool, Pool] = {}

    def __enter__(self) -> "Shards":
        self._stack = ExitStack()
        return self

    def __exit__(self, kind: type[BaseException] | None, value: BaseException | None, tb: TracebackType | None) -> None:
        stack, self._stack = self._stack, None
        self._pools.clear()
        if stack is not None:
            stack.__exit__(kind, value, tb)

    @property
    def folder(self) -> Path:
        """In which the shards wait."""
        if self._folder is not None:
            return self._folder.absolute()
        if self._aside is None:
            self._aside = tempfile.TemporaryDirectory(prefix="darkroom_")
        return Path(self._aside.name)

    def _pool(self, light: bool) -> AbstractContextManager[Pool]:
        if self._stack is None:
            return pool(self.settings, light)
        if light not in self._pools:
            self._pools[light] = self._stack.enter_context(pool(self.settings, light))
        return nullcontext(self._pools[light])

    @property
    def settings(self) -> devices.Runtime:
        """By which it is settled who makes them."""
        return self._settings or devices.runtime()

    def all(self, shards: Sequence[Shard], description: str, unit: str) -> list[Path]:
        """The files of all shards; those that lie there already are not made again.

        description, unit: of the progress, which tasks in this process tell in more detail than this does.
        """
        elsewhere = bool(self.settings.ray) or self.settings.processes > 1
        silent = nullcontext(None)
        with Progress(sum(shard.size for shard in shards), description, unit) if elsewhere else silent as bar:
            files = []
            with closing(self.made(shards)) as made:
                for file, shard in zip(made, shards, strict=True):
                    files.append(file)
                    if bar is not None:
                        bar.update(shard.size)
        return files

    def made(self, shards: Iterable[Shard], light: bool = False) -> Generator[Path]:
        """The file of each shard, in order, as soon as it and those before it are there.

        Close it where it is not taken to its end. light: see `pools.pool`.
        """
        folder = self.folder
        folder.mkdir(parents=True, exist_ok=True)
        waiting: deque[tuple[Path, Pending[None] | None]] = deque()
        with self._pool(light) as helpers:
            self.made_by = helpers.name or self.made_by
            for shard in shards:
                path = folder / shard.name
                there = path.is_file()
                waiting.append((path, None if there else helpers.submit(partial(_write, shard.write, path))))
                while len(waiting) > helpers.depth:
                    yield _finished(*waiting.popleft())
            while waiting:
                yield _finished(*waiting.popleft())


def _finished(path: Path, pending: Pending[None] | None) -> Path:
    if pending is not None:
        pending.result()
    return path


def _write(write: Callable[[Path], None], path: Path) -> None:
    """The file appears with all that is in it; a second attempt elsewhere does not disturb the first."""
    beside = path.with_name(f".{path.name}.{uuid.uuid4().hex}.partial")
    try:
        with name_errors(path):
            write(beside)
            sync(beside)
            beside.replace(path)
    finally:
        beside.unlink(missing_ok=True)


def take_over(source: Path, target: Path) -> None:
    """Have a finished shard stand in the output too: the same file under a second name, or a copy of it."""
    try:
        os.link(source, target)
    except OSError:
        shutil.copyfile(source, target)
