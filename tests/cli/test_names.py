"""Names of pictures are checked as bytes, all of them, before anything is drawn.

Sixty four-byte letters and `-n 10` wrote nine pictures, then failed at the name of the tenth.
"""

import os
from collections.abc import Callable
from pathlib import Path

import pytest

from darkroom.cli.names import check_names
from darkroom.core.errors import DarkroomError
from darkroom.inference.file_names import slug
from tests.support import pipelines

LETTER = "𝔞"  # four bytes
Run = Callable[..., int]


@pytest.fixture
def place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty folder, the current one; whoever comes as far as to load a pipeline finds none."""
    monkeypatch.chdir(tmp_path)
    return tmp_path


def test_of_a_prompt_of_wide_letters_every_picture_has_a_name(
    place: Path, run: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    pipelines.assembled(place / "pipeline")
    found = next(path.parent for path in place.rglob("pipeline.json"))
    assert run("generate", LETTER * 60, "-n", "10", "--steps", "1", "--pipeline", str(found)) == 0
    names = [path.name for path in Path("samples").iterdir()]
    assert len(names) == 11
    assert all(LETTER * 50 in name for name in names)


TOO_LONG = {
    "only the tenth": (f"{'a' * (255 - len('..partial-9.png'))}.png", 10),
    "wide letters": (f"{LETTER * 60}.png", 10),
    "the file": (f"{'a' * 252}.png", 1),
    "a folder": (f"{LETTER * 64}/x.png", 1),
    "the path": ("/".join(["a" * 200] * 21) + "/x.png", 1),
}


@pytest.mark.parametrize(("out", "n"), TOO_LONG.values(), ids=TOO_LONG)
@pytest.mark.parametrize("command", ["generate", "regenerate"])
def test_names_too_long_are_refused_before_any_work(
    command: str, out: str, n: int, place: Path, run: Run, capsys: pytest.CaptureFixture[str]
) -> None:
    if command == "regenerate" and n == 1:
        with pytest.raises(DarkroomError, match=r"shorter name|another path"):
            check_names("--out", [Path(out)])
        return
    assert run("generate", "a ring", "-n", str(n), "--out", out) == 1
    said = capsys.readouterr().err
    assert said.startswith("darkroom: --out = ")
    assert "bytes" in said
    assert said.count("\n") == 1
    assert not list(place.iterdir())


def test_a_name_that_just_fits_is_written(place: Path) -> None:
    """The limit is the file system's, less what the name takes while the file is written."""
    most = os.pathconf(place, "PC_NAME_MAX") - len("..partial") - len(".png")
    fits, over = Path(f"{'a' * most}.png"), Path(f"{'a' * (most + 1)}.png")
    check_names("--out", [fits])
    from darkroom.core.artifact import atomic_path

    with atomic_path(fits) as beside:
        beside.write_text("x")
    with pytest.raises(DarkroomError, match=r"needs a name of 256 bytes"):
        check_names("--out", [over])
    with pytest.raises(OSError, match="too long"), atomic_path(over) as beside:
        beside.write_text("x")


def test_what_stands_at_any_of_the_names_is_seen_before(
    place: Path, run: Run, capsys: pytest.CaptureFixture[str]
) -> None:
    Path("x-7.png").mkdir()
    assert run("generate", "a ring", "-n", "9", "--out", "x.png") == 1
    assert "x-7.png: is a folder; give another name" in capsys.readouterr().err
    assert run("generate", "a ring", "-n", "9", "--out", "y.png") == 1
    assert "no such pipeline" in capsys.readouterr().err, "nothing is wrong with the other names"
    Path("gone").symlink_to("nowhere")
    assert run("generate", "a ring", "--out", "gone/x.png") == 1
    assert "gone is a broken link" in capsys.readouterr().err
    assert run("generate", "a ring", "--out", "caf\udce9.png") == 1
    assert "cannot be written as UTF-8" in capsys.readouterr().err


def test_slugs_are_cut_between_letters() -> None:
    assert slug(LETTER * 70) == LETTER * 50
    assert slug("a" * 70) == "a" * 60
    assert slug("\ud800") == "picture"
