"""A run's event log: every event of a stage is in it, in order, whatever became of the stage."""

import os
import random
import resource
import signal
from collections.abc import Callable
from types import ModuleType

from darkroom.tracking.outbox.event_log import EVENTS, EventLog
from darkroom.tracking.outbox.events import (
    Begin,
    End,
    Event,
    File,
    Metrics,
    Outputs,
    Picture,
    Tags,
    from_line,
    to_line,
)
from darkroom.tracking.outbox.pending import pending
from darkroom.tracking.outbox.upload import BATCH, _batches


def in_child(work: Callable[[], None]) -> int:
    """Run `work` in a process of its own; how that ended, as os.waitpid says."""
    child = os.fork()
    if child == 0:
        try:
            work()
        finally:
            os._exit(1)
    return os.waitpid(child, 0)[1]


def some_event(draw: random.Random) -> Event:
    def text() -> str:
        return "".join(draw.choice('aZ9 /%ß漢\n\\"\u2028\x00😀') for _ in range(draw.randrange(9)))

    def number() -> float:
        return draw.choice([draw.gauss(0, 1), draw.gauss(0, 1) * 10 ** draw.randrange(-300, 300), float("inf"), -0.0])

    texts = {text(): text() for _ in range(draw.randrange(4))}
    values = {text(): number() for _ in range(draw.randrange(400))}
    return draw.choice(
        [
            Begin(text(), draw.randrange(2**45), text(), {text(): [1, None, number()]}, texts, texts),
            Metrics(draw.randrange(2**40), draw.randrange(2**45), values),
            Metrics(draw.randrange(2**40), draw.randrange(2**45), {"loss": number()}),
            Tags(texts),
            File(text(), text()),
            Picture(text(), draw.randrange(2**40), draw.randrange(2**45), text()),
            Outputs({"figures": values}, text(), {text(): 1}, {text(): [text()]}, [text()]),
            End(text(), draw.randrange(2**45)),
        ]
    )


def test_an_event_is_one_line_and_comes_back_as_it_was() -> None:
    draw = random.Random(0)
    for _ in range(300):
        event = some_event(draw)
        line = to_line(event)
        assert line.count(b"\n") == 1
        assert from_line(line) == event
    nan = from_line(to_line(Metrics(0, 0, {"loss": float("nan")})))
    assert repr(nan) == repr(Metrics(0, 0, {"loss": float("nan")}))
    for line in (b"\n", b"{}\n", b"3\n", b'{"kind":"fax"}\n', b'{"kind":"tags"}\n', b"\xff\n", to_line(event)[:-9]):
        assert from_line(line) is None


def test_the_outputs_of_an_earlier_version_are_read() -> None:
    """Catches runs that wait while Darkroom is updated, and arrive without their outputs."""
    outputs = Outputs({}, "/root", {"a": 1}, {"a": ["a"]}, ["a"])
    assert from_line(to_line(outputs).replace(b'"complete"', b'"whole"')) == outputs


def test_what_is_sent_together_is_everything_in_order(waiting: ModuleType) -> None:
    draw = random.Random(1)
    events = [waiting.begin("portions"), *(some_event(draw) for _ in range(300))]
    event_log = EventLog.create(waiting.begin("portions"))
    for event in events[1:]:
        event_log.append(event)
    portions = list(_batches(event_log))
    assert [event for portion, _ in portions for event in portion] == events
    for portion, _ in portions:
        points = sum(len(event.values) for event in portion if isinstance(event, Metrics))
        assert len(portion) == 1 or (points <= BATCH and all(isinstance(event, Metrics) for event in portion))
    assert any(len(portion) > 1 for portion, _ in portions)
    sizes = {after: len(portion) for portion, after in portions}
    event_log.save_progress("run", sorted(sizes)[9], ended=False)
    assert list(_batches(event_log)) == portions[10:], "goes on where it stopped"
    event_log.release()


def test_a_line_torn_anywhere_costs_that_line_only(waiting: ModuleType) -> None:
    events = [
        waiting.begin("torn"),
        Metrics(1, waiting.NOW, {"loss": 0.5}),
        Tags({"a": "ü"}),
        End("FINISHED", waiting.NOW),
    ]
    folder = waiting.left(*events)  # type: ignore[arg-type]
    whole = (folder / EVENTS).read_bytes()
    for cut in range(len(whole), -1, -1):
        folder.mkdir(exist_ok=True)
        (folder / EVENTS).write_bytes(whole[:cut])
        assert waiting.told(folder) == events[: whole[:cut].count(b"\n")]
    assert not folder.exists(), "without a beginning there is nothing to send"


def test_a_torn_line_is_gone_before_the_next_is_written(waiting: ModuleType) -> None:
    folder = waiting.left(waiting.begin("torn"))
    with (folder / EVENTS).open("ab") as file:
        file.write(b'{"kind": "met')
    event_log = EventLog.claim(folder)
    assert event_log is not None
    event_log.append(End("KILLED", waiting.NOW))
    event_log.release()
    assert waiting.told(folder) == [waiting.begin("torn"), End("KILLED", waiting.NOW)]


def test_a_stage_killed_with_signal_9_leaves_all_it_told(waiting: ModuleType) -> None:
    def work() -> None:
        event_log = EventLog.create(waiting.begin("killed"))
        for step in range(500):
            event_log.append(Metrics(step, waiting.NOW, {"loss": 1 / (step + 1)}))
        os.kill(os.getpid(), signal.SIGKILL)

    assert in_child(work) == signal.SIGKILL
    (found,) = pending()
    assert (found.stage, found.began, found.run) == ("killed", waiting.NOW, None)
    assert waiting.told(found.folder)[1:] == [
        Metrics(step, waiting.NOW, {"loss": 1 / (step + 1)}) for step in range(500)
    ]


def test_a_full_disk_costs_what_is_told_meanwhile(waiting: ModuleType) -> None:
    def work() -> None:
        signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
        event_log = EventLog.create(waiting.begin("full"))
        resource.setrlimit(resource.RLIMIT_FSIZE, (1000, resource.RLIM_INFINITY))
        refused = 0
        for step in range(100):
            if step == 90:
                resource.setrlimit(resource.RLIMIT_FSIZE, (resource.RLIM_INFINITY, resource.RLIM_INFINITY))
            try:
                event_log.append(Metrics(step, waiting.NOW, {"loss": 1.0}))
            except OSError:
                refused += 1
        os._exit(0 if refused > 50 else 2)

    assert in_child(work) == 0
    (found,) = pending()
    steps = [event.step for event in waiting.told(found.folder)[1:] if isinstance(event, Metrics)]
    assert None not in waiting.told(found.folder)
    assert steps[0] == 0
    assert steps[-10:] == list(range(90, 100))


def test_a_stage_at_work_is_left_alone(waiting: ModuleType) -> None:
    event_log = EventLog.create(waiting.begin("at work"))
    assert pending() == []
    assert EventLog.claim(event_log.folder) is None
    event_log.release()
    assert [found.stage for found in pending()] == ["at work"]
