"""What a report is made of: one run of a stage, and the files that it wrote or kept."""

import hashlib
import json
import math
import re
from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass, field
from functools import cache
from pathlib import Path
from typing import Any

from darkroom.core.artifact import file_hash, write_json
from darkroom.core.errors import DarkroomError

FOLDER = Path(".darkroom", "reports")  # has a .gitignore of its own
WITH_RUN = "report"  # folder of what a run keeps for its report, and of the report itself
FACTS, PAGE = f"{WITH_RUN}/facts.json", f"{WITH_RUN}/report.html"
FINISHED = "FINISHED"
LARGEST = 16 * 2**20  # bytes of a file that a report shows
STEP = re.compile(r"step_[0-9]+\.png")  # names a picture of a training by its step
REWRITE = "darkroom report writes it anew"

Series = Mapping[str, list[tuple[int, float]]]  # points (step, value) by the name of a curve


@dataclass(frozen=True)
class Execution:
    """What depends on the clock and the machine, which no second run has alike.

    began: milliseconds since 1970. seconds: from then until the outputs were there. series: samples a second and the
    like, by step. memory_mib, device_memory_mib: the most that the process used, and of them on an accelerator.
    """

    began: int = 0
    seconds: float | None = None
    series: Series = field(default_factory=dict)
    memory_mib: float | None = None
    device_memory_mib: float | None = None
    profile: Mapping[str, str] = field(default_factory=dict)
    commit: str = ""
    dirty: bool = False
    resumed: str = ""


@dataclass(frozen=True)
class Facts:
    """One run of a stage. Contents are DVC's hashes, by path relative to the project.

    status: FINISHED, FAILED, KILLED or RUNNING. reason: why it did not finish. about: what the stage does. params:
    flat. lineage: of this stage and all that it builds on, {stage: {"inputs", "outputs"}}. recipe: the recipe that
    params.yaml was nearest to, and `changed` the values in which they differ, {key: [value, the recipe's]}. curves: of
    a run that did not finish; others have a file of them. code: see `code_digest`.
    """

    stage: str
    status: str
    reason: str
    about: str
    params: Mapping[str, Any]
    inputs: Mapping[str, str]
    outputs: Mapping[str, str]
    lineage: Mapping[str, Mapping[str, Mapping[str, str]]]
    recipe: str
    changed: Mapping[str, Any]
    curves: Series
    code: str
    execution: Execution

    def __post_init__(self) -> None:
        """Sort them: from a file they come so, and a report has one order."""
        for name in ("params", "inputs", "outputs", "lineage", "changed", "curves"):
            object.__setattr__(self, name, dict(sorted(getattr(self, name).items())))

    @property
    def finished(self) -> bool:
        return self.status == FINISHED

    def save(self, folder: Path) -> None:
        """Write them into a folder; values that are not finite, which JSON cannot hold, are left out."""
        values = asdict(self)
        values["curves"] = finite(self.curves)
        values["execution"]["series"] = finite(self.execution.series)
        write_json(folder / FACTS, values)


def parse_facts(text: bytes, where: Path | str) -> Facts:
    """Facts as `Facts.save` wrote them.

    Raises:
        DarkroomError: they are not.
    """
    try:
        values = json.loads(text)
        return Facts(**{**values, "execution": Execution(**values["execution"])})
    except (ValueError, KeyError, TypeError) as error:
        raise DarkroomError(f"{where}: not the facts of a report ({type(error).__name__}); {REWRITE}") from None


def read_facts(stage: str, root: Path) -> Facts | None:
    """What is kept of the last run of a stage in a project's folder; None where nothing is.

    Raises:
        DarkroomError: it cannot be read.
    """
    file = root / FOLDER / stage / FACTS
    try:
        return parse_facts(file.read_bytes(), file.relative_to(root)) if file.is_file() else None
    except OSError as error:
        raise DarkroomError(f"{file.relative_to(root)}: cannot be read ({error.strerror}); {REWRITE}") from None


def finite(series: Series) -> Series:
    """The points that a chart can show."""
    return {name: [point for point in points if math.isfinite(point[1])] for name, points in series.items()}


@cache
def code_digest() -> str:
    """A hash of the code that writes reports: other code may write another one of the same run."""
    files = sorted(path for path in Path(__file__).parent.rglob("*") if path.suffix in (".py", ".j2", ".css", ".js"))
    return hashlib.md5("".join(file_hash(file) for file in files).encode()).hexdigest()


@dataclass(frozen=True)
class Files:
    """The files of a run, by the names that it gave them: looked for in the first folder that has them."""

    roots: tuple[Path, ...]

    def read(self, name: str) -> bytes | None:
        """The content of a file; None where there is none, or more than LARGEST bytes of it."""
        for root in self.roots:
            try:
                if (root / name).is_file() and (root / name).stat().st_size <= LARGEST:
                    return (root / name).read_bytes()
            except OSError:
                continue
        return None

    def json(self, name: str) -> Any:
        """The value in a JSON file; None where there is none, or it holds something else."""
        try:
            return json.loads(self.read(name) or b"null")
        except ValueError:
            return None

    def below(self, folder: str, suffix: str) -> list[str]:
        """The names of files in a folder and the folders in it, sorted."""
        return sorted({*self._below(folder, suffix)})

    def _below(self, folder: str, suffix: str) -> Iterator[str]:
        for root in self.roots:
            if (root / folder).is_dir():
                found = (file for file in (root / folder).rglob(f"*{suffix}") if file.is_file())
                yield from (file.relative_to(root).as_posix() for file in found)

    def at_top(self) -> list[str]:
        """The names of files in no folder, sorted."""
        return sorted({file.name for root in self.roots for file in root.iterdir() if file.is_file()})

    def rows_of_pictures(self) -> dict[str, list[str]]:
        """The pictures over the steps of a training, by the name of their row, in order: those that the run kept, which
        lie in the first folder; in others, as the project's, are files of anybody."""
        found: dict[str, list[str]] = {}
        for root in self.roots[:1]:
            for file in sorted(root.glob("*/step_*.png")):
                if STEP.fullmatch(file.name):
                    found.setdefault(file.parent.name, []).append(file.relative_to(root).as_posix())
        return dict(sorted(found.items()))
