"""The queue of a served model: turns, how many wait and how long, errors, and the signals that end it."""

import signal
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace

import pytest

from darkroom.serving import queueing
from darkroom.serving.limits import BusyError, Limits
from darkroom.serving.queueing import Queue, Watch, end_with_the_server


@pytest.fixture(autouse=True)
def goes_on() -> Iterator[None]:
    yield
    queueing.ending.clear()


def test_requests_take_turns_in_order_and_only_so_many_wait() -> None:
    limits = Limits(at_work=2, waiting=3, seconds=100)
    queue, free = Queue(limits), threading.Event()
    order: list[int] = []
    most, now, lock = [0], [0], threading.Lock()

    def work(number: int) -> int:
        with lock:
            now[0] += 1
            most[0] = max(most[0], now[0])
            order.append(number)
        assert free.wait(20)
        with lock:
            now[0] -= 1
        return number

    with ThreadPoolExecutor(5) as pool:
        there = []
        for number in range(5):
            there.append(pool.submit(queue.do, lambda n=number: work(n), Watch(limits)))
            time.sleep(0.1)
        with pytest.raises(BusyError, match=r"requests at once = 6: 2 at work .* and 3 waiting") as refused:
            queue.do(lambda: 0, Watch(limits))
        assert refused.value.status == 429
        free.set()
        assert [one.result(20) for one in there] == list(range(5))
    assert order == sorted(order)
    assert most == [2]
    assert queue.do(lambda: 7, Watch(limits)) == 7


def test_who_waits_too_long_is_told_so_and_its_work_is_never_begun() -> None:
    limits = Limits(waiting=3, seconds=1)
    queue, free, begun = Queue(limits), threading.Event(), threading.Event()
    with ThreadPoolExecutor(1) as pool:
        long = pool.submit(queue.do, lambda: free.wait(30), Watch(replace(limits, seconds=100)))
        time.sleep(0.1)
        with pytest.raises(BusyError, match=r"seconds = \d+\.\d, waiting for others"):
            queue.do(begun.set, Watch(limits))
        free.set()
        assert long.result(30)
        assert queue.do(lambda: 1, Watch(limits)) == 1
    assert not begun.is_set()


def test_an_error_of_the_work_is_the_error_of_its_request() -> None:
    """A TimeoutError too, which a queue could take for its own."""
    queue = Queue(Limits())
    for error in (TimeoutError("mine"), ValueError("mine")):

        def work(raised: Exception = error) -> None:
            raise raised

        with pytest.raises(type(error), match="mine"):
            queue.do(work, Watch(Limits()))


def test_signals_are_taken_along_where_a_server_took_them_and_left_alone_elsewhere() -> None:
    """Catches a notebook that no Ctrl-C interrupts, and a server that does not tell its work of the end."""
    took: list[int] = []
    before = {number: signal.getsignal(number) for number in (signal.SIGTERM, signal.SIGINT)}
    try:
        signal.signal(signal.SIGTERM, signal.SIG_DFL)
        signal.signal(signal.SIGINT, signal.default_int_handler)
        end_with_the_server()
        assert signal.getsignal(signal.SIGTERM) is signal.SIG_DFL
        assert signal.getsignal(signal.SIGINT) is signal.default_int_handler
        signal.signal(signal.SIGTERM, lambda number, frame: took.append(number))
        end_with_the_server()
        signal.raise_signal(signal.SIGTERM)
        assert took == [signal.SIGTERM]
        assert queueing.ending.is_set()
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
