"""The stages of the project, as dvc.yaml names them."""

import json
import stat
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from darkroom.core.artifact import content_hash, files_of
from darkroom.core.errors import DarkroomError

PIPELINE, LOCK = Path("dvc.yaml"), Path("dvc.lock")
CODE = ("src", "stages", "code")  # of a clone; code/ is that of a project around the installed package
LISTED = ("deps", "outs", "metrics", "plots", "params")
COSMETIC = ("desc", "meta")  # keys of a stage, for readers
KEEPING = ("cache", "persist")  # options of an output that are not about how it is drawn


@dataclass(frozen=True)
class StageSpec:
    """What dvc.yaml says of a stage, so that it is said once.

    definition: all of that which decides what the stage does, as JSON: the same for entries in another order, or with
    another description or another look of its plots.
    """

    cmd: str
    inputs: list[Path]
    code: list[Path]
    outputs: list[Path]
    params: list[str]
    uncached: frozenset[Path]  # outputs that git keeps, not DVC's cache
    definition: str = ""

    def input_hashes(self) -> dict[str, str]:
        """{input: content hash} of what lies there.

        Raises:
            DarkroomError: an input is missing.
        """
        return {path.as_posix(): content_hash(path) for path in self.inputs}

    def code_hashes(self) -> dict[str, str]:
        """{file: content hash} of all code that the stage runs."""
        return {file.as_posix(): content_hash(file) for path in self.code for file in files_of(path)}


def stage_specs(pipeline: Path = PIPELINE) -> dict[str, StageSpec]:
    """Every stage of dvc.yaml, in its order.

    Raises:
        DarkroomError: no such file here, or it is not a pipeline.
    """
    try:
        if not stat.S_ISREG(pipeline.stat().st_mode):  # of a pipe, nothing would ever come
            raise DarkroomError(f"{pipeline}: is not a file; rm -rf {pipeline} && git checkout HEAD -- {pipeline}")
        return read_stage_specs(pipeline.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise DarkroomError(f"{pipeline}: no such file here; go to the project's folder") from None
    except (yaml.YAMLError, UnicodeDecodeError, AttributeError, KeyError, TypeError) as error:
        raise DarkroomError(f"{pipeline}: not a pipeline ({' '.join(str(error).split())}); fix it") from None


def read_stage_specs(text: str) -> dict[str, StageSpec]:
    """The stages of a dvc.yaml, given as its text; raises what a text that is none makes raise.

    One that writes nothing but lists of code, which others depend on, is left out: no run stands for what it makes.
    """
    specs = {name: _stage_spec(entry) for name, entry in yaml.safe_load(text)["stages"].items()}
    return {name: spec for name, spec in specs.items() if not (spec.outputs and all(map(is_code, spec.outputs)))}


def stage_spec(stage: str, pipeline: Path = PIPELINE) -> StageSpec:
    """The stage's entry in dvc.yaml.

    Raises:
        DarkroomError: no such file here, or no such stage in it.
    """
    stages = stage_specs(pipeline)
    if stage not in stages:
        raise DarkroomError(f"{pipeline}: has no stage {stage!r}; it has {', '.join(stages)}")
    return stages[stage]


def makers(spec: StageSpec, specs: Mapping[str, StageSpec]) -> list[str]:
    """The stages that a stage builds on directly: an output of theirs is an input, lies in one, or holds one."""
    return [name for name, other in specs.items() if any(is_made(path, other.outputs) for path in spec.inputs)]


def is_made(path: Path, outputs: Iterable[Path]) -> bool:
    """Whether one of the outputs lies at a path, in it, or around it."""
    return any(path.is_relative_to(output) or output.is_relative_to(path) for output in outputs)


def check_not_linked(outputs: Iterable[Path]) -> None:
    """Refuse outputs that a link keeps elsewhere: DVC would, once the stage is done, or would take the link away.

    A file that is a link into DVC's cache, as it makes them where cache.type says so, is none of these.

    Raises:
        DarkroomError: names the link and what to do instead.
    """
    for output in outputs:
        for path in (*reversed(output.parents), output):
            if path.is_symlink() and (path != output or path.is_dir()):
                raise DarkroomError(
                    f"{path}: is a link, and DVC keeps no output ({output}) behind one; put the folder itself there "
                    "again, and move the whole project to the larger disk, or DVC's cache alone: dvc cache dir --local "
                    "PATH && dvc config --local cache.type reflink,copy (docs/scaling-out.md)"
                )


def is_code(path: Path) -> bool:
    """Whether a dependency is code that a stage runs, not something it reads."""
    return path.parts[0] in CODE


def _stage_spec(entry: dict[str, Any]) -> StageSpec:
    deps = list(_options(entry.get("deps", [])))
    outputs = {k: v for kind in ("outs", "metrics", "plots") for k, v in _options(entry.get(kind, [])).items()}
    return StageSpec(
        cmd=entry["cmd"],
        inputs=[path for path in deps if not is_code(path)],
        code=[path for path in deps if is_code(path)],
        outputs=list(outputs),
        params=list(entry.get("params", [])),
        uncached=frozenset(path for path, options in outputs.items() if options.get("cache") is False),
        definition=json.dumps(_definition(entry, outputs), sort_keys=True),
    )


def _definition(entry: dict[str, Any], outputs: dict[Path, dict[str, Any]]) -> dict[str, Any]:
    rest = {key: value for key, value in entry.items() if key not in (*LISTED, *COSMETIC)}
    kept = {str(path): {key: options[key] for key in KEEPING if key in options} for path, options in outputs.items()}
    deps = sorted(str(path) for path in _options(entry.get("deps", [])))
    return {**rest, "deps": deps, "outs": kept, "params": sorted(map(str, entry.get("params", [])))}


def _options(entries: list[Any]) -> dict[Path, dict[str, Any]]:
    """Paths from dvc.yaml with their options; an entry is a path or {path: options}."""
    pairs = [(entry, {}) if isinstance(entry, str) else next(iter(entry.items())) for entry in entries]
    return {Path(path): options or {} for path, options in pairs}
