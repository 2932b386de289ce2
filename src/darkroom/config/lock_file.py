"""dvc.lock, as DVC writes it: what each stage read and wrote when it last ran."""

from collections.abc import Mapping
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any

import yaml

from darkroom.config.stage_spec import LOCK, is_code
from darkroom.config.yaml_file import Loader
from darkroom.core.errors import DarkroomError

_REMEDY = f"git checkout {LOCK}, or delete it and dvc repro"
PARSED = 8  # texts that are kept parsed: a lock file is long, and asked for several times


@dataclass(frozen=True)
class LockedStage:
    """A stage's entry. Contents are DVC's hashes, by path relative to the project.

    params: {file: {key: value}}. sizes: of outputs, in bytes.
    """

    cmd: str
    inputs: Mapping[str, str]
    code: Mapping[str, str]
    outputs: Mapping[str, str]
    params: Mapping[str, Mapping[str, Any]]
    sizes: Mapping[str, int]


def read_lock(file: Path = LOCK) -> Mapping[str, LockedStage]:
    """The entries of a dvc.lock; none where there is no such file.

    Raises:
        DarkroomError: it cannot be read, or is not a lock file.
    """
    try:
        text = file.read_bytes() if file.is_file() else None
    except OSError as error:
        raise DarkroomError(f"{file}: cannot be read ({error.strerror}); {_REMEDY}") from None
    return {} if text is None else parse_lock(text)


@lru_cache(PARSED)
def parse_lock(text: str | bytes) -> Mapping[str, LockedStage]:
    """The entries in the text of a dvc.lock; an empty one was cut off.

    A stage that writes nothing but lists of code is left out, as `stage_spec.read_stage_specs` does.

    Raises:
        DarkroomError: it is not that of a lock file.
    """
    try:
        if not text.strip():
            raise ValueError("it is empty")
        stages = yaml.load(text, Loader)["stages"]  # a SafeLoader
        found = {str(name): _locked_stage(entry) for name, entry in stages.items()}
    except (yaml.YAMLError, ValueError, AttributeError, KeyError, TypeError) as error:
        raise DarkroomError(f"{LOCK}: not a lock file ({' '.join(str(error).split())}); {_REMEDY}") from None
    return {
        name: stage
        for name, stage in found.items()
        if not (stage.outputs and all(is_code(Path(path)) for path in stage.outputs))
    }


def _locked_stage(entry: Mapping[str, Any]) -> LockedStage:
    if not {"cmd", "outs"} & entry.keys():
        raise ValueError("a stage has neither cmd nor outs")
    deps = {dep["path"]: _content(dep) for dep in entry.get("deps", [])}
    outs = entry.get("outs", [])
    return LockedStage(
        cmd=entry.get("cmd", ""),
        inputs={path: digest for path, digest in deps.items() if not is_code(Path(path))},
        code={path: digest for path, digest in deps.items() if is_code(Path(path))},
        outputs={out["path"]: _content(out) for out in outs},
        params=entry.get("params", {}),
        sizes={out["path"]: int(out.get("size", 0)) for out in outs},
    )


def _content(entry: Mapping[str, Any]) -> str:
    """What tells the content of a dependency or output: DVC's md5; of one that lies on a server, that server's mark."""
    return str(next((entry[key] for key in ("md5", "etag", "checksum") if entry.get(key)), ""))
