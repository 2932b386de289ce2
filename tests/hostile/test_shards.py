"""Tar shards cut, doubled, strung together, forged: an error that names the shard, or every member accounted for."""

import gzip
import io
import tarfile
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.support import corpus, trial

BLOCK = tarfile.BLOCKSIZE


@pytest.fixture
def two() -> bytes:
    """A shard of two pictures with captions; it ends with a padding of zeros."""
    pictures = [corpus.saved(corpus.photo(seed), "PNG") for seed in (0, 1)]
    made: bytes = trial.tar({"a.png": pictures[0], "a.txt": b"one", "b.png": pictures[1], "b.txt": b"two"})
    return made


@pytest.fixture
def read(folder: Path) -> Callable[[bytes], list[object]]:
    """The items of a data set of one shard with this content: as many as its description says."""

    def items(content: bytes) -> list[object]:
        (folder / "x.tar").write_bytes(content)
        source = trial.MAKERS["webdataset"]("set")
        found = list(source)
        assert len(found) == source.description.size
        return found

    return items


def header(name: str, size: int, kind: bytes = tarfile.REGTYPE) -> bytes:
    made = tarfile.TarInfo(name)
    made.size, made.type = size, kind
    return made.tobuf(tarfile.GNU_FORMAT)


def end_of(shard: bytes) -> int:
    """Where the padding of zeros begins."""
    return -(-len(shard.rstrip(b"\0")) // BLOCK) * BLOCK


def test_a_shard_cut_anywhere_is_an_error(two: bytes, read: Callable[[bytes], list[object]]) -> None:
    """Between two members too, where nothing is missing that could be seen to be."""
    assert len(read(two)) == 2
    for length in (*range(0, end_of(two) + 1, BLOCK), *range(100, end_of(two) + BLOCK, 333)):
        assert trial.refusal(lambda length=length: read(two[:length])).startswith("x.tar: damaged tar shard (")
    assert len(read(two[: end_of(two) + BLOCK])) == 2


def test_forged_shards_are_errors(two: bytes, read: Callable[[bytes], list[object]]) -> None:
    long_name, pax, sparse = tarfile.GNUTYPE_LONGNAME, tarfile.XHDTYPE, tarfile.GNUTYPE_SPARSE
    forged = {
        "strung together": two + two,
        "garbage at the end": two + b"x",
        "compressed": gzip.compress(two),
        "a circle": header("a.png", -BLOCK) + two,
        "a circle of sparse files": header("a.png", -BLOCK, sparse) + two,
        "a small step back": header("a.png", -1) + two,
        "larger than the world": header("a.png", 2**63) + two,
        "long names without end": header("x", 0, long_name) * 3000 + two,
        "a long name of exabytes": header("x", 2**60, long_name) + two,
        "a long name of less than nothing": header("x", -BLOCK, long_name) + two,
        "extended headers without end": header("x", 0, pax) * 3000 + two,
    }
    for what, content in forged.items():
        message = trial.refusal(lambda content=content: read(content))
        assert message.startswith("x.tar: damaged tar shard ("), what
    for size in ("-1024", "-1", "9" * 5000, str(2**70), "1e3"):
        out = io.BytesIO()
        with tarfile.open(fileobj=out, mode="w", format=tarfile.PAX_FORMAT) as archive:
            member = tarfile.TarInfo("a.png")
            member.pax_headers = {"size": size}
            archive.addfile(member)
        trial.refusal(lambda out=out: read(out.getvalue() + two))


def test_a_compressed_shard_is_no_silent_loss(two: bytes, folder: Path) -> None:
    (folder / "a.tar").write_bytes(two)
    (folder / "b.tar.gz").write_bytes(gzip.compress(two))
    message = trial.refusal(lambda: list(trial.MAKERS["webdataset"]("set")))
    assert message.endswith("set/b.tar.gz: a compressed shard cannot be read; unpack it to .tar")


def test_members_of_every_kind(folder: Path, tmp_path: Path, read: Callable[[bytes], list[object]]) -> None:
    """Links, devices, doubled and nameless members are listed; hidden ones and folders are passed over."""
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w", format=tarfile.GNU_FORMAT) as archive:

        def add(name: str, content: bytes = b"", kind: bytes = tarfile.REGTYPE, link: str = "") -> None:
            member = tarfile.TarInfo(name)
            member.size, member.type, member.linkname = len(content), kind, link
            archive.addfile(member, io.BytesIO(content))

        pictures = [corpus.saved(corpus.photo(i), "PNG") for i in range(40)]
        for i, picture in enumerate(pictures[:30]):
            add(f"{i}.png", picture)
            add(f"{i}.txt", b"x")
        add("../../../evil.png", pictures[30])
        add("../../../evil.txt", b"x")
        add("/abs.png", pictures[31])
        add("/abs.txt", b"x")
        add("twice.png", pictures[32])
        add("twice.png", pictures[33])
        add("twice.txt", b"x")
        add("both.jpg", pictures[34])
        add("both.png", pictures[35])
        add("both.txt", b"x")
        add("li\nne.png", pictures[36])
        add("li\nne.txt", b"x")
        add("by\udcfftes.png", pictures[37])
        add("by\udcfftes.txt", b"x")
        add("README", b"nothing")
        add(".DS_Store", b"nothing")
        add("._0.png", b"nothing")
        add("folder", kind=tarfile.DIRTYPE)
        add("soft.png", kind=tarfile.SYMTYPE, link="/etc/passwd")
        add("hard.png", kind=tarfile.LNKTYPE, link="0.png")
        add("pipe.png", kind=tarfile.FIFOTYPE)
        add("tty.png", kind=tarfile.CHRTYPE)
    before = set(tmp_path.rglob("*"))
    (folder / "x.tar").write_bytes(out.getvalue())
    books = trial.outcome("webdataset", tmp_path / "out")
    odd = ("../../../evil.png", "/abs.png", "twice.png", "both.jpg", "li\nne.png", "by\\udcfftes.png")
    assert set(books.kept) == {f"x.tar/{name}" for name in (*(f"{i}.png" for i in range(30)), *odd)}
    link = "a link or device within the shard"
    assert dict(books.listed) == {
        "x.tar/twice.png": "a later member has the same name",
        "x.tar/both.png": "its key has another picture",
        "x.tar/README": "its name has no extension",
        **{f"x.tar/{name}.png": link for name in ("soft", "hard", "pipe", "tty")},
    }
    assert {p for p in set(tmp_path.rglob("*")) - before if "out" not in p.parts} == {folder / "x.tar"}
    assert len(read(out.getvalue())) == len(books.listed) + books.kept.total()
