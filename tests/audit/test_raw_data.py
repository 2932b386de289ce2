"""Files from outside the project against their manifest."""

import hashlib
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from darkroom.audit.raw_data import ENDINGS
from darkroom.core.artifact import write_json
from darkroom.data.sources.captioned_folder import CaptionedFolder
from darkroom.data.sources.image_folder import ImageFolder
from darkroom.data.sources.webdataset import WebDataset
from tests.support import toy

Audit = Callable[..., dict[str, Any]]


@pytest.mark.usefixtures("project")
def test_raw_data_are_held_against_their_manifest(audit: Audit) -> None:
    raw = Path("data/raw/pictures")
    (raw / "a.png").write_text("x")
    (raw / "b.png").unlink()
    (raw / "c.png").write_text("c")
    found = audit()
    assert {(finding["kind"], finding["where"]) for finding in found["findings"]} == {("raw data", str(raw))}
    told = [finding["what"].rpartition(": ")[2] for finding in found["findings"]]
    assert told == ["b.png gone", "a.png changed", "c.png new"]
    assert all("darkroom data scan" in finding["remedy"] for finding in found["findings"])
    shutil.rmtree(raw)
    found = audit()
    assert found["whole"]
    assert [finding["kind"] for finding in found["findings"]] == ["no raw data"]


@pytest.mark.usefixtures("project")
@pytest.mark.parametrize("kind", [*ENDINGS, "torchvision"])
def test_new_raw_data_are_what_the_source_would_read(audit: Audit, kind: str) -> None:
    """Not its bystanders, whatever kinds of files the manifest has."""
    raw, given = Path("data/raw/pictures"), {"a.png": "a", "b.png": "b"}
    manifest = {name: {"size": 1, "md5": hashlib.md5(text.encode()).hexdigest()} for name, text in given.items()}
    manifest["metadata.csv"] = {"size": 0, "md5": hashlib.md5(b"").hexdigest()}
    beside = ("metadata.csv", "notes.csv", "c.jpg", "d.txt", "e.tgz", "f.avif")
    toy.write_files({str(raw / name): "" for name in beside})
    write_json("data/manifests/toy.json", manifest)
    Path("params.yaml").write_text(toy.PARAMS.replace("image_folder", kind))
    toy.shell("dvc commit -f prepare_data")
    root = str(raw.absolute())
    sources = {
        "image_folder": lambda: ImageFolder(root, ""),
        "captioned_folder": lambda: CaptionedFolder(root),
        "webdataset": lambda: WebDataset(root),
    }
    new = set(sources[kind]().files.names) - manifest.keys() if kind in sources else set()
    told = [finding["what"].rpartition(": ")[2] for finding in audit("prepare_data")["findings"]]
    assert told == ([f"{', '.join(sorted(new))} new"] if new else [])


def test_the_endings_of_raw_data_are_those_of_their_sources(tmp_path: Path) -> None:
    of_sources = (ImageFolder(str(tmp_path), ""), CaptionedFolder(str(tmp_path)), WebDataset(str(tmp_path)))
    assert list(ENDINGS.values()) == [source.files._suffixes for source in of_sources]
