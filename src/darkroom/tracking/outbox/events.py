"""What a stage tracks: a closed set of kinds, each a line of JSON that can be sent at any later time."""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, get_args

# Times are in milliseconds since 1970. Files lie in the run's event log and are named relative to its folder.


@dataclass(frozen=True)
class Begin:
    """The run begins. `store`: the address it is meant for, "" the project's own. `inputs`: content by path."""

    stage: str
    time: int
    store: str
    params: Mapping[str, Any]
    tags: Mapping[str, str]
    inputs: Mapping[str, str]


@dataclass(frozen=True)
class Metrics:
    """A point for each of several curves."""

    step: int
    time: int
    values: Mapping[str, float]


@dataclass(frozen=True)
class Parameters:
    """Parameters that were known only later than the run began."""

    params: Mapping[str, Any]


@dataclass(frozen=True)
class Tags:
    """Tags of the run; of equal names the last one counts."""

    tags: Mapping[str, str]


@dataclass(frozen=True)
class File:
    """`file` is to be kept as the artifact `name`."""

    name: str
    file: str


@dataclass(frozen=True)
class Picture:
    """A PNG in the row `name` over the steps."""

    name: str
    step: int
    time: int
    file: str


@dataclass(frozen=True)
class Outputs:
    """What the stage wrote, all relative to the folder `root`.

    account: a `note.Account`. sizes: bytes of each output. copied: of each output, the files that go into the run.
    complete: the outputs of which every file does.
    """

    account: Mapping[str, Any]
    root: str
    sizes: Mapping[str, int]
    copied: Mapping[str, Sequence[str]]
    complete: Sequence[str]


@dataclass(frozen=True)
class End:
    """The run ended FINISHED, FAILED or KILLED."""

    status: str
    time: int


Event = Begin | Metrics | Parameters | Tags | File | Picture | Outputs | End
KINDS: dict[str, type[Event]] = {kind.__name__.lower(): kind for kind in get_args(Event)}


def to_line(event: Event) -> bytes:
    """The event as a line, with its newline."""
    return json.dumps({"kind": type(event).__name__.lower(), **vars(event)}).encode() + b"\n"


def from_line(line: bytes) -> Event | None:
    """The event that `to_line` made this of; None for anything else."""
    try:
        fields = json.loads(line)
        if "whole" in fields:  # the name of `Outputs.complete` in logs of earlier versions, which may still wait
            fields["complete"] = fields.pop("whole")
        return KINDS[fields.pop("kind")](**fields)
    except (ValueError, KeyError, TypeError, AttributeError):
        return None
