"""How much one request, and all of them together, may ask of a served model; every limit is a variable of the
environment."""

import math
import os
from collections.abc import Mapping
from dataclasses import dataclass, fields, replace
from typing import Any

from darkroom.core.errors import DarkroomError

PREFIX = "DARKROOM_SERVE_"
SHARE = 5 / 6  # of the time after which MLflow's server answers 504, that a request may take
MLFLOW_SECONDS = "MLFLOW_SCORING_SERVER_REQUEST_TIMEOUT"  # MLflow's own variable; 60 where it is not set


ENLARGED = 16  # what a step costs grows with the square of the pixels, so that 16 times take up to 256 times as long


class RefusedError(DarkroomError):
    """A request that is not served, or not further; the message says why, in one line, to whoever sent it.

    status: of HTTP. code: MLflow's name for it.
    """

    status, code = 400, "INVALID_PARAMETER_VALUE"


class LimitError(RefusedError):
    """It asks for more than a limit allows."""


class BusyError(RefusedError):
    """Too many others are there."""

    status, code = 429, "RESOURCE_EXHAUSTED"


class EndingError(RefusedError):
    """The server is ending."""

    status, code = 503, "TEMPORARILY_UNAVAILABLE"


@dataclass(frozen=True)
class Limits:
    """What `from_environment` reads; each field `x` is the variable DARKROOM_SERVE_X.

    rows: of a request. steps: num_inference_steps.
    pixels: of a picture to start from; 0: ENLARGED times as many as the model draws, which are taken in any case.
    prompt_bytes: of a prompt in UTF-8. picture_bytes: of the file of a picture to start from.
    seconds: from a request's arrival to the end of its work; in any case at most SHARE of MLflow's own time.
    at_work: requests drawn at the same time. waiting: requests that may wait for their turn besides.
    body_bytes, nesting: of a request's body, and of its JSON; looked at by `darkroom serve` alone.
    """

    rows: int = 64
    steps: int = 1000
    pixels: int = 0
    prompt_bytes: int = 4096
    picture_bytes: int = 1 << 20
    seconds: float = 50.0
    at_work: int = 1
    waiting: int = 16
    body_bytes: int = 8 << 20
    nesting: int = 16

    def __post_init__(self) -> None:
        for one in fields(self):
            value, least = getattr(self, one.name), 0 if one.name in ("waiting", "pixels") else 1
            if not (math.isfinite(value) and value >= least):
                raise DarkroomError(f"{variable(one.name)} = {value}: give {least} or more")

    @classmethod
    def from_environment(cls, environment: Mapping[str, str] = os.environ) -> "Limits":
        """The limits in force."""
        kinds: dict[str, type] = {one.name: type(getattr(cls, one.name)) for one in fields(cls)}
        values: dict[str, Any] = {}
        for name in sorted(name for name in environment if name.startswith(PREFIX)):
            key = name.removeprefix(PREFIX).lower()
            if key not in kinds:
                raise DarkroomError(f"{name}: no limit of that name; there are {', '.join(map(variable, kinds))}")
            try:
                values[key] = kinds[key](environment[name])
            except ValueError:
                what = "a whole number" if kinds[key] is int else "a number"
                raise DarkroomError(f"{name} = {environment[name]!r}: give {what}") from None
        limits = cls(**values)
        try:
            theirs = float(environment.get(MLFLOW_SECONDS, "60")) * SHARE
        except ValueError:
            return limits
        return cls(**{**values, "seconds": min(limits.seconds, theirs)}) if theirs >= 1 else limits

    def check(self, name: str, value: float, what: str, remedy: str) -> None:
        """Refuse a value above the limit `name`. Raises LimitError: names the value, the limit and its variable."""
        if value > (most := getattr(self, name)):
            raise LimitError(
                f"{what} = {value}: at most {most} {'is' if most == 1 else 'are'} taken ({variable(name)}); {remedy}"
            )

    def of_model(self, side: int) -> "Limits":
        """The limits for a model that draws pictures of this side in pixels."""
        return replace(self, pixels=max(self.pixels or ENLARGED * side**2, side**2))

    @property
    def most_requests(self) -> int:
        """Requests that may be there at the same time."""
        return self.at_work + self.waiting

    def described(self) -> dict[str, float]:
        """Every limit under the name of its variable."""
        return {variable(one.name): getattr(self, one.name) for one in fields(self)}


def variable(name: str) -> str:
    """The variable of the environment that sets a limit."""
    return f"{PREFIX}{name.upper()}"
