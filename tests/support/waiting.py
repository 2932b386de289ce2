"""Makers and readers of logbooks whose stage is gone."""

from pathlib import Path
from typing import Any

from PIL import Image

from darkroom.core.artifact import content_hash, write_json
from darkroom.tracking.note import Account
from darkroom.tracking.outbox.event_log import EventLog
from darkroom.tracking.outbox.events import Begin, End, Event, File, Metrics, Picture, Tags
from darkroom.tracking.outputs import describe_outputs

UNET = Path("artifacts/unet")
NOW = 1_700_000_000_000  # milliseconds since 1970


def begin(stage: str, **more: Any) -> Begin:
    """The beginning of a run that belongs to the project's own store."""
    return Begin(**{"stage": stage, "time": NOW, "store": "", "params": {}, "tags": {}, "inputs": {}} | more)


def left(begin: Begin, *events: Event) -> Path:
    """The folder of an event log whose stage is gone."""
    event_log = EventLog.create(begin)
    for event in events:
        event_log.append(event)
    event_log.release()
    return event_log.folder


def told(folder: Path) -> list[Event | None]:
    """What a later process reads in an event log."""
    event_log = EventLog.claim(folder)
    if event_log is None:
        return []
    events = [event for event, _ in event_log.events()]
    event_log.release()
    return events


def made_by_a_stage(stage: str, event_log: EventLog, inputs: dict[str, str]) -> list[Event]:
    """One of everything, with the files that belong to it in the log and on disk."""
    write_json(UNET / "config.json", {"of": stage})
    (UNET / "weights.safetensors").write_bytes(stage.encode() * 100)
    account = Account(stage, {"steps": 3}, inputs, {}, {"device": "cpu"}, "", False, {str(UNET): content_hash(UNET)})
    picture = event_log.keep("step_000100.png", Image.new("RGB", (6, 4), "red").save)
    text = event_log.keep("notes.txt", lambda path: path.write_text("ü", encoding="utf-8"))
    return [
        *(Metrics(step, NOW + step, {"loss": 1 / (step + 1), "nan": float("nan")}) for step in range(20)),
        File("notes/notes.txt", text),
        Tags({"resumed.from_step": "5"}),
        Picture("samples", 100, NOW + 30, picture),
        Metrics(20, NOW + 40, {"loss": 0.01}),
        describe_outputs(account, copy_mib=64.0),
        End("FINISHED", NOW + 5000),
    ]
