"""A lock or definition that is not one, links that DVC made, what systems leave behind: each is told for what it is."""

import os
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.support import toy
from tests.support.tampering import DEFINED, ELSEWHERE, LOCK, VAE, WEIGHTS, Audit, linked, named, replaced

pytestmark = pytest.mark.usefixtures("no_waiting")


@pytest.mark.usefixtures("project")
def test_a_dvc_yaml_that_is_no_file_is_one_line_with_its_remedy(
    audit: Audit, run: Callable[..., int], capsys: pytest.CaptureFixture[str]
) -> None:
    """It was read, and an audit waited for a writer for ever."""
    replaced(DEFINED, os.mkfifo)()
    assert run("audit") == 1
    said = capsys.readouterr().err
    assert said.startswith("darkroom: dvc.yaml: is not a file; ")
    toy.shell(said.partition("; ")[2].strip())
    assert audit()["findings"] == []


@pytest.mark.usefixtures("project")
@pytest.mark.parametrize("text", ["", "<<<<<<< HEAD\n", "stages: 7\n", "stages: {train_vae: {}}\n", "\x80"])
def test_a_lock_that_is_none_is_one_line_with_its_remedy(
    audit: Audit, run: Callable[..., int], capsys: pytest.CaptureFixture[str], text: str
) -> None:
    LOCK.write_text(text, encoding="latin-1")
    assert run("audit") == 1
    toy.shell(capsys.readouterr().err.rpartition("; ")[2].partition(", or ")[0])
    assert audit()["findings"] == []


@pytest.mark.usefixtures("project")
@pytest.mark.parametrize("kind", ["symlink", "hardlink"])
def test_links_that_dvc_made_are_known(audit: Audit, kind: str) -> None:
    """And only those: as many others are named above."""
    toy.shell(f"dvc config cache.type {kind} && dvc checkout --relink")
    assert WEIGHTS.is_symlink() == (kind == "symlink")
    assert audit()["findings"] == []
    target = ELSEWHERE / "weights.txt"
    ELSEWHERE.mkdir()
    shutil.copy(WEIGHTS, target)
    WEIGHTS.unlink()
    WEIGHTS.symlink_to(target.resolve())
    found = audit()
    assert named(found, "foreign kind", "weights.txt is a link to")
    toy.shell(found["findings"][0]["remedy"])
    assert audit()["findings"] == []


@pytest.mark.usefixtures("project")
def test_a_link_that_git_keeps_is_no_foreign_kind_where_no_stage_writes(audit: Audit) -> None:
    linked(Path("data/manifests"))()
    toy.commit()
    assert audit()["findings"] == []


@pytest.mark.usefixtures("project")
@pytest.mark.parametrize(
    ("folder", "name"),
    [
        *(
            (VAE, name)
            for name in (".DS_Store", "Thumbs.db", "Icon\r", "._weights.txt", "__pycache__/x.pyc", "@eaDir/x")
        ),
        *((Path(path), ".DS_Store") for path in ("data/prepared/train", "data/manifests", "src/toy")),
        (Path("src/toy"), "__pycache__/x.pyc"),
    ],
    ids=ascii,
)
def test_what_systems_leave_is_a_remark_and_removed(audit: Audit, folder: Path, name: str) -> None:
    """It was called tampering, or code that has changed, for which stages would be trained again."""
    toy.write_files({str(folder / name): "x"})
    found = audit()
    if folder == Path("src/toy") and "pycache" in name:
        assert found["findings"] == []  # everyday, and nothing that DVC hashes
        return
    assert found["whole"]
    assert [finding["kind"] for finding in found["findings"]] == ["system files"]
    toy.shell(found["findings"][0]["remedy"])
    assert audit()["findings"] == []
    assert not (folder / name).exists()
