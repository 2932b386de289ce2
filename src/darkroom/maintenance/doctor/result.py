"""What a check found."""

from dataclasses import dataclass
from typing import Literal

from darkroom.core.errors import DarkroomError

State = Literal["ok", "warning", "problem"]


@dataclass(frozen=True)
class Result:
    """What a check found, in a line; of a problem, what would fail.

    remedy: what to do, in words. command: the line for a shell in the project's folder that does it; "" where it takes
    a person.
    """

    check: str
    state: State
    found: str
    remedy: str = ""
    command: str = ""

    @property
    def fix(self) -> str:
        """Remedy and command as one reads them."""
        return f"{self.remedy}: {self.command}" if self.remedy and self.command else self.remedy or self.command


def ok(check: str, found: str) -> Result:
    return Result(check, "ok", found)


def warning(check: str, found: str, remedy: str = "", command: str = "") -> Result:
    return Result(check, "warning", found, remedy, command)


def problem(check: str, found: str, remedy: str = "", command: str = "") -> Result:
    return Result(check, "problem", found, remedy, command)


def from_error(check: str, error: DarkroomError, command: str = "") -> Result:
    """An error whose message ends with its remedy."""
    found, _, remedy = str(error).rpartition("; ")
    return Result(check, "problem", found or remedy, remedy if found else "", command)
