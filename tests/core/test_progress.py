"""What long work says while it runs."""

import io
import sys
from collections.abc import Callable

import pytest

from darkroom.core.progress import Progress, duration, track

Lines = Callable[[], list[str]]


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    """The seconds the clock shows."""
    now = [100.0]
    monkeypatch.setattr("darkroom.core.progress.time.monotonic", lambda: now[0])
    return now


@pytest.fixture
def lines(capsys: pytest.CaptureFixture[str]) -> Callable[[], list[str]]:
    """What has been said since the last look, where there is no terminal."""
    return lambda: capsys.readouterr().err.splitlines()


def test_a_line_every_few_seconds_with_rate_time_left_and_values(clock: list[float], lines: Lines) -> None:
    with Progress(100, "train_unet") as bar:
        for _ in range(40):
            clock[0] += 1
            bar.update(1, loss=0.25)
    said = lines()
    assert len(said) == 40 // 5 + 1
    assert said[0] == "train_unet: 5/100 steps  1/s  1 min 35 s left  loss 0.25"


def test_the_last_line_says_how_long_it_took(clock: list[float], lines: Lines) -> None:
    with Progress(3, "embed", "caption") as bar:
        for _ in range(3):
            clock[0] += 0.5
            bar.update()
    assert lines() == ["embed: 3/3 captions  2/s  1.5 s"]


def test_work_done_in_an_earlier_session_does_not_count_for_the_rate(clock: list[float], lines: Lines) -> None:
    with Progress(100, "train") as bar:
        bar.start_at(80)
        for _ in range(2):
            clock[0] += 5
            bar.update(5)
    assert lines()[1] == "train: 90/100 steps  1/s  10 s left"


def test_nothing_left_to_do_takes_no_time(clock: list[float], lines: Lines) -> None:
    with Progress(0, "embed", "caption"):
        pass
    assert lines() == ["embed: 0/0 captions  0 s"]
    with Progress(100, "train") as bar:
        bar.start_at(100)
    assert lines() == ["train: 100/100 steps  0 s"]


def test_the_first_step_which_compiles_says_nothing_of_the_others(clock: list[float], lines: Lines) -> None:
    """Catches a rate over all steps: after 40 s for the first one of 1000 it promised eleven hours."""
    with Progress(1000, "train") as bar:
        clock[0] += 40
        bar.update()
        assert lines() == ["train: 1/1000 steps"]
        for _ in range(10):
            clock[0] += 0.5
            bar.update()
        assert lines() == ["train: 11/1000 steps  2/s  8 min 14 s left"]


def test_the_rate_is_that_of_the_latest_minutes(clock: list[float], lines: Lines) -> None:
    """Catches a mean since the beginning, which a machine that was busy then keeps wrong for long."""
    with Progress(10_000, "train") as bar:
        for _ in range(100):
            clock[0] += 4
            bar.update()
        for _ in range(2000):
            clock[0] += 0.25
            bar.update()
        assert lines()[-1].endswith("  4/s  32 min 55 s left")


def test_a_time_in_which_the_process_was_stopped_does_not_count(
    clock: list[float], lines: Lines, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Catches SIGSTOP, Ctrl-Z or a sleeping machine in the rate, the time left and the time it took."""
    busy = [0.0]
    monkeypatch.setattr("darkroom.core.progress.time.process_time", lambda: busy[0])
    with Progress(100, "train") as bar:
        for step in range(100):
            stop = 3600 if step in (40, 41, 70) else 0
            clock[0] += 1 + stop
            busy[0] += 1
            bar.update()
            if step == 60:
                assert lines()[-1].split("  ")[1] == "1/s"
    assert lines()[-1] == "train: 100/100 steps  1/s  1 min 37 s"


def test_a_long_measurement_between_steps_does_count(
    clock: list[float], lines: Lines, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Catches work taken for a stop: held-out data are measured every so many steps, and will be again."""
    busy = [0.0]
    monkeypatch.setattr("darkroom.core.progress.time.process_time", lambda: busy[0])
    with Progress(200, "train") as bar:
        for step in range(100):
            took = 30 if step % 20 == 19 else 1
            clock[0] += took
            busy[0] += took
            bar.update()
    assert lines()[-1].endswith("  3.07 s/step  5 min 7 s left")  # the latest minutes hold more of those than is usual


@pytest.mark.parametrize(
    ("seconds", "said"),
    [
        (0, "0 s"),
        (0.44, "0.4 s"),
        (9.96, "10 s"),
        (59.7, "1 min"),
        (200, "3 min 20 s"),
        (3599.7, "1 h"),
        (7500, "2 h 5 min"),
        (86_399, "1 d"),
        (1e6, "11 d 14 h"),
    ],
)
def test_durations_are_read_at_a_glance(seconds: float, said: str) -> None:
    """Catches `8247 s left`, and 60 s or 60 min by rounding."""
    assert duration(seconds) == said


def test_work_that_is_over_soon_says_nothing(clock: list[float], lines: Lines) -> None:
    """Catches a line for every short piece of work, and silence in a long one."""
    with Progress(10, "audit", "file", after=1.5) as bar:
        clock[0] += 1
        bar.update(10)
    assert lines() == []
    with Progress(10, "audit", "file", after=1.5) as bar:
        for _ in range(4):
            clock[0] += 1
            bar.update(2)
    assert lines()[0].startswith("audit: 4/10 files")


def test_work_that_failed_does_not_claim_its_end(clock: list[float], lines: Lines) -> None:
    def fail() -> None:
        with Progress(3, "train"):
            raise ValueError

    with pytest.raises(ValueError):
        fail()
    assert lines() == []


def test_tracked_items_pass_unchanged(clock: list[float], lines: Lines) -> None:
    assert list(track("abc", 3, "scan", "file")) == ["a", "b", "c"]
    assert lines() == ["scan: 3/3 files  0 s"]


def test_a_terminal_gets_a_bar(monkeypatch: pytest.MonkeyPatch) -> None:
    class Terminal(io.StringIO):
        def isatty(self) -> bool:
            return True

    terminal = Terminal()
    monkeypatch.setattr(sys, "stderr", terminal)
    with Progress(4, "train") as bar:
        bar.update(4, loss=0.125)
    assert "train: 100%" in terminal.getvalue()
    assert "4/4" in terminal.getvalue()
