"""Writes the code that each stage runs into dvc.yaml: `make deps`.

A folder is named as a whole where a stage runs all of it; everything else by file, so that a change reruns no stage
that it does not concern.
"""

import sys
from collections.abc import Iterable
from pathlib import Path

from tests.support.imports import LIBRARY, ROOT, code_of, is_empty, relative

PIPELINE = ROOT / "dvc.yaml"
CODE = ("src/", "stages/")
ENTRY = "      - "


def dependencies(script: Path) -> list[str]:
    """The code that a stage depends on, as dvc.yaml lists it: its script first, then folders and files in order."""
    code = code_of(script)
    return [relative(script), *sorted(relative(path) for path in _joined(code - {script}, LIBRARY))]


def _joined(code: set[Path], folder: Path) -> Iterable[Path]:
    """The files of `code` below a folder, as few paths."""
    for path in sorted(folder.iterdir()):
        if path.is_dir():
            inside = {file for file in path.rglob("*.py") if not is_empty(file)}
            if inside and inside <= code:
                yield path
            else:
                yield from _joined(code, path)
        elif path in code:
            yield path


def rewritten(text: str) -> str:
    """A dvc.yaml with the code dependencies of each stage replaced; nothing else of it changes by a byte."""
    lines: list[str] = []
    stage, written = "", False
    for line in text.splitlines():
        if line.startswith("  ") and not line.startswith("   ") and line.endswith(":"):
            stage, written = line.strip()[:-1], False
        if line.startswith(tuple(ENTRY + code for code in CODE)):
            if not written:
                lines += [ENTRY + path for path in dependencies(ROOT / "stages" / f"{stage}.py")]
                written = True
            continue
        lines.append(line)
    return "\n".join(lines) + "\n"


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
