"""Tasks done by a Ray cluster, whose nodes share the project's folder with this machine under the same path."""

import logging
import os
import signal
import threading
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any, TypeVar

import darkroom
from darkroom.core import device as devices
from darkroom.core.errors import DarkroomError
from darkroom.core.progress import Silence
from darkroom.core.tasks import Helpers, Pool

T = TypeVar("T")
U = TypeVar("U")
AHEAD = 8  # items read before a task on a GPU needs them
RETRIES = 10  # of a task whose node or process is lost
PASSED_ON = ("DARKROOM_", "PYTHON")  # how the variables of the environment begin that tasks see too
QUIET = {"RAY_USAGE_STATS_ENABLED": "0"}


def _ray() -> Any:
    try:
        import ray
    except ImportError:
        raise DarkroomError("DARKROOM_RAY is set, but Ray is not installed; pip install 'darkroom[ray]'") from None
    return ray


@contextmanager
def ray_pool(settings: devices.Runtime, light: bool) -> Iterator[Pool]:
    """The cluster that `settings.ray` names, for as long as the block lasts.

    Raises:
        DarkroomError: Ray is not installed, or no cluster is there.
    """
    os.environ.update(QUIET)
    ray = _ray()
    settings = settings.for_tasks()
    connected = not ray.is_initialized()
    if connected:
        _connect(ray, settings)
    try:
        yield RayPool(ray, settings, light)
    finally:
        if connected:
            ray.shutdown()


def _connect(ray: Any, settings: devices.Runtime) -> None:
    threads = str(settings.threads)
    package = str(Path(darkroom.__file__).parents[1])
    variables = {name: value for name, value in os.environ.items() if name.startswith(PASSED_ON)}
    variables |= {"DARKROOM_THREADS": threads, "OMP_NUM_THREADS": threads, "DARKROOM_RAY": "", **QUIET}
    variables["PYTHONPATH"] = os.pathsep.join(filter(None, [package, variables.get("PYTHONPATH")]))
    handlers = {number: signal.getsignal(number) for number in (signal.SIGTERM, signal.SIGINT)}
    try:
        ray.init(settings.ray, runtime_env={"env_vars": variables}, log_to_driver=False, logging_level=logging.ERROR)
    except (ConnectionError, TimeoutError, RuntimeError, ValueError) as error:
        raise DarkroomError(
            f"DARKROOM_RAY = {settings.ray!r}: no Ray cluster answers ({_line(error)}); start one with "
            "`ray start --head`, or unset DARKROOM_RAY"
        ) from None
    finally:  # Ray's own ends this process without a word
        if threading.current_thread() is threading.main_thread():
            for number, handler in handlers.items():
                signal.signal(number, handler)


def _line(error: Exception) -> str:
    return (str(error).strip().splitlines() or [type(error).__name__])[0]


class RayPool:
    """A cluster that does tasks: on its GPUs, where it has any, those that are not light."""

    def __init__(self, ray: Any, settings: devices.Runtime, light: bool) -> None:
        resources = ray.cluster_resources()
        gpus = 0 if light or settings.device == "cpu" else int(resources.get("GPU", 0))
        cpus = int(resources.get("CPU", 0))
        if not gpus and cpus < settings.threads:
            raise DarkroomError(
                f"DARKROOM_RAY = {settings.ray!r}: the cluster has {cpus} CPUs, and a task takes threads = "
                f"{settings.threads}; set DARKROOM_THREADS to fewer"
            )
        needs: dict[str, Any] = {"num_gpus": 1, "num_cpus": 0} if gpus else {"num_cpus": settings.threads}
        if settings.device == "auto" and not gpus:
            settings = replace(settings, device="cpu")
        self._ray, self._context = ray, (settings, Path.cwd(), bool(gpus))
        self._remote = ray.remote(max_retries=RETRIES, **needs)(_run)
        self.name = f"Ray: {gpus} GPUs" if gpus else f"Ray: {cpus} CPUs, threads of a task: {settings.threads}"
        self.depth = 2 * (gpus or cpus // settings.threads)

    def submit(self, task: Callable[[], T]) -> "_Submitted":
        """Have a node do a task, which goes there pickled."""
        return _Submitted(self._ray, self._remote.remote(task, *self._context))


class _Submitted:
    def __init__(self, ray: Any, reference: Any) -> None:
        self._ray, self._reference = ray, reference

    def result(self) -> Any:
        try:
            return self._ray.get(self._reference)
        except self._ray.exceptions.RayError as error:
            cause = getattr(error, "cause", error)
            if not isinstance(cause, self._ray.exceptions.RayError):
                raise cause from None
            raise DarkroomError(
                f"a task on the Ray cluster did not end ({_line(error)}); run again: finished shards are kept"
            ) from None


def _run(task: Callable[[], T], settings: devices.Runtime, project: Path, on_gpu: bool) -> T:
    """On a node: a task, as the stage would have done it."""
    os.chdir(project)
    Silence.kept, Helpers.read_ahead = True, read_ahead if on_gpu else None
    devices.start(settings)
    return task()


def read_ahead(read: Callable[[T], U], items: Iterable[T]) -> Iterator[U]:
    """In a task: read(item) of each item, in order, some ahead, by tasks of one CPU each on any node."""
    ray = _ray()
    remote = ray.remote(num_cpus=1, max_retries=RETRIES)(_read)
    waiting: deque[Any] = deque()
    for item in items:
        waiting.append(remote.remote(read, item, Path.cwd()))
        if len(waiting) > AHEAD:
            yield ray.get(waiting.popleft())
    while waiting:
        yield ray.get(waiting.popleft())


def _read(read: Callable[[T], U], item: T, project: Path) -> U:
    os.chdir(project)
    return read(item)
