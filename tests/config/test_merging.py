"""A recipe is its base with its differences. Each test says which fault it would catch."""

from pathlib import Path

import pytest

from darkroom.config.merging import complete_text
from darkroom.core.errors import DarkroomError

BASE = """\
# The base.

data:
  # where from
  source: {kind: drawn, count: 3} # drawn here
  size: 32 # pixels

train:
  seed: 0
  network: # as small as may be
    kind: conv
    widths: [8, 16] # one per level
    depth: 1
  loss: l2 # as usual

judge:
  null: none
"""
RECIPE = """\
# What it is for.
#
# And how.
base: plain

data:
  source: # from files
    kind: files
    # the folder
    root: pictures

train:
  network: {depth: 2}
  # because it is robust
  loss: l1
"""
COMPLETE = """\
# What it is for.
#
# And how.

data:
  source: # from files
    kind: files
    # the folder
    root: pictures
  size: 32 # pixels

train:
  seed: 0
  network: # as small as may be
    kind: conv
    widths: [8, 16] # one per level
    depth: 2
  # because it is robust
  loss: l1

judge:
  null: none
"""


@pytest.fixture
def recipe(tmp_path: Path) -> Path:
    (tmp_path / "base").mkdir()
    (tmp_path / "base" / "plain.yaml").write_text(BASE)
    file = tmp_path / "one.yaml"
    file.write_text(RECIPE)
    return file


def test_comments_stay_with_their_values(recipe: Path) -> None:
    """Fails if a comment of the base stands beside a value that is not the base's, or is lost beside one that is."""
    assert complete_text(recipe) == COMPLETE


def test_another_kind_replaces_the_mapping_and_the_same_kind_does_not(recipe: Path) -> None:
    """Fails if keys of the base's kind are left over in another kind, or a difference hides the keys beside it."""
    text = complete_text(recipe)
    assert "count" not in text
    recipe.write_text(RECIPE.replace("{depth: 2}", "{kind: conv, depth: 2}"))
    assert "widths" in complete_text(recipe)


def test_a_file_without_a_base_is_as_it_stands(recipe: Path, tmp_path: Path) -> None:
    """Fails if a complete file is written anew, and so changed by a byte."""
    odd = tmp_path / "params.yaml"
    odd.write_text("a :  {x: 1}   # odd\n\n\n")
    assert complete_text(odd) == odd.read_text()


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (("base: plain", "base: plane"), r"one\.yaml: base = 'plane': no such base in .*; did you mean plain\?"),
        (("base: plain", "base: 7"), r"one\.yaml: base = 7: no such base in .*; give plain"),
        (("root: pictures", "root:\n      - a"), r"one\.yaml line 11: root: write its value on the line of the key"),
        (("root: pictures", "kind: other"), r"one\.yaml line 10: not valid YAML: the key kind stands here twice"),
    ],
)
def test_a_recipe_that_cannot_be_completed_says_why(recipe: Path, change: tuple[str, str], said: str) -> None:
    """Fails if a mistake in a recipe ends in a traceback, or is passed over."""
    recipe.write_text(RECIPE.replace(*change))
    with pytest.raises(DarkroomError, match=said):
        complete_text(recipe)


def test_a_base_has_no_base(recipe: Path) -> None:
    """Fails if a base may build on another one, so that one has to read three files to know a value."""
    base = recipe.parent / "base" / "plain.yaml"
    base.write_text(BASE.replace("data:", "base: other\ndata:", 1))
    with pytest.raises(DarkroomError, match=r"plain\.yaml: base = other: a base is complete; remove the key"):
        complete_text(recipe)
