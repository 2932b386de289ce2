"""recipes/emoji_pictures.py: published icon sets as a captioned folder with held-out pairs of style and idea."""

import hashlib
import io
import json
import os
import sys
import tarfile
from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import pytest
from PIL import Image

from darkroom.core.errors import DarkroomError
from darkroom.data.sources.captioned_folder import CaptionedFolder
from tests.support.noting import samples_of

SCRIPT = Path(__file__).parents[2] / "recipes" / "emoji_pictures.py"
SETS = ("noto", "openmoji", "fxemoji")
LABELS = ("style", "idea")
IDEAS = 40


@pytest.fixture
def script(load: Callable[[Path], ModuleType], monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    pytest.importorskip("resvg_py", reason="icons are drawn by the test extra resvg-py")
    module = load(SCRIPT)
    monkeypatch.setitem(sys.modules, module.__name__, module)  # processes look up there what they are to do
    return module


def circle(radius: int, colour: str) -> str:
    return f'<circle cx="8" cy="8" r="{radius}" fill="{colour}"/>'


def publish(folder: Path, prefix: str, icons: Mapping[str, Any], characters: Mapping[str, str], **more: Any) -> None:
    """A set as `npm pack` writes it."""
    about = {"name": prefix, "author": {"name": "A", "url": "https://a"}, "license": {"spdx": "MIT"}}
    files: dict[str, Any] = {
        "package": {"version": "1.0"},
        "info": about,
        "chars": characters,
        "icons": {"prefix": prefix, "icons": icons, **more},
    }
    with tarfile.open(folder / f"{prefix}.tgz", "w:gz") as archive:
        for name, value in files.items():
            data = json.dumps(value).encode()
            member = tarfile.TarInfo(f"package/{name}.json")
            member.size = len(data)
            archive.addfile(member, io.BytesIO(data))


@pytest.fixture
def published(tmp_path: Path) -> Path:
    """Three sets of circles; the third says no characters and writes names without dashes."""
    folder = tmp_path / "sets"
    folder.mkdir()
    for i, prefix in enumerate(SETS):
        dash = "" if prefix == "fxemoji" else "-"
        names = [f"round{dash}thing{dash}{k}" for k in range(IDEAS)]
        icons: dict[str, Any] = {
            name: {"body": circle(2 + i, f"rgb({5 * k},{60 * i},90)")} for k, name in enumerate(names)
        }
        characters = {f"1f4{k:02x}": name for k, name in enumerate(names)}
        icons |= {
            "hand-dark-skin-tone": {"body": circle(4, "#111")},
            "flag-for-x": {"body": circle(5, "#222")},
            f"only{dash}{prefix}": {"body": circle(6, f"#{i}33")},
            "empty": {"body": ""},
            "worded": {"body": "<text>A</text>"},
            "old": {"body": circle(7, "#444"), "hidden": True},
        }
        characters |= {"1f590-1f3ff": "hand-dark-skin-tone", "1f1e6-1f1e8": "flag-for-x", "1f6aa": "empty"}
        characters |= {"1f6ab": "worded", f"1f60{i}": f"only-{prefix}"}
        publish(folder, prefix, icons, {} if prefix == "fxemoji" else characters, width=16, height=16)
    return folder


def test_a_captioned_folder_with_held_out_pairs_comes_of_the_sets(
    script: ModuleType, published: Path, tmp_path: Path
) -> None:
    """Fails if a held-out pair or too few of its idea are in train, a style is named by its maker, or bytes differ."""
    counts = script.write(script.packs_of([published], SETS), tmp_path / "a", 24)
    assert counts == {"train": 96, "novel": 12, "test": 6, "validation": 6}
    source = CaptionedFolder(str(tmp_path / "a"), labels=LABELS)
    samples = samples_of(source)
    style, idea = source.heads
    assert style.classes == ("muted", "outlined", "shaded")
    assert idea.classes == tuple(sorted(f"round thing {k}" for k in range(IDEAS)))
    pairs = [(sample.split, *sample.labels) for sample in samples]
    assert len({pair[1:] for pair in pairs}) == len(pairs) == 3 * IDEAS
    trained = [pair[2] for pair in pairs if pair[0] == "train"]
    assert min(trained.count(k) for k in range(IDEAS)) >= 2
    for sample in samples:
        assert not {"noto", "openmoji", "fxemoji"} & set(" ".join((sample.caption, *sample.others)).split())
        assert len(sample.others) == (2 if sample.split == "train" else 0)
    with Image.open(tmp_path / "a" / samples[0].path) as picture:
        pixels = np.asarray(picture)
        assert (picture.mode, picture.size) == ("RGB", (24, 24))
        assert (pixels[0, 0] == 255).all()
        assert (pixels[12, 12] < 255).any()
    readme = (tmp_path / "a" / "README.md").read_text()
    assert '| outlined | "black outline" | [openmoji](https://a), A | openmoji 1.0 | MIT |' in readme
    listed = (tmp_path / "a" / "skipped.csv").read_text().splitlines()
    for reason in ("a skin tone", "an idea that fewer than 3 sets show", "cannot be drawn", "has text", "no set says"):
        assert any(reason in line for line in listed), reason
    assert script.write(script.packs_of([published], SETS), tmp_path / "b", 24) == counts
    assert digest(tmp_path / "a") == digest(tmp_path / "b")


def digest(folder: Path) -> dict[str, str]:
    files = (file for file in folder.rglob("*") if file.is_file())
    return {file.relative_to(folder).as_posix(): hashlib.md5(file.read_bytes()).hexdigest() for file in files}


def test_it_says_what_is_in_its_way(
    script: ModuleType, published: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    packs = script.packs_of([published], SETS)
    with pytest.raises(DarkroomError, match="sets: exists; remove it, or name another folder with --out"):
        script.write(packs, published, 24)
    with pytest.raises(DarkroomError, match="no file of the sets twemoji; found fxemoji, noto, openmoji"):
        script.packs_of([published], ["twemoji"])
    (tmp_path / "x.tgz").write_bytes(b"x")
    with pytest.raises(DarkroomError, match=r"x\.tgz: not an icon set as `npm pack` writes it"):
        script.packs_of([tmp_path / "x.tgz"], SETS)
    monkeypatch.setenv("PATH", "")
    with pytest.raises(DarkroomError, match=r"npm is not installed; fetch @iconify-json/noto@.* with --from"):
        script.fetched(["noto"]).__enter__()
    monkeypatch.setitem(__import__("sys").modules, "resvg_py", None)
    with pytest.raises(DarkroomError, match="the renderer is not installed; pip install resvg-py"):
        script.write(packs, tmp_path / "out", 24)
    assert not (tmp_path / "out").exists()


def test_a_handful_of_published_icons(script: ModuleType, tmp_path: Path) -> None:
    """Fails if the sets as they are published are not understood."""
    root = Path(os.environ.get("DARKROOM_DATA") or "nowhere") / "emoji"
    if not root.is_dir():
        pytest.skip("DARKROOM_DATA names no folder with the icon sets")
    names = ["noto", "twemoji", "openmoji", "emojione"]
    ideas = {"goat", "violin", "rocket", "castle", "bomb", "croissant", "rooster", "umbrella", "snowman", "spider"}
    packs = [
        replace(pack, icons={name: icon for name, icon in pack.icons.items() if name in ideas})
        for pack in script.packs_of(sorted(root.glob("*.tgz")), names)
    ]
    counts = script.write(packs, tmp_path / "out", 32)
    assert counts.total() == len(names) * len(ideas)
    assert counts["novel"] == len(names)
    source = CaptionedFolder(str(tmp_path / "out"), labels=LABELS)
    assert source.heads[1].classes == tuple(sorted(ideas))
    goats = {sample.caption for sample in samples_of(source) if "goat" in sample.caption}
    assert any("outline" in caption for caption in goats)
    readme = (tmp_path / "out" / "README.md").read_text()
    assert all(licence in readme for licence in ("Apache-2.0", "CC-BY-4.0", "CC-BY-SA-4.0"))
