"""What long work says while it runs."""

import io
import sys
from collections.abc import Callable

import pytest

from darkroom.core import progress
from darkroom.core.progress import Progress, track

Lines = Callable[[], list[str]]


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    """The seconds the clock shows."""
    now = [100.0]
    monkeypatch.setattr(progress.time, "monotonic", lambda: now[0])
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
    assert said[0] == "train_unet: 5/100 steps  1/s  95 s left  loss 0.25"


def test_the_last_line_says_how_long_it_took(clock: list[float], lines: Lines) -> None:
    with Progress(3, "embed", "caption") as bar:
        for _ in range(3):
            clock[0] += 0.5
            bar.update()
    assert lines() == ["embed: 3/3 captions  2/s  2 s"]


def test_work_done_in_an_earlier_session_does_not_count_for_the_rate(clock: list[float], lines: Lines) -> None:
    with Progress(100, "train") as bar:
        bar.start_at(90)
        clock[0] += 5
        bar.update(5)
    assert lines()[0] == "train: 95/100 steps  1/s  5 s left"


def test_nothing_left_to_do_takes_no_time(clock: list[float], lines: Lines) -> None:
    with Progress(0, "embed", "caption"):
        pass
    assert lines() == ["embed: 0/0 captions  0/s  0 s"]
    with Progress(100, "train") as bar:
        bar.start_at(100)
    assert lines() == ["train: 100/100 steps  0/s  0 s"]


def test_work_that_failed_does_not_claim_its_end(clock: list[float], lines: Lines) -> None:
    def fail() -> None:
        with Progress(3, "train"):
            raise ValueError

    with pytest.raises(ValueError):
        fail()
    assert lines() == []


def test_tracked_items_pass_unchanged(clock: list[float], lines: Lines) -> None:
    assert list(track("abc", 3, "scan", "file")) == ["a", "b", "c"]
    assert lines() == ["scan: 3/3 files  3e+09/s  0 s"]


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
