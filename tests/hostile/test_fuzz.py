"""Ten thousand generated inputs through prepare and params: no crash, no hang, no loss that is not listed.

Each test runs quickly on a few examples; marked slow, on all that make up the ten thousand.
"""

import json
import random
import shutil
import signal
from collections.abc import Callable
from datetime import timedelta
from pathlib import Path
from typing import Any, TypeVar

import pytest
import yaml
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from darkroom.config.merging import complete_text
from darkroom.config.params import Params, load, problems
from darkroom.core.errors import DarkroomError
from darkroom.core.text import printable
from darkroom.data.manifest import Manifest
from darkroom.data.sources.metadata_table import read_table
from tests.support import corpus, trial

V = TypeVar("V")
BATCH = 25  # files that go through prepare together
PARTS = {  # inputs in all: quick, slow
    "pictures of image_folder": (100, 2000),
    "pictures of captioned_folder": (100, 2000),
    "pictures of webdataset": (100, 2000),
    "captions": (50, 1000),
    "records": (30, 800),
    "tables": (30, 200),
    "shards": (30, 500),
    "manifests": (60, 500),
    "changed params": (100, 1000),
}
ROOT = Path(__file__).parents[2]
RECIPE = complete_text(ROOT / "recipes" / "scenes.yaml")
PROBE = "train_unet"  # the section that is changed lies deepest

seeds = st.integers(0, 2**32 - 1)
scalars = (
    st.none()
    | st.booleans()
    | st.integers()
    | st.sampled_from([2**63, -(2**64), 10**400, 0, -1])
    | st.floats()
    | st.text(max_size=20)
    | st.sampled_from(["\n", "\ud800", "x" * 100_000, "\0", "kind", "0", "\u2028", "~"])
)
values = st.recursive(
    scalars, lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(), inner, max_size=4)
)


def amounts(part: str) -> Any:
    """Runs a test with the part's quick number of inputs and, marked slow, with all."""
    quick, slow = PARTS[part]
    return pytest.mark.parametrize("inputs", [quick, pytest.param(slow, marks=pytest.mark.slow)], ids=["quick", "all"])


def feed(strategy: st.SearchStrategy[V], inputs: int, check: Callable[[V], None]) -> None:
    """Check that many generated inputs, none of which may take five seconds."""
    seen = 0

    @settings(
        max_examples=inputs,
        database=None,
        derandomize=True,
        deadline=timedelta(seconds=5),
        suppress_health_check=list(HealthCheck),
    )
    @given(strategy)
    def one(value: V) -> None:
        nonlocal seen
        seen += 1
        with trial.within(5):
            check(value)

    one()
    assert seen >= inputs


def test_the_parts_make_ten_thousand() -> None:
    assert sum(slow for _, slow in PARTS.values()) == 10_000
    assert signal.getitimer(signal.ITIMER_REAL) == (0, 0)


@pytest.fixture
def wares() -> list[tuple[str, bytes]]:
    """Good pictures to be spoilt; small ones, so that spoiling them hits something."""
    return [(name, content) for name, content in corpus.good() if len(content) < 20_000]


@pytest.fixture
def official(folder: Path) -> Callable[[str, dict[str, bytes]], Any]:
    """Books of a data set of a kind: the files in train, and a good picture in every split, so that none is empty."""

    def books(kind: str, files: dict[str, bytes], captions: dict[str, bytes] | None = None) -> Any:
        shutil.rmtree(folder)
        for i, split in enumerate(("test", "validation", "train")):
            pictures = {"good.png": corpus.saved(corpus.photo(1000 + i), "PNG")} | (files if split == "train" else {})
            trial.fill(folder / split, kind, pictures, captions or {})
        return trial.outcome(kind, folder.parent / "out")

    return books


def spoilt(wares: list[tuple[str, bytes]]) -> st.SearchStrategy[list[tuple[str, bytes]]]:
    def spoil(index: int, seed: int) -> tuple[str, bytes]:
        name, content = wares[index]
        return name, corpus.mutated(content, random.Random(seed))

    one = st.builds(spoil, st.integers(0, len(wares) - 1), seeds)
    return st.lists(one, min_size=BATCH, max_size=BATCH)


@pytest.mark.parametrize("kind", ["image_folder", "captioned_folder", "webdataset"])
@pytest.mark.parametrize("size", ["quick", pytest.param("all", marks=pytest.mark.slow)])
def test_spoilt_pictures(kind: str, size: str, wares: list[tuple[str, bytes]], official: Callable[..., Any]) -> None:
    def check(batch: list[tuple[str, bytes]]) -> None:
        files = {f"{i}.{name.rpartition('.')[2]}": content for i, (name, content) in enumerate(batch)}
        books = official(kind, files)
        assert books.kept.total() + len(books.listed) + books.info.pictures.duplicates_across_splits == BATCH + 3
        where = {
            "image_folder": ["train/things/{name}"],
            "captioned_folder": ["train/{name}"],
            "webdataset": ["train/x.tar/{i}/{name}", "train/x.tar/{i}/{stem}"],
        }[kind]
        met = {*books.kept, *(file for file, _ in books.listed)}
        for i, name in enumerate(files, 1):
            places = {place.format(i=i, name=name, stem=name.split(".")[0]) for place in where}
            assert len(met & places) == 1 or books.info.pictures.duplicates_across_splits

    quick, slow = PARTS[f"pictures of {kind}"]
    feed(spoilt(corpus, wares), (quick if size == "quick" else slow) // BATCH, check, trial)


@amounts("captions")
def test_captions_of_any_bytes(inputs: int, official: Callable[..., Any]) -> None:
    pictures = {f"{i}.png": corpus.saved(corpus.photo(i), "PNG") for i in range(BATCH)}
    texts = st.binary() | st.text().map(lambda text: text.encode("utf-8", "surrogatepass"))

    def check(captions: list[bytes]) -> None:
        for kind in ("captioned_folder", "webdataset"):
            books = official(kind, pictures, dict(zip(pictures, captions, strict=True)))
            assert books.kept.total() + len(books.listed) == BATCH + 3
            reasons = {" ".join(reason.split()[:3]) for _, reason in books.listed}
            assert reasons <= {"caption is empty", "caption is not", "caption holds zero"}

    feed(st.lists(texts, min_size=BATCH, max_size=BATCH), inputs // BATCH, check, trial)


NAMES = ("a.png", "b.png", "sub/c.png")


@pytest.fixture
def items(folder: Path) -> Callable[[str, bytes], list[Any]]:
    """What a captioned folder of NAMES gives with this metadata file."""
    (folder / "sub").mkdir()
    for i, name in enumerate(NAMES):
        (folder / name).write_bytes(corpus.saved(corpus.photo(i), "PNG"))

    def read(metadata: str, content: bytes) -> list[Any]:
        (folder / metadata).write_bytes(content)
        found = list(trial.MAKERS["captioned_folder"]("set"))
        named = {item.path if hasattr(item, "path") else item.file for item in found}
        assert set(NAMES) <= named
        for item in found:
            if hasattr(item, "caption"):
                assert item.path in NAMES
                assert item.caption == " ".join(item.caption.split()) != ""
        return found

    return read


@amounts("records")
def test_records_of_any_kind(inputs: int, items: Callable[[str, bytes], list[Any]]) -> None:
    record = st.fixed_dictionaries({}, optional={"file_name": st.sampled_from(NAMES) | scalars, "text": scalars})
    line = record.map(json.dumps) | values.map(lambda value: json.dumps(value)) | st.text()
    texts = st.lists(line, max_size=8).map(lambda lines: "\n".join(lines).encode("utf-8", "surrogatepass"))

    def check(content: bytes) -> None:
        try:
            found = items("metadata.jsonl", content)
        except DarkroomError as error:
            trial.check(error, "metadata.jsonl: ")
            return
        pictures = [item for item in found if not hasattr(item, "reason") or item.picture]
        assert len(pictures) == len(NAMES)
        assert len(found) <= len(NAMES) + len(read_table("metadata.jsonl", content))

    feed(texts | st.binary(), inputs, check, trial)


@amounts("tables")
def test_tables_of_any_kind(inputs: int, items: Callable[[str, bytes], list[Any]]) -> None:
    cell = st.sampled_from((*NAMES, '"', '"a"', ",", "x", "\0", '"\n"')) | st.text(max_size=9)
    rows = st.lists(st.lists(cell, max_size=4).map(",".join), max_size=6)

    def check(content: bytes) -> None:
        try:
            items("metadata.csv", content)
        except DarkroomError as error:
            trial.check(error)

    tables = rows.map(lambda lines: "\n".join(["file_name,text", *lines]).encode("utf-8", "surrogatepass"))
    feed(tables | st.binary(), inputs, check, trial)


@amounts("shards")
def test_spoilt_shards(inputs: int, folder: Path) -> None:
    """A shard that is read at all gives every sample but the one that was hit."""
    pictures = [corpus.saved(corpus.photo(i), "PNG") for i in range(20)]
    sound = trial.tar(
        {f"{i}.{kind}": content for i in range(20) for kind, content in (("png", pictures[i]), ("txt", b"x"))}
    )

    def check(seed: int) -> None:
        (folder / "x.tar").write_bytes(corpus.mutated(sound, random.Random(seed)))
        try:
            books = trial.outcome("webdataset", folder.parent / "out")
        except DarkroomError as error:
            trial.check(error, "x.tar: damaged", "split ")
        else:
            assert books.kept.total() + len(books.listed) >= 19
            assert all(printable(name) for name in books.kept)

    feed(seeds, inputs, check, trial)


@amounts("manifests")
def test_manifests_of_any_kind(inputs: int, tmp_path: Path) -> None:
    entry = st.fixed_dictionaries({}, optional={"size": scalars, "md5": scalars})
    manifests = st.dictionaries(st.text(), entry | values, max_size=3) | values
    texts = manifests.map(lambda value: json.dumps(value).encode()) | st.binary()

    def check(content: bytes) -> None:
        (tmp_path / "m.json").write_bytes(content)
        try:
            manifest = Manifest.load(tmp_path / "m.json")
            manifest.check_names(["a\n.png"])
        except DarkroomError as error:
            trial.check(error)
        else:
            assert list(manifest.files) == ["a\n.png"]

    feed(texts, inputs, check, trial)


@pytest.fixture
def judged(tmp_path: Path) -> Callable[[bytes], list[str]]:
    """The faults of a params file; each a line, and `load` agrees."""
    file = tmp_path / "params.yaml"

    def judge(content: bytes) -> list[str]:
        file.write_bytes(content)
        try:
            found = problems(file)
        except DarkroomError as error:
            found = [str(error)]
        assert all(line.isprintable() and line.startswith(str(file)) for line in found), found
        if found:
            with pytest.raises(DarkroomError) as error:
                load(file)
            assert str(error.value).startswith(found[0])
            assert str(error.value).isprintable()
        else:
            assert isinstance(load(file), Params)
        return found

    return judge


@amounts("changed params")
def test_changed_params(inputs: int, judged: Callable[[bytes], list[str]]) -> None:
    """Any value at any place of a sound file, keys taken away and put in."""
    sound = yaml.safe_load(RECIPE)

    def paths(value: Any, here: tuple[Any, ...] = ()) -> list[tuple[Any, ...]]:
        keys = list(value) if isinstance(value, dict) else list(range(len(value))) if isinstance(value, list) else []
        return [here, *(path for key in keys for path in paths(value[key], (*here, key)))]

    places = paths(sound)[1:]

    def check(change: tuple[tuple[Any, ...], str, Any]) -> None:
        path, how, value = change
        changed = json.loads(json.dumps(sound))
        holder = changed
        for key in path[:-1]:
            holder = holder[key]
        if how == "replace":
            holder[path[-1]] = value
        elif how == "remove":
            del holder[path[-1]]
        elif isinstance(holder, dict):
            holder[value if isinstance(value, str) else json.dumps(value)] = value
        else:
            holder.append(value)
        judged(json.dumps(changed).encode())  # JSON is YAML

    changes = st.tuples(st.sampled_from(places), st.sampled_from(["replace", "replace", "remove", "add"]), values)
    feed(changes, inputs, check, trial)
