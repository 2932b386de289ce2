"""Work done ahead: in order, by any number of processes, that end with the one they work for and are missed if lost.

It would catch results that come as they are finished, a source that is read to its end at once, processes left behind
by an error or a killed stage, and a stage that waits for ever for a process that the system ended.
"""

import multiprocessing
import os
import signal
import subprocess
import sys
import time
from collections import deque
from collections.abc import Callable, Generator, Iterable, Iterator
from concurrent.futures import Future
from contextlib import closing
from functools import partial
from typing import TypeVar

import psutil
import pytest

from darkroom.core import ahead
from darkroom.core.errors import DarkroomError

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="processes are forks")

T = TypeVar("T")
U = TypeVar("U")


def in_processes(make: Callable[[T], U], items: Iterable[T], number: int) -> Generator[U]:
    """make(item) of each item in order, by forks, as `Shards` has it."""
    waiting: deque[Future[U]] = deque()
    with ahead.forked(number) as processes:
        for item in items:
            waiting.append(processes.submit(partial(make, item)))
            if len(waiting) > processes.depth:
                yield waiting.popleft().result()
        while waiting:
            yield waiting.popleft().result()


def slow_square(n: int) -> int:
    time.sleep(0.02 * (n % 3))
    return n * n


def failing(n: int) -> int:
    if n == 5:
        raise DarkroomError("five")
    return n


def ended(n: int) -> int:
    if n == 2:
        os.kill(os.getpid(), signal.SIGKILL)
    return n


def whole_and_slow(item: bytes) -> bytes:
    time.sleep(0.1)
    return item


def none_left() -> bool:
    end = time.monotonic() + 10
    while multiprocessing.active_children() and time.monotonic() < end:
        time.sleep(0.02)
    return not multiprocessing.active_children()


def test_results_of_processes_come_in_order() -> None:
    assert list(in_processes(slow_square, range(20), 3)) == [n * n for n in range(20)]
    assert none_left()


def test_results_of_a_thread_come_in_order() -> None:
    assert list(ahead.in_thread(slow_square, range(10), 3)) == [n * n for n in range(10)]


@pytest.mark.parametrize("kind", ["thread", "processes"])
def test_it_is_only_some_items_ahead(kind: str) -> None:
    taken: list[int] = []

    def items() -> Iterator[int]:
        for n in range(100):
            taken.append(n)
            yield n

    made = ahead.in_thread(failing, items(), 4) if kind == "thread" else in_processes(failing, items(), 2)
    with closing(made) as results:
        assert next(results) == 0
        assert len(taken) == 5
    assert none_left()


def test_what_waits_is_made_in_its_turn() -> None:
    """Hard negatives found with weights of some steps ago would be others than after a resume at that step."""
    turn, early = 0, list[int]()

    def make(n: int) -> int:
        early.append(n - turn)
        assert n % 5 or n == turn
        return n

    with closing(ahead.in_thread(make, range(20), 4, lambda n: n % 5 == 0)) as made:
        for turn in range(20):
            assert next(made) == turn
    assert 1 < max(early) <= 4


def test_an_error_made_ahead_is_raised_in_its_turn() -> None:
    def make(n: int) -> int:
        if n == 2:
            raise ValueError("picture 7 is torn")
        return n

    with closing(ahead.in_thread(make, range(9), 4)) as made:
        assert [next(made), next(made)] == [0, 1]
        with pytest.raises(ValueError, match="picture 7 is torn"):
            next(made)


def test_an_error_is_the_callers_and_leaves_no_process() -> None:
    with pytest.raises(DarkroomError, match="five"):
        list(in_processes(failing, range(20), 2))
    assert none_left()


def test_a_process_that_the_system_ends_is_an_error() -> None:
    with pytest.raises(DarkroomError, match=r"ended from outside.*set DARKROOM_THREADS to fewer"):
        list(in_processes(ended, range(20), 2))
    assert none_left()


def test_processes_end_with_the_one_they_work_for() -> None:
    code = (
        "import time\nfrom tests.core.test_ahead import in_processes\n"
        "made = in_processes(time.sleep, [0, 600, 600, 600, 600, 600], 2)\n"
        "next(made)\nprint('begun', flush=True)\ntime.sleep(600)\n"
    )
    leader = subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE)
    try:
        assert leader.stdout is not None
        assert leader.stdout.readline() == b"begun\n"
        children = psutil.Process(leader.pid).children()
        assert len(children) == 2
    finally:
        leader.kill()
        leader.communicate()
    _, alive = psutil.wait_procs(children, timeout=10)
    assert not alive


def test_a_stage_that_is_ended_ends_though_large_items_wait() -> None:
    """A pool whose processes are killed leaves a thread that waits for ever for one to take the next item."""
    code = (
        "import sys\nfrom contextlib import closing\nfrom tests.core.test_ahead import in_processes, whole_and_slow\n"
        "with closing(in_processes(whole_and_slow, (bytes(4 << 20) for _ in range(500)), 2)) as made:\n"
        "    next(made)\n    sys.exit(3)\n"
    )
    assert subprocess.run([sys.executable, "-c", code], timeout=120, check=False).returncode == 3
