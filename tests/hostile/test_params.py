"""Params files made to hurt: one line says what is wrong, at once."""

import os
from pathlib import Path

import pytest

from darkroom.config.params import load, problems, read
from tests.support import trial

SOUND = (Path(__file__).parents[2] / "recipes" / "scenes.yaml").read_text(encoding="utf-8")
LAUGHS = "\n".join(f"x{i}: &x{i} [{', '.join([f'*x{i - 1}'] * 9)}]" for i in range(1, 12))
HURTING = {
    "deep": ("[" * 1000, "is nested deeper than 30 levels; write one with"),
    "deep enough": (SOUND + "x: " + "[" * 40 + "]" * 40, "is nested deeper than 30 levels"),
    "holds itself": (SOUND + "x: &a [*a]\n", "is nested deeper than 30 levels"),
    "billions": (SOUND + "x0: &x0 [x]\n" + LAUGHS, "holds more than 5000 values"),
    "huge": ("# " * 200_000, "is larger than 256 KiB"),
    "digits": (SOUND + "x: " + "9" * 5000, "cannot be read as int; mend that line"),
    "hexadecimal digits": (SOUND + "x: 0x" + "f" * 5000, "holds a number of more than 300 digits"),
    "no date": (SOUND + "x: 2001-99-99", "'2001-99-99' cannot be read as timestamp; mend that line"),
    "no truth": (SOUND + "x: !!bool perhaps", "'perhaps' cannot be read as bool; mend that line"),
    "key of a list": (SOUND + "? [a]\n: 3", "a key is no text; mend that line"),
    "key of two lines, twice": (SOUND + '"a\\nb": 1\n"a\\nb": 2', "the key 'a\\nb' stands here twice; mend that line"),
    "half a letter": (SOUND + '"\\ud800": 3', "is not text that UTF-8 can hold"),
}


@pytest.mark.parametrize("name", HURTING)
def test_files_made_to_hurt(name: str, tmp_path: Path) -> None:
    text, said = HURTING[name]
    file = tmp_path / "params.yaml"
    file.write_text(text, encoding="utf-8")
    message = trial.refusal(lambda: load(file))
    assert message.startswith(str(file))
    assert said in message
    assert trial.refusal(lambda: read(file)) == message


def test_keys_and_values_of_many_lines_are_told_in_one(tmp_path: Path) -> None:
    file = tmp_path / "params.yaml"
    file.write_text(SOUND.replace("kind: scenes", 'kind: "a\\nb"') + '"a\\nb": 3\n' + "k" * 900 + ": 3\n", "utf-8")
    with trial.within(5):
        found = problems(file)
    assert all(line.isprintable() and len(line) < 600 for line in found)
    assert any("'a\\nb' = 3 is an unknown key" in line for line in found)
    assert any("prepare_data.source.kind = 'a\\nb': give scenes or" in line for line in found)


def test_what_is_no_file(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe")
    (tmp_path / "endless").symlink_to("/dev/zero")
    for path in (tmp_path, tmp_path / "pipe", tmp_path / "endless"):
        assert "cannot be read (it is a folder, pipe or device)" in trial.refusal(lambda path=path: load(path))
    assert "cannot be read (File name too long)" in trial.refusal(lambda: load("x" * 300))
