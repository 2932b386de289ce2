"""Names and records from outside are printed, and never obeyed by the terminal that prints them."""

import os
from collections.abc import Callable
from pathlib import Path

import pytest

from darkroom.core.artifact import content_hash
from tests.support import toy

VAE, PREPARED, PIPELINE = Path("artifacts/vae"), Path("data/prepared"), Path("artifacts/pipeline")
EVIL = [
    "\x1b[2J\x1b[1;1Hwhole",
    "\x9b31m",
    "\u202egnp.exe",
    "\u200b",
    "a\nThe chain is whole: 3 stages",
    "\r✓",
    "\udc80",
]


@pytest.mark.usefixtures("project")
@pytest.mark.parametrize("name", EVIL, ids=ascii)
def test_no_name_from_outside_reaches_the_terminal_as_it_is(
    run: Callable[..., int], capsys: pytest.CaptureFixture[str], name: str
) -> None:
    """Names of files, and what the record of a picture says, moved the cursor, or wrote lines of their own."""
    (VAE / name).write_text("")
    os.mkfifo(PREPARED / f"{name}pipe")
    picture = toy.draw_picture(Path(f"{name}.png") if "\udc80" not in name else Path("x.png"), content_hash(PIPELINE))
    for arguments in ((), (str(picture),), (f"{name}.txt",), ("--json",)):
        assert run("audit", *arguments) in (0, 1)
        said = "".join(capsys.readouterr())
        assert all(line.isprintable() for line in said.split("\n")), said
        assert "\nThe chain is whole: 3 stages\n" not in said
        assert not any(line.startswith("The chain is whole: 3 stages") for line in said.split("\n")) or not arguments


@pytest.mark.usefixtures("project")
def test_a_picture_whose_record_is_hostile_is_told_escaped(
    run: Callable[..., int], capsys: pytest.CaptureFixture[str]
) -> None:
    for name in EVIL[:-1]:
        toy.draw_picture(Path("x.png"), f"{name}.dir", sampler=name)
        run("audit", "x.png")
        said = "".join(capsys.readouterr())
        assert all(line.isprintable() for line in said.split("\n")), said
        assert "\nThe chain is whole" not in said
