"""Artifacts appear whole, are named as DVC names them, and are the same bytes each time."""

import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from darkroom.core.artifact import (
    PROVENANCE,
    atomic_path,
    check_made_from,
    content_hash,
    load_tensors,
    provenance,
    read_json,
    save_tensors,
    write_json,
)
from darkroom.core.errors import DarkroomError


def listing(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


def test_a_file_takes_its_place_when_it_is_whole(tmp_path: Path) -> None:
    path = tmp_path / "deep" / "file.txt"
    with atomic_path(path) as beside:
        beside.write_text("new")
        assert not path.exists()
    assert path.read_text() == "new"
    assert listing(path.parent) == ["file.txt"]


@pytest.mark.parametrize("kind", ["file", "folder"])
def test_a_failure_leaves_what_was_there_and_nothing_else(tmp_path: Path, kind: str) -> None:
    path = tmp_path / "thing"
    if kind == "folder":
        path.mkdir()
    (path / "part" if kind == "folder" else path).write_text("old")

    def fail() -> None:
        with atomic_path(path) as beside:
            if kind == "folder":
                beside.mkdir()
            (beside / "part" if kind == "folder" else beside).write_text("half of it")
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        fail()
    assert (path / "part" if kind == "folder" else path).read_text() == "old"
    assert listing(tmp_path) == ["thing"]


def test_a_file_does_not_replace_a_folder(tmp_path: Path) -> None:
    path = tmp_path / "thing"
    path.mkdir()
    (path / "part").write_text("old")
    with pytest.raises(DarkroomError, match="is a folder, and a file is to be written"), atomic_path(path) as beside:
        beside.write_text("new")
    assert (path / "part").read_text() == "old"
    assert listing(tmp_path) == ["thing"]


def test_a_new_folder_replaces_the_old_one_altogether(tmp_path: Path) -> None:
    path = tmp_path / "folder"
    for name in ("old", "new"):
        with atomic_path(path) as beside:
            beside.mkdir()
            (beside / name).write_text(name)
    assert listing(path) == ["new"]


def test_what_an_interrupted_run_left_beside_is_not_mixed_in(tmp_path: Path) -> None:
    path = tmp_path / "folder"
    torn = path.with_name(".folder.partial")
    torn.mkdir()
    (torn / "half").write_text("")
    with atomic_path(path) as beside:
        beside.mkdir()
        (beside / "part").write_text("whole")
    assert listing(path) == ["part"]


def test_nothing_written_is_an_error_and_harms_nothing(tmp_path: Path) -> None:
    path = tmp_path / "file"
    path.write_text("old")
    with pytest.raises(DarkroomError, match="nothing was written"), atomic_path(path):
        pass
    assert path.read_text() == "old"


def test_a_hash_is_the_one_dvc_gives(tmp_path: Path) -> None:
    pytest.importorskip("dvc", reason="compares with the real DVC")
    folder = tmp_path / "folder"
    for name in ("a-b", "a/b", "a.b/c", "a/ä", "Z", "empty"):
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_text("" if name == "empty" else f"content of {name}")
    (tmp_path / "file").write_bytes(b"\x00\r\n\xff")
    for command in (["init", "--no-scm", "-q"], ["add", "-q", "folder", "file"]):
        subprocess.run([sys.executable, "-m", "dvc", *command], cwd=tmp_path, check=True)
    for name in ("folder", "file"):
        assert f"md5: {content_hash(tmp_path / name)}\n" in (tmp_path / f"{name}.dvc").read_text()


def test_a_hash_depends_on_names_and_content_alone(tmp_path: Path) -> None:
    def folder(where: str, name: str, content: str) -> str:
        path = tmp_path / where / name
        path.parent.mkdir()
        path.write_text(content)
        return content_hash(path.parent)

    same = folder("1", "a", "x")
    assert same.endswith(".dir")
    assert folder("2", "a", "x") == same
    assert folder("3", "b", "x") != same
    assert folder("4", "a", "y") != same


def test_a_hash_of_nothing_says_how_to_get_it(tmp_path: Path) -> None:
    with pytest.raises(DarkroomError, match=r"gone: no such file or folder; .*dvc repro"):
        content_hash(tmp_path / "gone")


def test_json_is_the_same_bytes_for_the_same_value(tmp_path: Path) -> None:
    write_json(tmp_path / "deep" / "1.json", {"b": [1, 2.5, None], "a": "ä"})
    write_json(tmp_path / "2.json", {"a": "ä", "b": [1, 2.5, None]})
    assert (tmp_path / "deep" / "1.json").read_bytes() == (tmp_path / "2.json").read_bytes()
    assert (tmp_path / "2.json").read_text(
        encoding="utf-8"
    ) == '{\n  "a": "ä",\n  "b": [\n    1,\n    2.5,\n    null\n  ]\n}\n'
    assert read_json(tmp_path / "2.json") == {"a": "ä", "b": [1, 2.5, None]}


def test_json_never_holds_what_other_readers_refuse(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="not JSON compliant"):
        write_json(tmp_path / "nan.json", {"loss": float("nan")})


def test_unreadable_json_is_named(tmp_path: Path) -> None:
    (tmp_path / "torn.json").write_text('{"a": ')
    with pytest.raises(DarkroomError, match=r"torn\.json: not valid JSON"):
        read_json(tmp_path / "torn.json")
    with pytest.raises(DarkroomError, match=r"gone\.json: no such file"):
        read_json(tmp_path / "gone.json")


def test_tensors_are_the_same_bytes_in_any_order_and_readable_by_everyone(tmp_path: Path) -> None:
    a, b = torch.arange(6.0).view(2, 3), torch.tensor([1, 2], dtype=torch.int64)
    before = os.umask(0o077)
    try:
        save_tensors(tmp_path / "1", {"a": a, "b": b})
        save_tensors(tmp_path / "2", {"b": b, "a": a.T.contiguous().T.requires_grad_()})
    finally:
        os.umask(before)
    assert (tmp_path / "1").read_bytes() == (tmp_path / "2").read_bytes()
    assert (tmp_path / "1").stat().st_mode & 0o777 == 0o644
    loaded = load_tensors(tmp_path / "1")
    assert torch.equal(loaded["a"], a)
    assert torch.equal(loaded["b"], b)


@pytest.mark.parametrize("content", [b"", b"no tensors", None], ids=["empty", "text", "truncated"])
def test_unreadable_tensors_are_named(tmp_path: Path, content: bytes | None) -> None:
    path = tmp_path / "weights.safetensors"
    save_tensors(path, {"a": torch.zeros(100)})
    path.write_bytes(path.read_bytes()[:-50] if content is None else content)
    with pytest.raises(DarkroomError, match=r"weights\.safetensors: not a readable safetensors file"):
        load_tensors(path)


def test_missing_tensors_are_named(tmp_path: Path) -> None:
    with pytest.raises(DarkroomError, match=r"gone: no such file; .*dvc repro"):
        load_tensors(tmp_path / "gone")


def test_an_artifact_of_another_source_is_refused_with_both_hashes(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    source, artifact = Path("data/source"), Path("artifacts/made")
    source.mkdir(parents=True)
    (source / "file").write_text("first")
    write_json(artifact / PROVENANCE, provenance(source))
    check_made_from(artifact, source)
    first = content_hash(source)
    (source / "file").write_text("second")
    with pytest.raises(DarkroomError, match="do not belong together") as error:
        check_made_from(artifact, source)
    assert first in str(error.value)
    assert content_hash(source) in str(error.value)
    assert "\n" not in str(error.value)
