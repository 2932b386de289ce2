"""The code that a stage runs, read from its imports: what dvc.yaml of a clone lists file by file, and the file
code/STAGE.json of a project around the installed package by hashes.
"""

import ast
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from darkroom.config.params import PARAMS_FILE
from darkroom.config.shipped import shipped

PACKAGE = "darkroom"
# Cannot change a byte of an output: errors, messages, tracking, how a stage is started, how parameters are read.
CONFIG = "autoencoder edit explain faults params recipes rewrite sections shipped text_encoder training upgrade"
PLUMBING = (
    *(f"config/{name}.py" for name in CONFIG.split()),
    "config/stage_spec.py",
    "config/yaml_file.py",
    "core/errors.py",
    "core/progress.py",
    "planning/demands.py",
    "project",
    "reporting",
    "runner",
    "tracking",
)
BY_NAME = re.compile(r"(darkroom(?:\.\w+)+):\w+")  # "module:Class", as `config.kinds` imports it
SAMPLERS = "diffusion/samplers"


@dataclass(frozen=True)
class Facts:
    """What one file of Python says. modules: that it imports, or names for later, wherever in it; attributes may be
    among them. empty: it is a package's own, and a docstring at most."""

    modules: frozenset[str]
    empty: bool


def facts(file: Path) -> Facts:
    """Read a file of Python. Its imports are to be written out in full."""
    tree = ast.parse(file.read_bytes())
    modules: set[str] = set()
    for node in _nodes(tree):
        if isinstance(node, ast.Import):
            modules |= {name.name for name in node.names}
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{file}: imports are written out in full"
            assert node.module is not None
            modules |= {node.module, *(f"{node.module}.{name.name}" for name in node.names)}
        elif isinstance(node, ast.Constant) and isinstance(node.value, str):
            modules |= {found[1] for found in [BY_NAME.fullmatch(node.value)] if found}
    body = tree.body if file.name == "__init__.py" else [ast.Pass()]
    empty = all(isinstance(node, ast.Expr) and isinstance(node.value, ast.Constant) for node in body)
    return Facts(frozenset(modules), empty)


def _nodes(tree: ast.AST) -> Iterator[ast.AST]:
    waiting = [tree]
    while waiting:
        node = waiting.pop()
        yield node
        waiting += ast.iter_child_nodes(node)


class Code:
    """The code of a Darkroom: where its package, the stages' scripts and the recipes lie. Each file is read once.

    params: a file of parameters that counts as one more recipe.
    """

    def __init__(self, library: Path, stages: Path, recipes: Path, params: Path | None = None) -> None:
        self.library, self.stages, self.recipes, self._params = library, stages, recipes, params
        self._facts: dict[Path, Facts] = {}
        self._files: dict[str, Path | None] = {}

    @classmethod
    def installed(cls) -> "Code":
        """That of the running installation, for the project in the current folder."""
        import darkroom

        library = Path(darkroom.__file__).resolve().parent
        return cls(library, shipped("stages"), shipped("recipes"), PARAMS_FILE)

    def of_stage(self, stage: str) -> set[Path]:
        """The files that decide what a stage makes: its script, and what that runs."""
        script = self.stages / f"{stage}.py"
        return {script} | {file for file in self.closure(script) if not (self.is_plumbing(file) or self.is_empty(file))}

    def closure(self, start: Path) -> set[Path]:
        """The package's files that run when `start` runs, with the packages they lie in, but for its own."""
        reached: set[Path] = set()
        waiting = [start, *self.samplers_of(start)]
        while waiting:
            file = waiting.pop()
            if file in reached:
                continue
            reached.add(file)
            if not self.is_plumbing(file):
                waiting += self._imported(file)
        return reached - {start}

    def samplers_of(self, script: Path) -> list[Path]:
        """The samplers that a stage may run, which are imported by the name that its section gives.

        Evaluation may be asked for any. Training shows samples with those that a recipe names in train_unet, and
        depends on no other, so that a new sampler trains nothing again.
        """
        if script.parent != self.stages:
            return []
        if script.stem == "evaluate":
            return sorted((self.library / SAMPLERS).glob("*.py"))
        kinds = {kind for recipe in self._recipes() if isinstance(kind := _sampler(recipe, script.stem), str)}
        return [file for kind in sorted(kinds) if (file := self.library / SAMPLERS / f"{kind}.py").is_file()]

    def file_of(self, module: str) -> Path | None:
        """The file of a module of the package; None for what is not a module of it."""
        if module not in self._files:
            path = self.library.parent.joinpath(*module.split("."))
            candidates = (path.with_suffix(".py"), path / "__init__.py")
            ours = module.split(".")[0] == PACKAGE
            self._files[module] = next((file for file in candidates if file.is_file()), None) if ours else None
        return self._files[module]

    def is_plumbing(self, file: Path) -> bool:
        """Whether a file cannot change a byte of an output."""
        return any(file.is_relative_to(self.library / name) for name in PLUMBING)

    def is_empty(self, file: Path) -> bool:
        """Whether a file is a package's, and a docstring at most."""
        return self._facts_of(file).empty

    def _imported(self, file: Path) -> Iterator[Path]:
        for module in self._facts_of(file).modules:
            names = module.split(".")
            for length in range(2, len(names) + 1):
                if found := self.file_of(".".join(names[:length])):
                    yield found

    def _facts_of(self, file: Path) -> Facts:
        if file not in self._facts:
            self._facts[file] = facts(file)
        return self._facts[file]

    def _recipes(self) -> Iterator[Any]:
        """The recipes' contents; one that cannot be read is for others to refuse."""
        for file in (*sorted(self.recipes.rglob("*.yaml")), *([self._params] if self._params else [])):
            try:
                yield yaml.safe_load(file.read_text(encoding="utf-8"))
            except (OSError, UnicodeDecodeError, yaml.YAMLError):
                continue


def _sampler(recipe: Any, stage: str) -> Any:
    value = recipe
    for key in (stage, "sampling", "sampler", "kind"):
        value = value.get(key) if isinstance(value, dict) else None
    return value


def rewritten(text: str, code: Iterable[str], listed: Mapping[str, Sequence[str]]) -> str:
    """A dvc.yaml with the code dependencies of each stage replaced; nothing else of it changes by a byte.

    Args:
        code: how the paths of code dependencies begin.
        listed: {stage: its code}.
    """
    entry = "      - "
    lines: list[str] = []
    stage, replaced = "", False
    for line in text.splitlines():
        if line.startswith("  ") and not line.startswith("   ") and line.endswith(":"):
            stage, replaced = line.strip()[:-1], False
        if line.startswith(tuple(entry + path for path in code)):
            if not replaced:
                lines += [entry + path for path in listed[stage]]
                replaced = True
            continue
        lines.append(line)
    return "\n".join(lines) + "\n"
