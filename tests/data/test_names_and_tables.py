"""Captions find their pictures as people's programs write names and tables, or the reason is told once.

Catches sets whose captions are all lost for the case of a letter, a backslash, a blank in a header or a byte order
mark, and captions given to the wrong picture."""

import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from darkroom.core.errors import DarkroomError
from darkroom.data.manifest import Manifest, scan
from darkroom.data.sources.base import Sample, Skipped
from darkroom.data.sources.captioned_folder import CaptionedFolder
from darkroom.data.sources.name_matcher import NameMatcher, NoMatchError

Put = Callable[[dict[str, bytes | str | int]], None]


@pytest.fixture
def put(folder: Path, pixels: Callable[..., np.ndarray], png: Callable[..., bytes]) -> Put:
    def write(files: dict[str, bytes | str | int]) -> None:
        for name, content in files.items():
            path = folder / name
            path.parent.mkdir(parents=True, exist_ok=True)
            data = png(pixels(content)) if isinstance(content, int) else content
            path.write_bytes(data.encode() if isinstance(data, str) else data)

    return write


def said() -> dict[str, str]:
    return {i.path: " | ".join((i.caption, *i.others)) for i in CaptionedFolder("set") if isinstance(i, Sample)}


def lost(pictures: bool) -> dict[str, str]:
    return {i.file: i.reason for i in CaptionedFolder("set") if isinstance(i, Skipped) and i.picture == pictures}


@pytest.mark.parametrize(
    ("there", "wanted", "found"),
    [
        (["a.png", "A.png"], "a.png", "a.png"),
        (["a.png", "A.png"], "A.PNG", None),
        (["IMG_0.JPG"], "img_0.jpg", "IMG_0.JPG"),
        (["images/0.png"], "images\\0.png", "images/0.png"),
        (["images/0.png"], ".\\Images\\0.PNG", "images/0.png"),
        (["images\\0.png", "images/0.png"], "images\\0.png", "images\\0.png"),
        (["a.png"], "./a.png", "a.png"),
        (["a/b.png"], "a//b.png", "a/b.png"),
        (["a/b.png"], "a/../a/./b.png", "a/b.png"),
        (["é.png"], "e\u0301.png", "é.png"),
        (["e\u0301.png"], "É.PNG", "e\u0301.png"),
        (["é.png", "e\u0301.png"], "é.png", "é.png"),
        (["straße.png"], "STRASSE.png", "straße.png"),
        (["a.png"], " a.png ", "a.png"),
        (["a.png"], "../a.png", None),
        (["a.png"], "/a.png", None),
        (["a.png"], "b.png", None),
        (["a.png"], "", None),
        (["ab.png"], "a b.png", None),
    ],
)
def test_which_name_is_meant(there: list[str], wanted: str, found: str | None) -> None:
    matcher = NameMatcher(there)
    if found is not None:
        assert matcher.find(wanted) == found
    else:
        with pytest.raises(NoMatchError):
            matcher.find(wanted)


def test_texts_beside_pictures(put: Put) -> None:
    put(
        {"IMG_0.JPG": 0, "IMG_0.TXT": "one", "a.png": 1, "A.png": 2, "a.txt": "two", "é.png": 3, "e\u0301.txt": "three"}
    )
    put({"Cc.png": 4, "cC.jpg": 5, "cc.txt": "whose?", "d.png": 6, "d.jpg": 7, "d.txt": "\ufefffour"})
    put({"e.png": 8, "e.txt": "fünf".encode("utf-16"), "none.txt": "left"})
    assert said() == {
        "IMG_0.JPG": "one",
        "a.png": "two",
        "é.png": "three",
        "d.png": "four",
        "d.jpg": "four",
        "e.png": "fünf",
    }
    several = "caption ambiguous: cc.txt is like several pictures and exactly that of none"
    assert lost(pictures=True) == {
        "A.png": "caption ambiguous: a.txt is like it, but is meant by another name",
        "Cc.png": several,
        "cC.jpg": several,
    }
    assert lost(pictures=False) == {"none.txt": "a caption without a picture"}


@pytest.mark.parametrize("name", ["metadata.csv", "METADATA.CSV", "Metadata.tsv", "metadata.TSV"])
@pytest.mark.parametrize("header", ["file_name,text", "file_name, text", "File_Name ,TEXT", '"file_name","caption"'])
@pytest.mark.parametrize("delimiter", [",", ";", "\t", "|"])
def test_separated_values(name: str, header: str, delimiter: str, put: Put) -> None:
    lines = [header, "images\\0.png, a red cat", './b.PNG,"two, or so"']
    table = "\r\n".join(lines).replace(",", delimiter).replace(f"two{delimiter} or", "two, or")
    for mark, encoding in (("", "utf-8"), ("\ufeff", "utf-8"), ("", "utf-16")):
        put({"images/0.png": 0, "b.png": 1, name: (mark + table).encode(encoding)})
        assert said() == {"images/0.png": "a red cat", "b.png": "two, or so"}
        assert lost(True) == lost(False) == {}


def test_what_excel_writes(put: Put) -> None:
    put({"a.png": 0, "metadata.csv": "sep=;\r\nfile_name;text\r\na.png;a cat, asleep\r\n"})
    assert said() == {"a.png": "a cat, asleep"}


RECORDS = [{"file_name": "images\\0.png", "text": "one"}, {" File_Name": "B.PNG", "Caption": "two"}]


@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "utf-16", "utf-32"])
@pytest.mark.parametrize(
    "write",
    [
        lambda records: "\n".join(map(json.dumps, records)),
        lambda records: "\r\n".join(map(json.dumps, records)) + "\r\n\r\n",
        json.dumps,
        lambda records: json.dumps(records, indent=2),
    ],
)
def test_json_lines_and_arrays(write: Callable[[object], str], encoding: str, put: Put) -> None:
    """Catches "neither 'text' nor 'caption' is given" on every line of a file that gives it."""
    put({"images/0.png": 0, "b.png": 1, "Metadata.JSONL": write(RECORDS).encode(encoding)})
    assert said() == {"images/0.png": "one", "b.png": "two"}
    assert lost(True) == lost(False) == {}


@pytest.mark.parametrize(
    ("name", "content", "reason"),
    [
        ("metadata.jsonl", json.dumps(RECORDS[0]).encode("utf-16-le"), "holds zero bytes, as UTF-16 without"),
        ("metadata.jsonl", b"\xff\xfea", "is not UTF-16; save it as UTF-8"),
        ("metadata.jsonl", b'{"0.png": "one", "b.png": "two"}', "is one JSON object, and not one a picture"),
        ("metadata.jsonl", b"a.png: one\nb.png: two", "is not JSON Lines: not one of its lines is a JSON object"),
        ("metadata.jsonl", b'["a.png", "one"]', "is not JSON Lines"),
        (
            "metadata.jsonl",
            b'{"image": "b.png", "text": "x"}\n' * 9,
            "needs the columns file_name and text; it has image, ",
        ),
        ("metadata.jsonl", b'{"file_name": "b.png", "prompt": "x"}\n' * 9, "it has file_name, prompt"),
        ("metadata.csv", b"file_name:text\nb.png:x\n", "needs the columns file_name and text; it has file_name:text"),
        ("metadata.csv", "file_name,text\nb.png,x".encode("utf-16-be"), "holds zero bytes"),
        ("metadata.csv", b"", "needs the columns file_name and text; it has none"),
    ],
)
def test_what_is_no_table_is_told_once(name: str, content: bytes, reason: str, put: Put) -> None:
    put({"b.png": 0, name: content})
    with pytest.raises(DarkroomError) as error:
        list(CaptionedFolder("set"))
    assert str(error.value).startswith(name)
    assert reason in str(error.value)
    assert str(error.value).count("save it as UTF-8") <= 1


def test_records_that_no_picture_is_lost_with(put: Put) -> None:
    """Each picture is named once, however many of its records are of no use."""
    records = [
        {"file_name": "a.png", "text": "one"},
        {"file_name": "A.PNG", "text": "whose?"},
        {"file_name": "a.png", "text": ""},
        {"file_name": "a.png", "text": "one"},
        {"file_name": "a.png", "text": "two"},
        {"file_name": "b.png", "text": 3},
        {"file_name": "b.png", "text": " "},
        {"file_name": "gone.png", "text": "x"},
        {"file_name": "c.png", "text": "gr\udcf6n"},
    ]
    lines = b"\n".join(json.dumps(r, ensure_ascii=False).encode("utf-8", "surrogateescape") for r in records)
    put({"a.png": 0, "b.png": 1, "c.png": 2, "metadata.jsonl": lines})
    assert said() == {"a.png": "one | two"}
    assert lost(pictures=True) == {"b.png": "caption is not a string", "c.png": "caption is not UTF-8"}
    assert lost(pictures=False) == {
        "A.PNG": "named in metadata.jsonl line 2 but ambiguous: a.png is like it, but is meant by another name",
        "metadata.jsonl line 3": "caption is empty",
        "metadata.jsonl line 4": "says again what another record says of its picture",
        "gone.png": "named in metadata.jsonl line 8 but not there",
    }


def test_tables_are_scanned_by_their_own_names(put: Put, folder: Path) -> None:
    """Catches a table that is read but in no manifest, so that its change goes unnoticed."""
    put({"a.png": 0, "METADATA.CSV": "file_name,text\nA.png,x\n"})
    manifest = scan(CaptionedFolder("set").files, folder.parent / "m.json")
    manifest.write()
    assert set(manifest.files) == {"a.png", "METADATA.CSV"}
    assert len(list(CaptionedFolder("set", Manifest.load(folder.parent / "m.json")))) == 1
    put({"METADATA.CSV": "file_name,text\nA.png,y\n"})
    with pytest.raises(DarkroomError, match=r"METADATA\.CSV: has md5"):
        list(CaptionedFolder("set", manifest))
