"""Signals are never lost, and never raise where that would drop them or leave a lock held."""

import importlib
import os
import signal
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

import pytest

from darkroom.core import interruption as module
from darkroom.core.interruption import Interrupted, Interruption

SOON = 2.0  # seconds
ASKED = "import os, signal\nos.kill(os.getpid(), signal.SIGTERM)\nlast = sum(range(100_000))\n"


@pytest.fixture
def interruption() -> Iterator[Interruption]:
    numbers = (signal.SIGTERM, signal.SIGINT, signal.SIGALRM)
    before = [signal.getsignal(number) for number in numbers]
    made = Interruption()
    made.listen()
    yield made
    made.settle()
    for number, handler in zip(numbers, before, strict=True):
        signal.signal(number, handler)


def pause(seconds: float = SOON) -> None:
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        time.sleep(0.01)


def test_elsewhere_a_signal_is_raised_at_once(interruption: Interruption) -> None:
    with pytest.raises(Interrupted, match="SIGTERM"):
        signal.raise_signal(signal.SIGTERM)
    assert interruption.asked == signal.SIGTERM


def test_an_import_ends_before_a_signal_is_raised(
    interruption: Interruption, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "asked_while_imported.py").write_text(ASKED)
    monkeypatch.syspath_prepend(tmp_path)

    def work() -> None:
        importlib.import_module("asked_while_imported")
        pause()

    with pytest.raises(Interrupted, match="SIGTERM"):
        work()
    assert sys.modules["asked_while_imported"].last == 4_999_950_000


def test_a_lock_that_is_being_taken_is_not_left_so(interruption: Interruption) -> None:
    condition = threading.Condition()
    with condition:
        other = threading.Thread(target=condition.__enter__, daemon=True)
        other.start()
        while (frame := sys._current_frames()[other.ident or 0]).f_code.co_name != "__enter__":
            time.sleep(0.01)
        assert frame.f_globals["__name__"] == "threading"
        interruption._take(signal.SIGTERM, frame)  # as if the main thread stood there
    with pytest.raises(Interrupted, match="SIGTERM"):
        pause()
    other.join()


def test_waiting_for_a_thread_is_broken_off(interruption: Interruption) -> None:
    over = threading.Event()
    threading.Timer(0.2, os.kill, [os.getpid(), signal.SIGTERM]).start()
    began = time.monotonic()
    with pytest.raises(Interrupted):
        over.wait(60)
    assert time.monotonic() - began < module.GRACE / 2


def test_what_does_not_come_out_of_an_import_is_broken_off(
    interruption: Interruption, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "GRACE", 0.3)
    (tmp_path / "stays_in_import.py").write_text(ASKED + "import time\ntime.sleep(60)\n")
    monkeypatch.syspath_prepend(tmp_path)
    began = time.monotonic()
    with pytest.raises(Interrupted):
        importlib.import_module("stays_in_import")
    assert 0.2 < time.monotonic() - began < SOON


def test_work_that_looks_itself_comes_to_its_point_and_a_second_signal_ends_it(interruption: Interruption) -> None:
    reached = list[int | None]()

    def work() -> None:
        with interruption.deferred():
            signal.raise_signal(signal.SIGTERM)
            pause(0.1)
            reached.append(interruption.asked)

    for _ in range(2):
        with pytest.raises(Interrupted, match="SIGTERM"):
            work()
    assert reached == [signal.SIGTERM]


def test_what_a_signal_raised_may_be_dropped_and_is_known_all_the_same(interruption: Interruption) -> None:
    with suppress(BaseException):  # as some libraries do
        signal.raise_signal(signal.SIGTERM)
    with pytest.raises(Interrupted, match="SIGTERM"), interruption.deferred():
        assert interruption.asked == signal.SIGTERM
