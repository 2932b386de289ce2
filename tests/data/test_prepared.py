"""What was written is read back unchanged, by us and by Hugging Face datasets."""

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch

from darkroom.core.errors import DarkroomError
from darkroom.data.head import Head
from darkroom.data.names import names_of
from darkroom.data.prepare import prepare
from darkroom.data.prepared import Prepared
from darkroom.data.prepared_writer import PreparedWriter, Row
from darkroom.data.sources.scenes import HEADS, Scenes
from darkroom.view.contact_sheet import contact_sheet
from tests.support.settings import preparation

SOURCE = Scenes(45, 5, 5, 5, seed=0)


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Scenes, prepared."""
    path = tmp_path_factory.mktemp("data") / "prepared"
    prepare(SOURCE, path, preparation(image_size=32, max_bad_fraction=0.0))
    return path


@pytest.fixture
def digits(tmp_path: Path, pixels: Callable[..., np.ndarray]) -> Path:
    """Grey pictures with one class each."""
    path = tmp_path / "digits"
    writer = PreparedWriter(path, "digits", (Head("label", ("zero", "one", "two")),), True, 8, 1)
    for i in range(6):
        writer.add("train", Row(pixels(i, 8)[..., 0], f"{i}.png", f"a {i % 3}", (i % 3,), (True,)))
    writer.finish()
    return path


def test_scenes_come_back_unchanged(root: Path) -> None:
    split = Prepared.open(root).split("train")
    scenes = [SOURCE.scene("train", i) for i in range(45)]
    expected = torch.from_numpy(SOURCE.draw(scenes)).permute(0, 3, 1, 2)
    assert len(split) == 45
    assert torch.equal(split.images(), expected)
    assert torch.equal(split.images([7, 3, 7]), expected[[7, 3, 7]])
    assert torch.equal(split.images(torch.tensor([44])), expected[44:])
    assert split.captions == [s.caption for s in scenes]
    assert split.labels.tolist() == [list(s.labels) for s in scenes]
    assert split.mentioned.tolist() == [list(s.mentioned) for s in scenes]
    assert (split.labels.dtype, split.mentioned.dtype) == (torch.int64, torch.bool)
    assert split.info.heads == HEADS


def test_pictures_are_known_by_the_names_of_their_source(tmp_path: Path, pixels: Callable[..., np.ndarray]) -> None:
    """Catches the name of a neighbour: rows are spread over shards and row groups, and come in any order."""
    writer = PreparedWriter(tmp_path / "named", "digits", (), False, 8, 1)
    for i in range(2500):
        writer.add("train", Row(pixels(i % 7, 8)[..., 0], f"a/{i}.png", "", (), ()))
    writer.finish()
    rows = [2499, 0, 999, 1000, 0]
    assert names_of(tmp_path / "named" / "train", rows) == [f"a/{i}.png" for i in rows]


def test_class_labels_come_back(digits: Path, pixels: Callable[..., np.ndarray]) -> None:
    split = Prepared.open(digits).split("train")
    assert split.info.class_labelled
    assert split.labels.tolist() == [[0], [1], [2], [0], [1], [2]]
    assert split.mentioned.all()
    assert split.mentioned.shape == (6, 1)
    assert torch.equal(split.images([5])[0, 0], torch.from_numpy(pixels(5, 8)[..., 0]))


def test_without_labels_there_are_no_heads(tmp_path: Path, pixels: Callable[..., np.ndarray]) -> None:
    writer = PreparedWriter(tmp_path / "plain", "plain", (), True, 8, 3)
    writer.add("train", Row(pixels(0, 8), "0.png", "noise", (), ()))
    writer.finish()
    split = Prepared.open(tmp_path / "plain").split("train")
    assert split.labels.shape == split.mentioned.shape == (1, 0)


def test_large_splits_are_decoded_in_pieces(tmp_path: Path, root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Several shards and row groups, read by row group or once into a mapped file, give the same as one kept whole."""
    monkeypatch.setattr("darkroom.data.prepared_writer.SHARD_ROWS", 20)
    monkeypatch.setattr("darkroom.data.prepared_writer.GROUP_ROWS", 6)
    prepare(SOURCE, tmp_path / "pieces", preparation(image_size=32, max_bad_fraction=0.0))
    assert len(list((tmp_path / "pieces/train").iterdir())) == 3
    expected = Prepared.open(root).split("train").images()
    chosen = torch.randperm(45, generator=torch.Generator().manual_seed(0))
    for limit in ("IN_MEMORY_BYTES", "DECODED_BYTES"):
        monkeypatch.setattr(f"darkroom.data.prepared.{limit}", 0)
        split = Prepared.open(tmp_path / "pieces").split("train")
        assert torch.equal(split.images(), expected)
        assert torch.equal(split.images(chosen), expected[chosen])


def test_row_groups_end_by_bytes_too(tmp_path: Path, root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("darkroom.data.prepared_writer.GROUP_BYTES", 2000)
    prepare(SOURCE, tmp_path / "small", preparation(image_size=32, max_bad_fraction=0.0))
    split = Prepared.open(tmp_path / "small").split("train")
    assert len(split._groups) > 5
    assert torch.equal(split.images(), Prepared.open(root).split("train").images())


def test_hugging_face_reads_scenes_unchanged(
    root: Path, digits: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    datasets = pytest.importorskip("datasets")
    datasets.disable_progress_bars()
    files = {name: str(root / name / "*.parquet") for name in ("train", "validation", "test", "novel")}
    found = datasets.load_dataset("parquet", data_files=files, cache_dir=str(tmp_path / "cache"))
    split = Prepared.open(root).split("train")
    assert {name: len(part) for name, part in found.items()} == Prepared.open(root).info.splits
    row = found["train"][3]
    assert isinstance(found["train"].features["image"], datasets.Image)
    assert np.array_equal(np.asarray(row["image"]), split.images([3])[0].permute(1, 2, 0))
    assert row["caption"] == split.captions[3]
    assert row["labels"] == split.labels[3].tolist()
    assert row["named"] == split.mentioned[3].tolist()
    found = datasets.load_dataset(
        "parquet", data_files=str(digits / "train/*.parquet"), split="train", cache_dir=str(tmp_path / "cache")
    )
    assert found.features["label"].names == ["zero", "one", "two"]
    assert found[4]["label"] == 1
    assert found[4]["image"].mode == "L"


def test_what_is_missing_is_named(root: Path, tmp_path: Path) -> None:
    with pytest.raises(DarkroomError, match=r"nowhere/dataset\.json: no such file; .*dvc repro"):
        Prepared.open(tmp_path / "nowhere")
    (tmp_path / "dataset.json").write_text('{"source": "x"}')
    with pytest.raises(DarkroomError, match=r"dataset\.json: no description of prepared data"):
        Prepared.open(tmp_path)
    with pytest.raises(DarkroomError, match="no split 'valid'; it has novel, test, train, validation"):
        Prepared.open(root).split("valid")


def test_a_damaged_shard_is_an_error(digits: Path) -> None:
    shard = digits / "train/00000.parquet"
    shard.write_bytes(shard.read_bytes()[:-50])
    with pytest.raises(DarkroomError, match="train: unreadable"):
        Prepared.open(digits).split("train")
    shard.unlink()
    with pytest.raises(DarkroomError, match="no such split"):
        Prepared.open(digits).split("train")


def test_contact_sheet_shows_pictures_and_captions(root: Path, tmp_path: Path) -> None:
    from PIL import Image

    split = Prepared.open(root).split("train")
    for name in ("a.png", "b.png"):
        contact_sheet(split, tmp_path / name, columns=4, rows=3)
    assert (tmp_path / "a.png").read_bytes() == (tmp_path / "b.png").read_bytes()
    sheet = np.asarray(Image.open(tmp_path / "a.png"))
    first = sheet[16:144:4, 16:144:4]  # every pixel is four by four on the sheet
    assert np.array_equal(first, split.images([0])[0].permute(1, 2, 0))
    below = sheet[144:160, 16:144]
    assert (below.min(-1) < 100).sum() > 50
