"""Values changed in params.yaml: that one, and not another byte.

Catches what dumping YAML anew does to a file that people write: comments, order, line ends and quotes are gone.
"""

import os
from pathlib import Path

import pytest

from darkroom.config.edit import edit
from darkroom.config.yaml_file import read
from darkroom.core.errors import DarkroomError

TEXT = (
    b"# mine\r\na: {steps: 10, stop_at: null} # flow\r\n"
    b"b:\r\n    stop_at : ~ # why\r\n    steps:\r\n    text: 'stop_at: 3'\r\n"
)


@pytest.mark.parametrize(
    ("key", "value", "before", "after"),
    [
        (("a", "stop_at"), 7, b"stop_at: null}", b"stop_at: 7}"),
        (("b", "stop_at"), 12, b"stop_at : ~ #", b"stop_at : 12 #"),
        (("b", "steps"), 5, b"    steps:\r", b"    steps: 5\r"),
        (("a", "steps"), None, b"steps: 10", b"steps: null"),
    ],
)
@pytest.mark.parametrize("mark", [b"", "\ufeff".encode()])
def test_one_value_changes_and_nothing_else(
    tmp_path: Path, key: tuple[str, ...], value: int | None, before: bytes, after: bytes, mark: bytes
) -> None:
    file = tmp_path / "params.yaml"
    file.write_bytes(mark + TEXT)
    edit(file, {key: value})
    assert file.read_bytes() == mark + TEXT.replace(before, after)
    assert read(file)[key[0]][key[1]] == value
    assert [path.name for path in tmp_path.iterdir()] == ["params.yaml"]


@pytest.mark.parametrize(
    "text", ["x: &n 3\na: {steps: *n}\n", "x: &n {steps: 3}\na: *n\n", "a: {steps: &n 3}\nb: {steps: *n}\n"]
)
def test_a_value_that_others_share_is_left_alone(tmp_path: Path, text: str) -> None:
    file = tmp_path / "params.yaml"
    file.write_text(text)
    with pytest.raises(DarkroomError, match=r"params.yaml: a.steps does not stand there as a plain value of its own"):
        edit(file, {("a", "steps"): 4})
    assert file.read_text() == text


def test_a_link_stays_one_and_modes_stay(tmp_path: Path) -> None:
    real, link = tmp_path / "real.yaml", tmp_path / "params.yaml"
    real.write_text("a: {steps: 1}\n")
    real.chmod(0o600)
    link.symlink_to(real)
    edit(link, {("a", "steps"): 2})
    assert link.is_symlink()
    assert real.read_text() == "a: {steps: 2}\n"
    assert os.stat(real).st_mode & 0o777 == 0o600  # noqa: PTH116
