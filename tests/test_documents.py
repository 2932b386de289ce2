"""Documents say each thing once."""

import re
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
WRITTEN = [*sorted((ROOT / "docs").glob("*.md")), ROOT / "README.md"]
GENERATED = {"parameters.md"}
SHORT = 50  # characters up to which a line may come again: commands, heads of tables


@pytest.mark.parametrize("page", [page for page in WRITTEN if page.name not in GENERATED], ids=lambda page: page.name)
def test_no_line_of_prose_comes_twice(page: Path) -> None:
    """A merge that kept both sides of a paragraph or a row."""
    text = re.sub(r"^```.*?^```", "", page.read_text(encoding="utf-8"), flags=re.DOTALL | re.MULTILINE)
    lines = [line for line in text.splitlines() if len(line) > SHORT]
    assert [line for i, line in enumerate(lines) if line in lines[:i]] == []


@pytest.mark.parametrize("name", ["audit.md", "interruptions.md"])
def test_what_may_happen_has_one_row(name: str) -> None:
    """A row reworded on one side of a merge and kept on both."""
    rows = [line for line in (ROOT / "docs" / name).read_text(encoding="utf-8").splitlines() if line.startswith("| ")]
    first = [row.split("|")[1].strip() for row in rows if row.split("|")[1].strip()]
    assert [cell for i, cell in enumerate(first) if cell in first[:i]] == []
