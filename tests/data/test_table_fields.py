"""A captioned folder's tables say splits and classes of pictures.

Catches a held-out picture in train, a label of another picture, and a column that is no classes taken for some."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq
import pytest
from pydantic import ValidationError

from darkroom.config.sections import Preparation
from darkroom.core.errors import DarkroomError
from darkroom.data.head import Head
from darkroom.data.prepare import prepare
from darkroom.data.prepared import Prepared
from darkroom.data.sources.base import SPLIT_ORDER, Sample, Skipped
from darkroom.data.sources.captioned_folder import CaptionedFolder, CaptionedFolderSource

How = Callable[..., Preparation]
Table = Callable[..., None]
STYLES = ("flat", "old clip art")


@pytest.fixture
def table(folder: Path, pixels: Callable[..., np.ndarray], png: Callable[..., bytes]) -> Table:
    """Writes a picture for each record, and metadata.jsonl."""

    def write(records: list[dict[str, Any]], name: str = "metadata.jsonl") -> None:
        for i, record in enumerate(records):
            path = folder / record["file_name"]
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(png(pixels(i)))
        (folder / name).write_text("\n".join(map(json.dumps, records)))

    return write


def records(n: int, **fields: Any) -> list[dict[str, Any]]:
    """Pictures 0.png, 1.png, …; a field's value is called with the number if it can be."""
    given = {"text": lambda i: f"number {i}"} | fields
    return [
        {"file_name": f"{i}.png"} | {key: value(i) if callable(value) else value for key, value in given.items()}
        for i in range(n)
    ]


def kept(source: CaptionedFolder) -> list[Sample]:
    return [item for item in source if isinstance(item, Sample)]


def skipped(source: CaptionedFolder) -> dict[str, str]:
    return {item.file: item.reason for item in source if isinstance(item, Skipped)}


def test_splits_come_from_the_table_and_held_out_ones_first(table: Table) -> None:
    """Fails if the words people use are not known, or training pictures come before what they are compared with."""
    words = ("train", "Val", " test ", "novel", "training", "dev", "validation")
    table(records(len(words), split=lambda i: words[i]))
    found = [(sample.path, sample.split) for sample in kept(CaptionedFolder("set"))]
    expected = ("train", "validation", "test", "novel", "train", "validation", "validation")
    assert dict(found) == {f"{i}.png": split for i, split in enumerate(expected)}
    order = [SPLIT_ORDER.index(split) for _, split in found if split]
    assert order == sorted(order)


def test_the_table_goes_before_the_names_of_folders(table: Table) -> None:
    table([{"file_name": f"{folder}/x.png", "text": folder, "split": split} for folder, split in SWAPPED.items()])
    assert {sample.caption: sample.split for sample in kept(CaptionedFolder("set"))} == SWAPPED


SWAPPED = {"train": "test", "test": "train"}


def test_splits_of_no_use_cost_their_pictures(table: Table) -> None:
    """Fails if one of them lands in a split that nobody named, or nobody is told."""
    given: list[dict[str, Any]] = [{"split": "train"}, {"split": "holdout"}, {"split": ""}, {}, {"split": 3}]
    table([record | extra for record, extra in zip(records(5), given, strict=True)])
    source = CaptionedFolder("set")
    assert [sample.path for sample in kept(source)] == ["0.png"]
    assert skipped(source) == {
        "1.png": "split 'holdout' is none of train, validation, test and novel",
        "2.png": "no split in its record, though others have one",
        "3.png": "no split in its record, though others have one",
        "4.png": "split '3' is none of train, validation, test and novel",
    }


def test_records_of_one_picture_must_agree(table: Table) -> None:
    twice = [{"split": "train", "style": "a"}, {"split": "test", "style": "a"}]
    other = [{"split": "train", "style": "a"}, {"split": "train", "style": "b"}]
    rows = [{"file_name": "0.png", "text": f"x{i}"} | extra for i, extra in enumerate(twice)]
    rows += [{"file_name": "1.png", "text": f"y{i}"} | extra for i, extra in enumerate(other)]
    table(rows + [record | {"split": "train", "style": "ab"[i % 2]} for i, record in enumerate(records(6)[2:])])
    assert skipped(CaptionedFolder("set", labels=("style",))) == {
        "0.png": "its records name several splits: train, test",
        "1.png": "its records differ in the label style: 'a', 'b'",
    }


def test_tables_must_leave_something_to_train_on(table: Table) -> None:
    table(records(4, split="test"))
    with pytest.raises(DarkroomError, match="by the field split of its tables all pictures belong to test, and none"):
        list(CaptionedFolder("set"))


@pytest.mark.parametrize("ideas", [30, 300])
def test_classes_become_heads_and_reach_the_prepared_data(ideas: int, table: Table, folder: Path, how: How) -> None:
    """Fails if a class is another's, above all beyond the 127 that a byte holds."""
    n = 2 * ideas
    table(records(n, style=lambda i: STYLES[i % 2], idea=lambda i: f"  idea\n{i % ideas:03}"))
    info = prepare(CaptionedFolder("set", labels=("style", "idea")), folder.parent / "out", how())
    names = tuple(f"idea {i:03}" for i in range(ideas))
    assert info.heads == (Head("style", STYLES), Head("idea", names))
    data = Prepared.open(folder.parent / "out")
    seen = 0
    for name in info.splits:
        split = data.split(name)
        assert bool(split.mentioned.all())
        paths = [row["path"] for row in pq.read_table(folder.parent / "out" / name)["image"].to_pylist()]
        for path, labels in zip(paths, split.labels.tolist(), strict=True):
            i = int(Path(path).stem)
            assert [head.classes[k] for head, k in zip(info.heads, labels, strict=True)] == [
                STYLES[i % 2],
                f"idea {i % ideas:03}",
            ]
            seen += 1
    assert seen == n


def test_csv_and_whole_numbers_name_classes_too(table: Table, folder: Path) -> None:
    table(records(4))
    lines = [
        "file_name,text,Style ,year,split",
        *(f"{i}.png,x{i},{'ab'[i % 2]},{1990 + i // 2},train" for i in range(4)),
    ]
    (folder / "metadata.jsonl").unlink()
    (folder / "metadata.csv").write_text("\n".join(lines))
    source = CaptionedFolder("set", labels=("style", "year"))
    assert source.heads == (Head("style", ("a", "b")), Head("year", ("1990", "1991")))
    assert [sample.labels for sample in kept(source)] == [(0, 0), (1, 0), (0, 1), (1, 1)]


def test_labels_of_no_use_cost_their_pictures(table: Table, folder: Path, how: How) -> None:
    """Fails if a missing label becomes a class, or an absence that the judges learn."""
    values: list[Any] = ["a", "b", None, "", " ", 1.5, True, ["a"], {"a": 1}]
    rows = [*records(100, style=lambda i: "ab"[i % 2])]
    for i, value in enumerate(values):
        rows[i]["style"] = value
    del rows[9]["style"]
    table(rows)
    source = CaptionedFolder("set", labels=("style",))
    none = "no label style in its record"
    assert skipped(source) == {
        **{f"{i}.png": none for i in (2, 3, 4, 9)},
        "5.png": "label style is neither a word nor a whole number: 1.5",
        "6.png": "label style is neither a word nor a whole number: True",
        "7.png": "label style is neither a word nor a whole number: ['a']",
        "8.png": "label style is neither a word nor a whole number: {'a': 1}",
    }
    assert source.heads == (Head("style", ("a", "b")),)
    with pytest.raises(DarkroomError, match=r"8 of 100 pictures cannot be used, .*: no label style in its record"):
        prepare(source, folder.parent / "out", how(max_bad_fraction=0.05))
    assert prepare(source, folder.parent / "out", how(max_bad_fraction=0.1)).pictures.skipped == 8


@pytest.mark.parametrize(
    ("fields", "labels", "said"),
    [
        (
            {"style": "a"},
            ("style",),
            "style is 'a' in all 6 pictures, so nothing is told by it; leave it out",
        ),
        (
            {"style": lambda i: f"s{i}"},
            ("style",),
            "style has 6 classes in 6 pictures; a class is what several",
        ),
        (
            {"style": "a"},
            ("hue",),
            r"names 'hue', but no record .* \(they have file_name, text, style\)",
        ),
    ],
)
def test_columns_that_are_no_classes_are_refused(
    fields: dict[str, Any], labels: tuple[str, ...], said: str, table: Table, folder: Path, how: How
) -> None:
    table(records(6, **fields))
    with pytest.raises(DarkroomError, match=f"^prepare_data.source.labels.*{said}"):
        prepare(CaptionedFolder("set", labels=labels), folder.parent / "out", how())


def test_thousands_of_classes_are_refused_where_they_are_too_many(
    table: Table, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("darkroom.data.sources.table_fields.MAX_CLASSES", 3)
    table(records(8, style=lambda i: str(i // 2)))
    with pytest.raises(DarkroomError, match=r"style has 4 classes in 8 pictures; .* has 3 classes at most"):
        _ = CaptionedFolder("set", labels=("style",)).heads


@pytest.mark.parametrize("labels", [["style", "Style"], ["split"], ["file_name"], ["text"], ["a.b"], [""]])
def test_labels_that_cannot_be_named_are_refused(labels: list[str]) -> None:
    with pytest.raises(ValidationError):
        CaptionedFolderSource(kind="captioned_folder", root="x", manifest=None, labels=labels)


def test_a_list_of_captions_is_several_captions(table: Table) -> None:
    """Fails if the list is one caption, a repeated one counts twice, or a broken one costs nothing."""
    texts = [["a cat", "cat,\nflat", "a cat"], [], ["x", 3], "plain"]
    table([record | {"text": text} for record, text in zip(records(4), texts, strict=True)])
    source = CaptionedFolder("set")
    found = {sample.path: (sample.caption, *sample.others) for sample in kept(source)}
    assert found == {"0.png": ("a cat", "cat, flat"), "3.png": ("plain",)}
    assert skipped(source) == {"1.png": "caption is an empty list", "2.png": "caption is not a string"}
