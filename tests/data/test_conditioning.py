"""Cached conditions. Each test says which fault it would catch."""

from pathlib import Path

import pyarrow as pa
import pytest
import torch

from darkroom.core.errors import DarkroomError
from darkroom.data.caption_table import batches_of, distinct, read_captions, write_captions
from darkroom.data.conditioning import (
    CAPTIONS,
    Cache,
    Conditioning,
    ConditioningInfo,
    read_asked,
    shard_name,
    write_description,
    write_shard,
)

SAID = ["red 🙂", "red ｚ", "a", "", "a", "Zebra", "ä", "red 🙂"]
LENGTH, WIDTH = 3, 4
INFO = ConditioningInfo("text", "zeros", LENGTH, WIDTH, [])


def written(folder: Path, cache: Cache) -> Path:
    """Conditions of SAID in shards of two captions; the states of caption i are all i, and so are its tokens."""
    folder.mkdir()
    texts, index = distinct({"train": SAID, "validation": SAID[::-1]})
    write_description(folder, INFO, index, torch.zeros(LENGTH, WIDTH))
    write_captions(folder / CAPTIONS, texts)
    numbers = torch.arange(len(texts))
    shape = (-1, 1, 1) if cache == "states" else (-1, 1)
    table = numbers.view(shape).expand(-1, LENGTH, WIDTH) if cache == "states" else numbers.view(shape).expand(-1, 3)
    for number, rows in enumerate(table.split(2)):
        write_shard(folder / shard_name(cache, number), cache, rows)
    return folder


def test_captions_have_the_order_that_python_gives_them() -> None:
    """Fails if captions are numbered otherwise than before, beyond U+FFFF say, which changes every cached row."""
    texts, index = distinct({"train": SAID, "validation": pa.chunked_array([SAID[:3], SAID[3:]], pa.string())})
    assert texts.to_pylist() == sorted(set(SAID))
    for split in ("train", "validation"):
        assert index[split].dtype == torch.int64
        assert [texts[row].as_py() for row in index[split].tolist()] == SAID
    assert [text for batch in batches_of(texts, 2) for text in batch] == sorted(set(SAID))
    with pytest.raises(DarkroomError, match="the data has no captions"):
        distinct({"train": []})


@pytest.mark.parametrize("cache", ["states", "tokens"])
def test_a_sample_has_the_condition_of_its_caption(tmp_path: Path, cache: Cache) -> None:
    """Fails if shards are read in another order than they were written, or a caption's row is another one's."""
    folder = written(tmp_path / "conditioning", cache)
    found = Conditioning.read(folder)
    assert found.of_tokens == (cache == "tokens")
    if found.of_tokens:
        found = found.encoded_by(lambda ids: ids[:, :, None].expand(-1, -1, WIDTH).float())
    order = sorted(set(SAID))
    states = found.of_rows(found.rows("validation", torch.arange(len(SAID))))
    assert states is not None
    assert states.dtype == torch.float32
    assert states.shape == (len(SAID), LENGTH, WIDTH)
    assert states[:, 0, 0].tolist() == [order.index(text) for text in SAID[::-1]]
    assert read_asked(folder, "validation", 3) == SAID[::-1][:3]


def test_files_that_cannot_be_used_are_named(tmp_path: Path) -> None:
    """Fails if a torn cache ends in a traceback."""
    folder = written(tmp_path / "conditioning", "tokens")
    for file in folder.glob("tokens-*"):
        file.unlink()
    with pytest.raises(DarkroomError, match="conditioning: has no embeddings or tokens of captions; run the stage"):
        Conditioning.read(folder)
    (folder / CAPTIONS).write_bytes(b"torn")
    with pytest.raises(DarkroomError, match=r"captions\.arrow: not readable captions"):
        read_asked(folder, "train", 1)
    with pytest.raises(DarkroomError, match=r"gone\.arrow: no such file; run the stage"):
        read_captions(tmp_path / "gone.arrow", [0])
