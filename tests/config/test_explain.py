"""What a key of params.yaml means, from its field. Each test says which fault it would catch."""

import shutil
import subprocess
import sys
from pathlib import Path
from typing import Annotated, Literal

import pytest
from pydantic import Field

from darkroom.config.base import Section
from darkroom.config.explain import explain, page
from darkroom.config.fields import alternatives, choices, class_of, documented, keys, takes
from darkroom.config.kinds import Kinds
from darkroom.config.params import Params
from darkroom.core.errors import DarkroomError

ROOT = Path(__file__).parents[2]


class Shape(Section):
    """A toy component."""


class Round(Shape):
    """A disc."""

    kind: Literal["round"]
    radius: Annotated[float, Field(gt=0)]
    """In pixels,
    at least one."""


class Square(Shape):
    """Four sides."""

    kind: Literal["square"]
    sides: Annotated[list[Annotated[int, Field(ge=1, le=9)]], Field(min_length=4, max_length=4)]


SHAPES = Kinds[Shape]("shape", {name: f"{__name__}:{name.title()}" for name in ("round", "square")})


class Drawing(Section):
    """A toy section, with every sort of field."""

    shape: Annotated[Shape, SHAPES]
    frame: Round | None
    fill: Annotated[Round | Square, Field(discriminator="kind")]
    ink: Literal["black", "blue"] | None
    wash: bool | Literal["always"]
    """Whether it is washed."""
    title: Annotated[str, Field(min_length=1)] | None
    ratios: list[float]


@pytest.fixture(autouse=True)
def _importable(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, __name__, sys.modules[Round.__module__])


@pytest.mark.parametrize(
    ("key", "said"),
    [
        ("shape", "a section with kind: round or square"),
        ("frame", "a section with kind: round, or null"),
        ("fill", "a section with kind: round or square"),
        ("ink", "black or blue or null"),
        ("wash", "true or false or always"),
        ("title", "text that is not empty, or null"),
        ("ratios", "a list, each a number"),
    ],
)
def test_what_a_key_takes_is_said_in_words(key: str, said: str) -> None:
    """Fails if a sort of field is described by another one's words."""
    assert takes(Drawing.model_fields[key]) == said


def test_the_entries_of_a_list_are_described() -> None:
    """Fails if a fault of an entry is answered with what the whole list takes."""
    field = Square.model_fields["sides"]
    assert takes(field) == "a list of 4, each a whole number >= 1 and <= 9"
    assert takes(field, item=True) == "a whole number >= 1 and <= 9"
    assert choices(Drawing.model_fields["ink"]) == ["black", "blue", "null"]
    assert choices(field) == []


@pytest.mark.parametrize("key", ["shape", "fill"])
def test_a_class_is_found_by_the_values_own_kind(key: str) -> None:
    """Fails if components behind `Kinds` and those of a plain union are not treated alike."""
    field = Drawing.model_fields[key]
    assert [*alternatives(field)] == ["round", "square"]
    assert class_of(field, {"kind": "square"}) is Square
    assert class_of(field, {"kind": "oval"}) is class_of(field, {}) is class_of(field, 3) is None


def test_meanings_are_the_docstrings_under_the_fields() -> None:
    """Fails if a docstring is lost, keeps its line breaks, or is given to the field below it."""
    assert documented(Round) == {"radius": "In pixels, at least one."}
    assert documented(Drawing) == {"wash": "Whether it is washed."}


def test_every_kind_brings_its_keys() -> None:
    """Fails if keys behind a choice are left out."""
    found = {(key.path, key.kinds) for key in keys(Drawing)}
    assert ("fill.radius", (("fill", "round"),)) in found
    assert ("fill.sides", (("fill", "square"),)) in found
    assert ("shape.sides", (("shape", "square"),)) in found


@pytest.fixture
def project(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    shutil.copytree(ROOT / "recipes", tmp_path / "recipes")
    for name in ("params.yaml", "dvc.yaml"):
        shutil.copy(ROOT / name, tmp_path / name)
    monkeypatch.chdir(tmp_path)


@pytest.mark.usefixtures("project")
def test_a_key_is_explained_with_its_values_and_its_readers() -> None:
    """Fails if the value comes from elsewhere, or a stage that reads the key is not named."""
    params = Path("params.yaml")
    params.write_text(params.read_text().replace("image_size: 32", "image_size: 64"))
    lines = explain("prepare_data.image_size")
    assert lines[0] == "prepare_data.image_size"
    assert "  takes: a whole number >= 8 and <= 4096" in lines
    assert "  recipes/scenes.yaml: 32" in lines
    assert "  params.yaml: 64" in lines
    assert "  read by: prepare_data" in lines
    assert any(line.startswith("  changes: data/prepared") for line in lines)
    assert any("train_unet" in line for line in lines if line.startswith("  then run again"))
    assert any("no stage" in line for line in explain("register.vae_psnr"))


@pytest.mark.usefixtures("project")
def test_sections_and_kinds_list_their_keys() -> None:
    """Fails if a kind cannot be asked for, or a section's own kind is passed over."""
    assert any(line.split() and line.split()[0] == "image_size" for line in explain("prepare_data"))
    kinds = explain("prepare_data.source")
    assert any(line.strip().startswith("kind: webdataset") for line in kinds)
    assert any(line.split() and line.split()[0] == "n_train" for line in kinds)
    assert any(line.split() and line.split()[0] == "root" for line in explain("prepare_data.source.webdataset"))
    assert [line.split()[0] for line in explain(None)] == list(Params.model_fields)


@pytest.mark.parametrize(
    ("key", "nearest"), [("train_unet.stepps", "train_unet.steps"), ("image_size", "prepare_data.image_size")]
)
def test_a_wrong_key_is_answered_with_the_nearest(key: str, nearest: str) -> None:
    """Fails if a misspelt or shortened key gives no clue."""
    with pytest.raises(DarkroomError, match=rf"{key}: no such key in params.yaml; did you mean .*{nearest}"):
        explain(key)


def test_the_page_of_parameters_is_current() -> None:
    """Fails if a field changed and `make docs` was not run."""
    assert (ROOT / "docs" / "parameters.md").read_text(encoding="utf-8") == page(), "run: make docs"


def test_the_page_has_every_key() -> None:
    """Fails if a section or a kind is left out of the page."""
    text = page()
    for key in keys(Params):
        assert f"- **{key.path.rpartition('.')[2]}** (" in text or key.path.endswith(".kind")


@pytest.mark.parametrize("command", [("--help",), ("params", "check"), ("params", "explain", "train_unet.process")])
def test_quick_commands_import_no_torch(command: tuple[str, ...]) -> None:
    """Fails if an import makes a command wait seconds for PyTorch."""
    code = (
        f"import sys; sys.argv = ['darkroom', *{command!r}]; from darkroom.cli import main\n"
        "try: main()\nexcept SystemExit as end: assert not end.code\n"
        "assert not {'torch', 'mlflow'} & set(sys.modules)"
    )
    subprocess.run([sys.executable, "-c", code], cwd=ROOT, check=True, capture_output=True)
