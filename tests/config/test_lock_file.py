"""dvc.lock has one reader, which every command uses."""

from pathlib import Path

import pytest

from darkroom.config.lock_file import parse_lock, read_lock
from darkroom.core.errors import DarkroomError

SOURCE = Path(__file__).parents[2] / "src"
LOCKED = """
schema: '2.0'
stages:
  code:
    cmd: darkroom sync
    outs: [{path: code/learn.json, hash: md5, md5: c0, size: 3}]
  learn:
    cmd: python -P stages/learn.py
    deps:
    - {path: code/learn.json, hash: md5, md5: c0, size: 3}
    - {path: data/prepared, hash: md5, md5: d1.dir, size: 70, nfiles: 2}
    params:
      params.yaml: {learn.rate: 1e-3}
    outs:
    - {path: artifacts/unet, hash: md5, md5: u1.dir, size: 40, nfiles: 3}
"""


def test_an_entry_is_told_apart_into_code_inputs_and_outputs() -> None:
    """Would catch inputs that count as code, and 1e-3 read as a text, which DVC writes so."""
    learn = parse_lock(LOCKED)["learn"]
    assert (learn.code, learn.inputs) == ({"code/learn.json": "c0"}, {"data/prepared": "d1.dir"})
    assert (learn.outputs, learn.sizes) == ({"artifacts/unet": "u1.dir"}, {"artifacts/unet": 40})
    assert learn.params == {"params.yaml": {"learn.rate": 0.001}}


def test_what_lies_on_a_server_is_known_by_its_mark() -> None:
    """Fails if one dependency that DVC did not hash makes the whole file "not a lock file"."""
    deps = "[{path: 'https://a/b', etag: e1}, {path: 'hdfs://a/b', checksum: c1}, {path: 'x://a', size: 3}]"
    found = parse_lock(f"stages: {{learn: {{cmd: x, deps: {deps}}}}}")["learn"].inputs
    assert list(found.values()) == ["e1", "c1", ""]


def test_a_stage_that_only_lists_code_is_none() -> None:
    """Would catch a report, or an audit, of the stage that `darkroom new` puts before the others."""
    assert list(parse_lock(LOCKED)) == ["learn"]


def test_where_there_is_no_lock_file_nothing_ran(tmp_path: Path) -> None:
    assert read_lock(tmp_path / "dvc.lock") == {}
    (tmp_path / "dvc.lock").touch()
    with pytest.raises(DarkroomError, match=r"it is empty.*git checkout"):
        read_lock(tmp_path / "dvc.lock")


@pytest.mark.parametrize("text", ["[", "stages: 3", "schema: '2.0'", "\x00", "stages: {learn: {outs: [unet]}}"])
def test_what_is_no_lock_file_is_refused_in_one_line(tmp_path: Path, text: str) -> None:
    (tmp_path / "dvc.lock").write_text(text)
    with pytest.raises(DarkroomError, match=r"^dvc\.lock: not a lock file \(.*\); git checkout dvc\.lock, or delete"):
        read_lock(tmp_path / "dvc.lock")


def test_nothing_else_reads_it() -> None:
    """Fails if dvc.lock is parsed a second time elsewhere: entries were read in eight places, each its own way."""
    entries = [
        file.name
        for file in SOURCE.rglob("*.py")
        if any(f'get("{key}"' in file.read_text(encoding="utf-8") for key in ("outs", "deps"))
    ]
    assert sorted(set(entries)) == ["definition.py", "lock_file.py", "stage_spec.py"]
