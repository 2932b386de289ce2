"""A field that takes any kind of a component. Each test says which fault it would catch."""

import subprocess
import sys
from pathlib import Path
from typing import Annotated, Literal

import pytest
from pydantic import Field, ValidationError

from darkroom.config.base import Section
from darkroom.config.kinds import Kinds, kind_of


class Shape(Section):
    """A toy component."""


class Round(Shape):
    kind: Literal["round"]
    radius: Annotated[float, Field(gt=0)]


class Square(Shape):
    kind: Literal["square"]
    side: int


class Dotted(Shape):
    kind: Literal["dotted"]
    dots: int = 3


SHAPES = Kinds[Shape]("shape", {name: f"{__name__}:{name.title()}" for name in ("round", "square", "dotted")})


class Drawing(Section):
    shape: Annotated[Shape, SHAPES]
    ink: int


@pytest.fixture(autouse=True)
def _importable(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, __name__, sys.modules[Round.__module__])


def test_a_kind_brings_its_own_keys() -> None:
    """Fails if a component is cut down to its base, or written without its kind."""
    drawing = Drawing.model_validate({"shape": {"kind": "round", "radius": 2.0}, "ink": 1})
    assert drawing.shape == Round(kind="round", radius=2.0)
    assert drawing.model_dump() == {"shape": {"kind": "round", "radius": 2.0}, "ink": 1}
    assert Drawing.model_validate(drawing.model_dump()) == drawing
    assert Drawing(shape=Square(kind="square", side=2), ink=1).shape == Square(kind="square", side=2)


def test_a_file_states_a_key_that_has_a_default_too() -> None:
    """Fails if a params file need not say all that was run."""
    with pytest.raises(ValidationError) as caught:
        Drawing.model_validate({"shape": {"kind": "dotted"}, "ink": 1})
    assert [(error["type"], error["loc"]) for error in caught.value.errors()] == [("missing", ("shape", "dots"))]
    assert Drawing(shape=Dotted(kind="dotted"), ink=1).model_dump()["shape"] == {"kind": "dotted", "dots": 3}


def test_every_fault_is_reported_where_it_stands() -> None:
    """Fails if a fault within a component hides those beside it, or loses its key."""
    with pytest.raises(ValidationError) as caught:
        Drawing.model_validate({"shape": {"kind": "round", "radius": -1.0, "side": 2}, "ink": "black"})
    found = {(error["type"], error["loc"]) for error in caught.value.errors()}
    assert found == {
        ("greater_than", ("shape", "radius")),
        ("extra_forbidden", ("shape", "side")),
        ("int_type", ("ink",)),
    }


@pytest.mark.parametrize(("shape", "fault"), [({}, "not_found"), ({"kind": "oval"}, "invalid"), (7, "not_found")])
def test_a_kind_that_is_missing_or_unknown_is_named(shape: object, fault: str) -> None:
    """Fails if an unknown kind ends in a traceback, or goes without saying which kinds there are."""
    with pytest.raises(ValidationError) as caught:
        Drawing.model_validate({"shape": shape, "ink": 1})
    (error,) = caught.value.errors()
    assert (error["type"], error["loc"]) == (f"union_tag_{fault}", ("shape",))
    assert error["ctx"]["expected_tags"] == "'round', 'square', 'dotted'"


def test_a_package_of_kinds_needs_no_list(tmp_path: Path) -> None:
    """Fails if a new file in such a package is not found, or if a kind that is not asked for is imported."""
    package = tmp_path / "shapes"
    package.mkdir()
    (package / "__init__.py").touch()
    (package / "_base.py").write_text("raise RuntimeError('not a kind')")
    (package / "oval.py").write_text("raise RuntimeError('nobody asked')")
    (package / "star.py").write_text(
        "from typing import Literal\nfrom darkroom.config.base import Section\n"
        "class Star(Section):\n    kind: Literal['star']\n    points: int\n"
    )
    code = (
        "from darkroom.config.kinds import Kinds\nkinds = Kinds.discovered('shape', 'shapes')\n"
        "print(*kinds.classes, kinds.read({'kind': 'star', 'points': 5}))"
    )
    done = subprocess.run([sys.executable, "-c", code], cwd=tmp_path, capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "oval star kind='star' points=5"


def test_what_has_no_kind_says_so() -> None:
    """Fails if a plain section is taken for one of several kinds."""
    assert kind_of(Drawing) is None
    assert kind_of(Round) == kind_of(Round(kind="round", radius=1.0)) == "round"
