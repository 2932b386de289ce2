"""The imports of the library and the stages, read from their code: what runs when a file runs."""

import ast
from functools import cache
from pathlib import Path

from darkroom.project import closure

ROOT = Path(__file__).parents[2]
SRC = ROOT / "src"
LIBRARY = SRC / "darkroom"
SAMPLERS = LIBRARY / closure.SAMPLERS
STAGES = sorted((ROOT / "stages").glob("*.py"))
SOURCES = sorted(LIBRARY.rglob("*.py"))
CODE = closure.Code(LIBRARY, ROOT / "stages", ROOT / "recipes")


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
            found |= {node.module} | {name for name in names if name.startswith("darkroom.") and CODE.file_of(name)}
    return frozenset(found)


def of_library(file: Path) -> set[str]:
    """The library's modules that a file imports."""
    return {module for module in imports(file) if module.split(".")[0] == "darkroom"}


def module_of(file: Path) -> str:
    """The module that a file of the library is."""
    names = file.relative_to(SRC).with_suffix("").parts
    return ".".join(names[:-1] if names[-1] == "__init__" else names)


def relative(file: Path) -> str:
    """A file's path as dvc.yaml names it."""
    return file.relative_to(ROOT).as_posix()
