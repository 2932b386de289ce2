"""Writes the code that each stage runs into dvc.yaml: `make deps`.

A folder is named as a whole where a stage runs all of it; everything else by file, so that a change reruns no stage
that it does not concern.
"""

import sys
from collections.abc import Iterable
from pathlib import Path

from darkroom.project import closure
from tests.support.imports import CODE, LIBRARY, ROOT, relative

PIPELINE = ROOT / "dvc.yaml"
LISTED = ("src/", "stages/")


def dependencies(script: Path) -> list[str]:
    """The code that a stage depends on, as dvc.yaml lists it: its script first, then folders and files in order."""
    code = CODE.of_stage(script.stem)
    return [relative(script), *sorted(relative(path) for path in _joined(code - {script}, LIBRARY))]


def _joined(code: set[Path], folder: Path) -> Iterable[Path]:
    """The files of `code` below a folder, as few paths."""
    for path in sorted(folder.iterdir()):
        if path.is_dir():
            inside = {file for file in path.rglob("*.py") if not CODE.is_empty(file)}
            if inside and inside <= code:
                yield path
            else:
                yield from _joined(code, path)
        elif path in code:
            yield path


def rewritten(text: str) -> str:
    """A dvc.yaml with the code dependencies of each stage replaced; nothing else of it changes by a byte."""
    stages = sorted((ROOT / "stages").glob("*.py"))
    return closure.rewritten(text, LISTED, {script.stem: dependencies(script) for script in stages})


def main() -> None:
    """Rewrite dvc.yaml; with --check, say whether that would change it."""
    before = PIPELINE.read_text(encoding="utf-8")
    after = rewritten(before)
    if "--check" in sys.argv[1:] and before != after:
        sys.exit("dvc.yaml: does not list the code that its stages run; run: make deps")
    if before != after:
        PIPELINE.write_text(after, encoding="utf-8")
        print("dvc.yaml: the code that its stages run is listed anew")


if __name__ == "__main__":
    main()
