"""Outputs that `darkroom keep` took over under changed code: a note beside the records, to be committed like them.

.darkroom/kept-STAGE.json holds for as long as dvc.lock has the code that it names; a run of the stage removes it.
"""

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path

from darkroom.core.artifact import read_json, write_json
from darkroom.core.errors import DarkroomError

FOLDER = Path(".darkroom")
REMEDY = "remove it, and keep or run the stage again"


@dataclass(frozen=True)
class Kept:
    """What was taken over.

    made_by: {dependency: hash} of the code that made the outputs. code: of that which dvc.lock names instead. since:
    when the outputs were first kept, as "2026-11-28 05:30". why: what differs, in words.
    """

    stage: str
    since: str
    made_by: Mapping[str, str]
    code: Mapping[str, str]
    why: str

    @classmethod
    def read(cls, stage: str) -> "Kept | None":
        """The note of a stage; None where there is none.

        Raises:
            DarkroomError: it is damaged.
        """
        path = file_of(stage)
        if not path.is_file():
            return None
        try:
            return cls(**read_json(path, REMEDY))
        except TypeError:
            raise DarkroomError(f"{path}: not a note of darkroom keep; {REMEDY}") from None

    @classmethod
    def of(cls, stage: str, code: Mapping[str, str]) -> "Kept | None":
        """The note of a stage that dvc.lock has with this code; None where none holds."""
        found = cls.read(stage)
        return found if found is not None and dict(found.code) == dict(code) else None

    def write(self) -> None:
        write_json(file_of(self.stage), asdict(self))


def file_of(stage: str) -> Path:
    """Where the note of a stage lies."""
    return FOLDER / f"kept-{stage}.json"


def forget(stage: str) -> None:
    """Remove the note of a stage, which has run."""
    file_of(stage).unlink(missing_ok=True)
