"""A stage as dvc.lock has it, held against the project's files: what differs, and of which kind."""

import json
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from darkroom.config.lock_file import LockedStage
from darkroom.config.params import PARAMS_FILE, read
from darkroom.config.stage_spec import StageSpec
from darkroom.core.artifact import file_hash, files_of, folder_hash
from darkroom.core.errors import DarkroomError
from darkroom.project.code_files import CodeFile, file_of
from darkroom.tracking.repository import git_text, md5_at_head


@dataclass(frozen=True)
class Differences:
    """What of a stage is not as dvc.lock has it, by kind: paths, keys of params.yaml, "command"."""

    code: list[str]
    inputs: list[str]
    params: list[str]
    outputs: list[str]
    definition: list[str]

    @property
    def of_code_alone(self) -> bool:
        return not (self.inputs or self.params or self.outputs or self.definition)

    def __bool__(self) -> bool:
        return bool(self.code) or not self.of_code_alone


class Comparison:
    """Stages as they are now; each file is hashed once."""

    def __init__(self) -> None:
        self._hashes: dict[Path, str] = {}

    def hash_of(self, path: Path) -> str:
        """See the function."""
        if path not in self._hashes:
            self._hashes[path] = hash_of(path)
        return self._hashes[path]

    def code_of(self, spec: StageSpec) -> dict[str, str]:
        """{dependency: hash} of a stage's code, as dvc.lock would have it."""
        return {path.as_posix(): self.hash_of(path) for path in spec.code}

    def differences(self, spec: StageSpec, locked: LockedStage, spared: Collection[Path] = ()) -> Differences:
        """How a stage differs from its entry in dvc.lock.

        spared: inputs and outputs whose content counts as being what it was, and is not read.
        """

        def now(paths: Sequence[Path], before: Mapping[str, str]) -> dict[str, str]:
            known = {path.as_posix(): before.get(path.as_posix()) for path in paths if path in spared}
            return {path.as_posix(): known.get(path.as_posix()) or self.hash_of(path) for path in paths}

        params, recorded = read(PARAMS_FILE), locked.params.get(PARAMS_FILE.name, {})
        keys = sorted({*spec.params, *recorded})
        return Differences(
            code=_differing(self.code_of(spec), locked.code),
            inputs=_differing(now(spec.inputs, locked.inputs), locked.inputs),
            params=[key for key in keys if key not in spec.params or _value(params, key) != recorded.get(key)],
            outputs=_differing(now(spec.outputs, locked.outputs), locked.outputs),
            definition=["command"] if spec.cmd != locked.cmd else [],
        )


def hash_of(path: Path) -> str:
    """The hash DVC gives what lies at a path, without bytecode; "" where nothing does."""
    try:
        if path.is_dir():
            return folder_hash({file.relative_to(path).as_posix(): file_hash(file) for file in files_of(path)})
        return file_hash(path)
    except OSError:
        return ""


def _value(params: Any, key: str) -> Any:
    for name in key.split("."):
        params = params.get(name) if isinstance(params, Mapping) else None
    return params


def _differing(now: Mapping[str, str], before: Mapping[str, str]) -> list[str]:
    return sorted(path for path in now.keys() | before.keys() if now.get(path) != before.get(path))


def changed_code(stage: str, locked: LockedStage, code: Sequence[str]) -> list[str]:
    """The code that differs, of these dependencies, by name: of code/STAGE.json the modules, where git has the one that
    dvc.lock names.
    """
    names: list[str] = []
    for path in code:
        before = _committed(path, locked.code.get(path, "")) if Path(path) == file_of(stage) else None
        modules = before.differs(CodeFile.read(stage)) if before and file_of(stage).is_file() else []
        names += modules or [path]
    return names


def _committed(path: str, digest: str) -> CodeFile | None:
    """The file of a stage's code as it was last committed, if that is the one with this hash."""
    if md5_at_head(path) != digest:
        return None
    try:
        values = json.loads(git_text("show", f"HEAD:./{path}"))
        return CodeFile(str(values["darkroom"]), dict(values["modules"]))
    except (DarkroomError, ValueError, KeyError, TypeError):
        return None
