"""The default recipe, changed, and what is said of it."""

from itertools import takewhile
from pathlib import Path

from darkroom.config.merging import complete_text
from darkroom.config.params import problems

ROOT = Path(__file__).parents[2]
SOUND = complete_text(ROOT / "recipes" / "scenes.yaml")


def changed(section: str, key: str, line: str) -> str:
    """The default recipe with `key` in `section`, and all below it, replaced by `line` at the same depth."""
    head, found, tail = SOUND.partition(f"\n{section}:\n")
    assert found
    lines = tail.splitlines()
    at = next(i for i, text in enumerate(lines) if text.strip().startswith(f"{key}:"))
    depth = len(lines[at]) - len(lines[at].lstrip())
    below = takewhile(lambda text: text.strip() and len(text) - len(text.lstrip()) > depth, lines[at + 1 :])
    lines[at : at + 1 + len(list(below))] = [lines[at][:depth] + line if line else ""]
    return head + found + "\n".join(lines)


def faults(text: str, tmp_path: Path) -> list[str]:
    """What is wrong with a params file of this text, without the file's name."""
    file = tmp_path / "params.yaml"
    file.write_text(text, encoding="utf-8")
    lines = problems(file)
    assert all("\n" not in line and line.startswith(f"{file}: ") for line in lines)
    return [line.removeprefix(f"{file}: ") for line in lines]
