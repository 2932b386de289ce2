"""What a stage runs besides the code that dvc.yaml names, recorded in its run, for an audit to compare.

The tags of a run that say it, each JSON; what is longer than a tag may be goes on in NAME.2, NAME.3 and so on:

  ran.definition  the stage's entry in dvc.yaml: command, dependencies, outputs, keys of params.yaml; see `StageSpec`
  ran.start       the interpreter with its options, where it looks for modules, what .pth files and sitecustomize add to
                  that, and the variables of the environment that may change a result
  ran.frame       {imported file of Python that is not a dependency: first digits of its md5}: what starts and tracks
                  stages
  ran.outside     other modules that are neither dependencies nor installed packages, with their files: mostly []
"""

import json
import os
import re
import site
import sys
import sysconfig
from collections.abc import Iterable, Mapping
from pathlib import Path
from types import ModuleType
from typing import Any

import darkroom
from darkroom.config.stage_spec import CODE, StageSpec
from darkroom.core.artifact import file_hash
from darkroom.tracking.store import VALUE_LENGTH

DEFINITION, START, FRAME, OUTSIDE = "ran.definition", "ran.start", "ran.frame", "ran.outside"
DIGITS = 12  # of an md5 in `ran.frame`
FRAME_FOLDER = f"{CODE[0]}/darkroom"
BYTECODE = ("__pycache__", ".pyc")
# Where Python and its libraries look, and what may change the last bits. Passwords are under none of these names.
MATTERS = re.compile(
    r"(PYTHON|LD_|DYLD_|OMP_|GOMP_|KMP_|MKL_|OPENBLAS_|ATEN_|DNNL_|ONEDNN_|TORCH|CUDA_|CUBLAS_|CUDNN_|DARKROOM_)"
)
CUSTOMIZE = ("sitecustomize", "usercustomize")


class ExecutedCode:
    """What runs in this process; files are hashed when they are first seen, so that later edits do not count.

    modules: by name, as in sys.modules, which is asked by default.
    """

    def __init__(self, spec: StageSpec, modules: Mapping[str, ModuleType] | None = None) -> None:
        self._spec = spec
        self._modules = sys.modules if modules is None else modules
        self._frame: dict[str, str] = {}
        self._outside: dict[str, str] = {}
        self._look()

    def tags(self) -> dict[str, str]:
        """What the run records, with what was imported until now."""
        self._look()
        said = {
            DEFINITION: self._spec.definition,
            START: json.dumps(_start(), sort_keys=True),
            FRAME: json.dumps(self._frame, sort_keys=True),
            OUTSIDE: json.dumps([f"{name}: {file}" for name, file in sorted(self._outside.items())]),
        }
        return {key: part for name, text in said.items() for key, part in tags_of(name, text).items()}

    def _look(self) -> None:
        installed, here = _installed(), os.path.realpath(Path.cwd())
        covered = [str(path) for path in self._spec.code]
        for name, module in list(self._modules.items()):
            file = getattr(module, "__dict__", {}).get("__file__")  # not by a lazy module's relative __getattr__
            if not isinstance(file, str) or file.startswith(installed) or name in self._outside:
                continue
            real = os.path.realpath(file)
            if real.startswith(installed) or not os.path.isfile(real):  # noqa: PTH113 - thousands of them
                continue
            relative = Path(os.path.relpath(real, here)).as_posix()
            if any(relative == path or relative.startswith(f"{path}/") for path in covered) or relative in self._frame:
                continue
            if relative.startswith(f"{FRAME_FOLDER}/"):
                self._frame[relative] = file_hash(Path(real))[:DIGITS]
            else:
                self._outside[name] = real


def tags_of(name: str, text: str) -> dict[str, str]:
    """A text of any length as tags, of which MLflow keeps VALUE_LENGTH characters each: NAME, NAME.2, …"""
    pieces = [text[first : first + VALUE_LENGTH] for first in range(0, len(text), VALUE_LENGTH)]
    return {name if i == 1 else f"{name}.{i}": piece for i, piece in enumerate(pieces, start=1)}


def read_tags(tags: Mapping[str, str], name: str) -> Any:
    """What `tags_of` wrote, as JSON; None where it is not there or cannot be read."""
    text, i = tags.get(name, ""), 2
    while (part := tags.get(f"{name}.{i}")) is not None:
        text, i = text + part, i + 1
    try:
        return json.loads(text)
    except ValueError:
        return None


def changed_since(frame: Mapping[str, str]) -> list[str]:
    """The files of a run's frame that are not as they were when it ran."""
    return [
        name for name, digits in frame.items() if not Path(name).is_file() or file_hash(Path(name))[:DIGITS] != digits
    ]


def stray_code(specs: Iterable[StageSpec], folders: Iterable[str] = CODE) -> list[Path]:
    """What Python could import straight from the folders of code, and no stage names among its dependencies."""
    declared = [path for spec in specs for path in spec.code]
    found = []
    for entry in sorted(entry for folder in map(Path, folders) if folder.is_dir() for entry in folder.iterdir()):
        covered = any(entry == path or entry in path.parents or path in entry.parents for path in declared)
        if not covered and _importable(entry):
            found.append(entry)
    return found


def _importable(entry: Path) -> bool:
    if entry.name in BYTECODE:
        return False
    if entry.is_dir():
        return entry.name.isidentifier() and any(_is_module(file) for file in entry.rglob("*"))
    return _is_module(entry)


def _is_module(file: Path) -> bool:
    return file.suffix in (".py", ".pyc", ".so", ".pyd") and "__pycache__" not in file.parts


def _installed() -> tuple[str, ...]:
    """Where the standard library and installed packages lie; and Darkroom itself, where it is not this folder's."""
    paths = {*sysconfig.get_paths().values(), *site.getsitepackages(), site.getusersitepackages()}
    paths |= {os.path.realpath(path) for path in paths}
    package = os.path.realpath(Path(darkroom.__file__).parent)
    if not package.startswith(os.path.realpath(Path.cwd()) + os.sep):
        paths.add(package)
    nowhere = {
        sys.prefix,
        sys.base_prefix,
        sys.exec_prefix,
    }  # data files: not a place of modules, and may hold the project
    return tuple(f"{path.rstrip(os.sep)}{os.sep}" for path in paths - nowhere if path)


def _start() -> dict[str, Any]:
    loaded = [getattr(sys.modules.get(name), "__file__", None) for name in CUSTOMIZE]
    folders = [Path(folder) for folder in (*site.getsitepackages(), site.getusersitepackages())]
    files = [Path(file) for file in loaded if file]
    files += sorted(file for folder in folders if folder.is_dir() for file in folder.glob("*.pth"))
    return {
        "python": sys.executable,
        "options": sys.orig_argv[1:-1],
        "path": sys.path,
        "site": {str(file): file_hash(file)[:DIGITS] for file in files if file.is_file()},
        "environment": {key: value for key, value in sorted(os.environ.items()) if MATTERS.match(key)},
    }
