"""code/STAGE.json: the code of the installed package that a stage runs, for DVC to compare.

In a project without the package's source, each stage depends on such a file: {"darkroom": version, "modules": {name:
md5}}. It is written anew only where modules differ, so a new version leaves a stage alone whose code it leaves alone;
"darkroom" is the version in which the modules became what they are. What writes the files is `darkroom sync`, which
dvc.yaml runs before every stage.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import darkroom
from darkroom.config.shipped import shipped
from darkroom.config.stage_spec import PIPELINE, StageSpec, stage_specs
from darkroom.core.artifact import atomic_path, file_hash, folder_hash, read_json, write_json
from darkroom.core.errors import DarkroomError

if TYPE_CHECKING:
    from darkroom.project.closure import Code

FOLDER = Path("code")
STAMP = Path(".checkpoints/code.md5")  # see `_state`: as it was when every file was right
SYNC = "darkroom sync"
MOST_NAMES = 3  # of modules in a line


@dataclass(frozen=True)
class CodeFile:
    """What code/STAGE.json says; modules: {"darkroom/nn/layers/blocks.py": md5}, and the stage's script."""

    version: str
    modules: Mapping[str, str]

    @classmethod
    def installed(cls, stage: str, code: "Code") -> "CodeFile":
        """What it should say.

        Raises:
            DarkroomError: the installed package has no such stage.
        """
        if not (code.stages / f"{stage}.py").is_file():
            raise DarkroomError(
                f"{PIPELINE}: stage {stage} depends on {file_of(stage)}, and the installed darkroom "
                f"{darkroom.__version__} has no such stage; a stage of your own depends on the files that it runs: "
                f"list those there in place of {file_of(stage)}"
            )
        files = {_name(file, code): file_hash(file) for file in code.of_stage(stage)}
        return cls(darkroom.__version__, dict(sorted(files.items())))

    @classmethod
    def read(cls, stage: str) -> "CodeFile":
        """What it says.

        Raises:
            DarkroomError: it is missing or damaged.
        """
        path = file_of(stage)
        values = read_json(path, f"run {SYNC}")
        try:
            return cls(str(values["darkroom"]), {str(name): str(digest) for name, digest in values["modules"].items()})
        except (AttributeError, KeyError, TypeError):
            raise DarkroomError(f"{path}: not a list of a stage's code; run {SYNC}") from None

    def write(self, stage: str) -> None:
        write_json(file_of(stage), {"darkroom": self.version, "modules": dict(self.modules)})

    def differs(self, other: "CodeFile") -> list[str]:
        """The modules that are not the same in both, or in one alone."""
        names = sorted(self.modules.keys() | other.modules.keys())
        return [name for name in names if self.modules.get(name) != other.modules.get(name)]


@dataclass(frozen=True)
class Change:
    """A stage whose file does not say what the installed package runs.

    before: the version that it names; "" where there was no file. installed: what it should say. modules: that differ.
    """

    stage: str
    before: str
    installed: CodeFile
    modules: Sequence[str]

    @property
    def why(self) -> str:
        """In words, as after "train_vae: "."""
        now = self.installed.version
        if not self.before:
            return f"its code is that of darkroom {now}"
        versions = f"runs other code than {self.before}" if now != self.before else "was changed"
        return f"darkroom {now} {versions}: {some(self.modules)}"


def some(names: Sequence[str]) -> str:
    """The first of some names, and how many more there are."""
    more = f" and {len(names) - MOST_NAMES} more" if len(names) > MOST_NAMES else ""
    return ", ".join(names[:MOST_NAMES]) + more


def file_of(stage: str) -> Path:
    """Where a stage's file lies."""
    return FOLDER / f"{stage}.json"


def recorded_stages(specs: Mapping[str, StageSpec]) -> list[str]:
    """The stages that depend on such a file: all of a project around the installed package, none of a clone."""
    return [stage for stage, spec in specs.items() if file_of(stage) in spec.code]


def outdated(stages: Sequence[str]) -> list[Change]:
    """The stages, of these, whose file does not say what the installed package runs.

    Raises:
        DarkroomError: the installed package has no such stage.
    """
    if not stages or (STAMP.is_file() and STAMP.read_text(encoding="utf-8") == _state()):
        return []
    from darkroom.project.closure import Code  # a second of work, which is mostly not needed

    code, found = Code.installed(), []
    for stage in stages:
        installed = CodeFile.installed(stage, code)
        try:
            recorded = CodeFile.read(stage)
        except DarkroomError:
            recorded = CodeFile("", {})
        if modules := recorded.differs(installed):
            found.append(Change(stage, recorded.version, installed, modules))
    return found


def sync() -> list[Change]:
    """Write the files anew that do not say what the installed package runs; returns which, and why.

    Raises:
        DarkroomError: the stages here depend on no such files, or on one that is of no installed stage.
    """
    stages = recorded_stages(stage_specs())
    if not stages:
        raise DarkroomError(
            f"{PIPELINE}: its stages depend on the code itself, not on {FOLDER}/STAGE.json: there is nothing to write"
        )
    changes = outdated(stages)
    for change in changes:
        change.installed.write(change.stage)
    with atomic_path(STAMP) as beside:
        beside.write_text(_state(), encoding="utf-8")
    return changes


def check_installed(stage: str) -> None:
    """Refuse to run a stage by other code than DVC will note.

    Raises:
        DarkroomError: code/STAGE.json does not say what the installed package runs.
    """
    for change in outdated([stage]):
        older = change.before not in ("", change.installed.version)
        back = f", or install darkroom {change.before} again" if older else ""
        raise DarkroomError(f"{file_of(stage)}: {change.why}; run {SYNC}{back}")


def _state() -> str:
    """A hash of all that decides what the files are to say, and of the files: the package, the stages' scripts,
    recipes, dvc.yaml and params.yaml."""
    package, scripts, recipes = Path(darkroom.__file__).parent, shipped("stages"), shipped("recipes")
    code = [*package.rglob("*.py"), *scripts.glob("*.py")]
    files = [*code, *recipes.rglob("*.yaml"), *Path().glob("*.yaml"), *FOLDER.glob("*.json")]
    return folder_hash({str(file): file_hash(file) for file in files})


def _name(file: Path, code: "Code") -> str:
    """How a file of the code is called, wherever it is installed."""
    root = code.stages if file.is_relative_to(code.stages) else code.library
    return file.relative_to(root.parent).as_posix()
