"""CLIP's tokenizer from published files: the same ids as transformers' on strings of all kinds."""

import gzip
import json
import random
from pathlib import Path
from typing import Any

import pytest

from darkroom.core.errors import DarkroomError
from darkroom.data.tokenizer import SMALLEST_VOCABULARY, CLIPTokenizer
from darkroom.interop.tokenizer import BPE_FILE, read_tokenizer

N = 1000
SCRIPTS = [
    (0x20, 0x7F), (0xA0, 0x250), (0x300, 0x370), (0x370, 0x530), (0x590, 0x700), (0x900, 0xE00), (0x1100, 0x1200),
    (0x2000, 0x2070), (0x20A0, 0x2400), (0x3040, 0x3100), (0x4E00, 0x4F00), (0xAC00, 0xAD00), (0xFE00, 0xFE10),
    (0x1F1E6, 0x1F200), (0x1F300, 0x1F6FF), (0x1D400, 0x1D500), (0, 0x20),
]  # fmt: skip
SAID = (
    "a photo of the red circle's Don't we'll I'VE they're you'd 3rd 12,345.67 naïve Ünïcödé ''s ... !!! $100 #tag @me",
    "e\u0301 \u212b ß ſs İstanbul 日本語 한국어 مرحبا 👩‍👩‍👧 🏳️‍🌈",
    "<|endoftext|> <|STARTOFTEXT|> <|startoftext|> <|EndOfText|> 's 'S",
)
WORDS = " ".join(SAID).split(" ")


def strings() -> list[str]:
    rng = random.Random(0)
    found = ["", " ", "\n\t ", "a" * 3000, "word " * 400, "0123456789 " * 30, "\u00a0", "\u200d"]
    while len(found) < N:
        if rng.random() < 0.5:
            found.append(" ".join(rng.choices(WORDS, k=rng.randint(1, 40))))
        else:
            scripts = rng.choices(SCRIPTS, k=rng.randint(1, 4))
            found.append("".join(chr(rng.randrange(*rng.choice(scripts))) for _ in range(rng.randint(1, 60))))
    return found


@pytest.fixture(scope="module")
def published(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder like openai/clip-vit-large-patch14: vocab.json and merges.txt, and nothing else."""
    folder = tmp_path_factory.mktemp("tokenizer") / "published"
    CLIPTokenizer.train(strings()[::2] + WORDS * 20, 3000, 77).write(folder)
    for file in folder.iterdir():
        if file.name not in ("vocab.json", "merges.txt"):
            file.unlink()
    return folder


def test_ids_are_those_of_transformers(transformers: Any, published: Path) -> None:
    ours = read_tokenizer(published)
    merges = [tuple(line.split(" ")) for line in (published / "merges.txt").read_text().splitlines()[1:]]
    vocab = json.loads((published / "vocab.json").read_text())
    theirs = transformers.CLIPTokenizer(vocab=vocab, merges=merges, model_max_length=77)
    texts = strings()
    assert len(texts) == N
    expected = theirs(texts, padding="max_length", truncation=True).input_ids
    assert ours(texts).tolist() == expected
    assert len({tuple(row) for row in expected}) > 0.95 * N


def test_the_list_of_merges_is_the_same_tokenizer(published: Path, tmp_path: Path) -> None:
    """OpenAI's file: a line about the version, then the merges; CLIP numbers printable bytes first."""
    lines = (published / "merges.txt").read_text().splitlines()
    with gzip.open(tmp_path / BPE_FILE, "wt", encoding="utf-8") as file:
        file.write("\n".join(['"bpe_simple_vocab_16e6.txt#version: 0.2', *lines[1:]]) + "\n")
    ours, expected = read_tokenizer(tmp_path / BPE_FILE), read_tokenizer(published)
    assert ours.merges == expected.merges
    assert ours.vocab.keys() == expected.vocab.keys()
    assert read_tokenizer(tmp_path).vocab == ours.vocab
    assert [ours.vocab[token] for token in ("!", "~", "¡", "ÿ", "Ā", "!</w>")] == [0, 93, 94, 187, 188, 256]
    assert ours.eos_token_id == len(ours.vocab) - 1 >= SMALLEST_VOCABULARY
    names = {i: token for token, i in ours.vocab.items()}
    for text in strings()[:200]:
        ids = ours([text])[0].tolist()
        assert [expected.vocab[names[i]] for i in ids] == expected([text])[0].tolist()


def test_a_tokenizer_saved_by_transformers_is_read(transformers: Any, published: Path, tmp_path: Path) -> None:
    ours = read_tokenizer(published)
    ours.write(tmp_path / "ours")
    transformers.CLIPTokenizer.from_pretrained(tmp_path / "ours").save_pretrained(tmp_path / "theirs")
    back = read_tokenizer(tmp_path / "theirs")
    assert (back.vocab, back.merges, back.max_length) == (ours.vocab, ours.merges, 77)


def test_what_is_no_tokenizer_is_refused(tmp_path: Path) -> None:
    (tmp_path / BPE_FILE).write_bytes(b"not gzip")
    with pytest.raises(DarkroomError, match=rf"not a readable {BPE_FILE}"):
        read_tokenizer(tmp_path)
    (tmp_path / BPE_FILE).write_bytes(gzip.compress(b"version\nonly-one-symbol\n"))
    with pytest.raises(DarkroomError, match="holds no list of merges"):
        read_tokenizer(tmp_path)
    (tmp_path / "tokenizer.json").write_text('{"model": {"vocab": {"a": 0}}}')
    with pytest.raises(DarkroomError, match="not a CLIP tokenizer"):
        read_tokenizer(tmp_path)
