"""The imports of the library and the stages, read from their code: what runs when a file runs."""

import ast
import re
from functools import cache
from pathlib import Path
from typing import Any

import yaml

ROOT = Path(__file__).parents[2]
SRC = ROOT / "src"
LIBRARY = SRC / "darkroom"
SAMPLERS, RECIPES = LIBRARY / "diffusion" / "samplers", ROOT / "recipes"
STAGES = sorted((ROOT / "stages").glob("*.py"))
SOURCES = sorted(LIBRARY.rglob("*.py"))

# Cannot change a byte of an output: errors, messages, tracking, how a stage is started, how parameters are read.
CONFIG = "autoencoder edit explain faults params recipes rewrite sections text_encoder training upgrade"
PLUMBING = (
    *(f"config/{name}.py" for name in CONFIG.split()),
    "config/stage_spec.py",
    "config/yaml_file.py",
    "core/errors.py",
    "core/progress.py",
    "planning/demands.py",
    "reporting",
    "runner",
    "tracking",
)
BY_NAME = re.compile(r"(darkroom(?:\.\w+)+):\w+")  # "module:Class", as `config.kinds` imports it


def room_of(module: str) -> str:
    """The room of the library that a module belongs to: darkroom.nn.text.clip -> nn."""
    return module.split(".")[1] if "." in module else ""


@cache
def tree(file: Path) -> ast.Module:
    """A file, parsed."""
    return ast.parse(file.read_text(encoding="utf-8"))


@cache
def imports(file: Path) -> frozenset[str]:
    """Every module a file imports, wherever in it and also for types alone; of the library, the modules that exist."""
    found = set()
    for node in ast.walk(tree(file)):
        if isinstance(node, ast.Import):
            found |= {name.name for name in node.names}
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{file}: imports are written out in full"
            assert node.module is not None
            names = {f"{node.module}.{name.name}" for name in node.names}
            found |= {node.module} | {name for name in names if name.startswith("darkroom.") and file_of(name)}
    return frozenset(found)


@cache
def named(file: Path) -> frozenset[str]:
    """Every module of the library that a text of the file names as "module:Class", to be imported when it is needed."""
    texts = [node.value for node in ast.walk(tree(file)) if isinstance(node, ast.Constant)]
    matches = [BY_NAME.fullmatch(text) for text in texts if isinstance(text, str)]
    return frozenset(match[1] for match in matches if match)


def file_of(module: str) -> Path | None:
    """The file of a module of the library; None for what is not a module of it."""
    path = SRC.joinpath(*module.split("."))
    candidates = (path.with_suffix(".py"), path / "__init__.py")
    return next((file for file in candidates if file.is_file()), None)


def of_library(file: Path) -> set[str]:
    """The library's modules that a file imports."""
    return {module for module in imports(file) if module.split(".")[0] == "darkroom"}


def module_of(file: Path) -> str:
    """The module that a file of the library is."""
    names = file.relative_to(SRC).with_suffix("").parts
    return ".".join(names[:-1] if names[-1] == "__init__" else names)


def samplers_of(script: Path) -> list[Path]:
    """The samplers that a stage may run, which are imported by the name that its section gives.

    Evaluation may be asked for any. Training shows samples with those that a recipe names in train_unet, and depends on
    no other, so that a new sampler trains nothing again.
    """
    if script.parent != ROOT / "stages":
        return []
    if script.stem == "evaluate":
        return sorted(SAMPLERS.glob("*.py"))
    recipes = (yaml.safe_load(file.read_text(encoding="utf-8")) for file in sorted(RECIPES.rglob("*.yaml")))
    sections = [(recipe or {}).get(script.stem) or {} for recipe in recipes]
    kinds: set[Any] = {((section.get("sampling") or {}).get("sampler") or {}).get("kind") for section in sections}
    return [SAMPLERS / f"{kind}.py" for kind in sorted(kinds - {None})]


def closure(start: Path) -> set[Path]:
    """The library's files that run when `start` runs, with the packages they lie in, but for the library's own."""
    reached: set[Path] = set()
    waiting = [start, *samplers_of(start)]
    while waiting:
        file = waiting.pop()
        if file in reached:
            continue
        reached.add(file)
        if is_plumbing(file):
            continue
        for module in of_library(file) | named(file):
            names = module.split(".")
            packages = (".".join(names[:length]) for length in range(2, len(names) + 1))
            waiting += [found for package in packages if (found := file_of(package))]
    return reached - {start}


def is_plumbing(file: Path) -> bool:
    """Whether a file cannot change a byte of an output."""
    return any(file.is_relative_to(LIBRARY / name) for name in PLUMBING)


def is_empty(file: Path) -> bool:
    """Whether a file is a package's, and a docstring at most."""
    body = tree(file).body if file.name == "__init__.py" else [ast.Pass()]
    return all(isinstance(node, ast.Expr) and isinstance(node.value, ast.Constant) for node in body)


def relative(file: Path) -> str:
    """A file's path as dvc.yaml names it."""
    return file.relative_to(ROOT).as_posix()


def code_of(script: Path) -> set[Path]:
    """The files of code that decide what a stage makes: its script, and what that runs."""
    return {script} | {file for file in closure(script) if not (is_plumbing(file) or is_empty(file))}
