"""CLIP's tokenizer as it is published: vocab.json and merges.txt, or the list of merges alone (OpenAI's CLIP)."""

import gzip
import zlib
from pathlib import Path

from tokenizers import pre_tokenizers

from darkroom.core.artifact import read_json
from darkroom.core.errors import DarkroomError
from darkroom.core.inside import check_inside
from darkroom.data.tokenizer import (
    BOS,
    EOS,
    MERGES,
    TOKENIZER_CONFIG,
    VOCAB,
    WHOLE,
    WORD_END,
    CLIPTokenizer,
    model_max_length,
)

BPE_FILE = "bpe_simple_vocab_16e6.txt.gz"
CONTEXT = 77  # tokens of a text in CLIP
MOST = 1024  # some files say 10^30 for "no limit"
N_MERGES = 49152 - 256 - 2  # of that many lines in the list, CLIP's vocabulary takes these


def read_tokenizer(path: Path) -> CLIPTokenizer:
    """Read a folder with vocab.json and merges.txt or with the list of merges, or that list itself.

    Raises:
        DarkroomError: nothing of the kind is there, it is malformed, or a file of the folder is a link out of it.
    """
    if path.is_file():
        return _from_merges(path)
    check_inside(path, (VOCAB, MERGES, WHOLE, BPE_FILE, TOKENIZER_CONFIG))
    if (path / VOCAB).is_file() and (path / MERGES).is_file():
        return CLIPTokenizer.read(path, _max_length(path))
    if (path / WHOLE).is_file():
        return _from_whole(path)
    if (path / BPE_FILE).is_file():
        return _from_merges(path / BPE_FILE)
    raise DarkroomError(f"{path}: no tokenizer here; give a folder with {VOCAB} and {MERGES}, or {BPE_FILE}")


def find_tokenizer(beside: Path) -> Path:
    """Where the tokenizer of a file lies: in tokenizer/ beside it, or right beside it.

    Raises:
        DarkroomError: neither, and what to do.
    """
    for folder in (beside.parent / "tokenizer", beside.parent):
        if any((folder / name).is_file() for name in (VOCAB, WHOLE, BPE_FILE)):
            return folder
    raise DarkroomError(
        f"{beside}: a single file holds no tokenizer; put {VOCAB} and {MERGES}, or {BPE_FILE}, beside it, or name "
        "their folder: tokenizer=FOLDER, --tokenizer FOLDER"
    )


def _max_length(folder: Path) -> int:
    return min(model_max_length(folder, CONTEXT), MOST) if (folder / TOKENIZER_CONFIG).is_file() else CONTEXT


def _from_whole(folder: Path) -> CLIPTokenizer:
    """tokenizer.json, all that transformers 5 writes."""
    values = read_json(folder / WHOLE)
    model = values.get("model") if isinstance(values, dict) else None
    model = model if isinstance(model, dict) else {}
    vocab, pairs = model.get("vocab") or {}, model.get("merges") or []
    merges = [tuple(pair.split(" ")) if isinstance(pair, str) else tuple(pair) for pair in pairs]
    if model.get("end_of_word_suffix") != WORD_END or BOS not in vocab or any(len(pair) != 2 for pair in merges):
        raise DarkroomError(f"{folder / WHOLE}: is no CLIP tokenizer; give one with {VOCAB} and {MERGES}")
    return CLIPTokenizer.of(folder / WHOLE, vocab, [(pair[0], pair[1]) for pair in merges], _max_length(folder))


def _from_merges(path: Path) -> CLIPTokenizer:
    """The first line names a version; a token is a byte, a byte at a word's end, or what a merge makes."""
    try:
        with gzip.open(path, "rt", encoding="utf-8") as file:
            lines = file.read().split("\n")
    except (OSError, EOFError, UnicodeDecodeError, zlib.error) as error:
        raise DarkroomError(
            f"{path}: not a readable {BPE_FILE} ({' '.join(str(error).split())}); fetch it again"
        ) from None
    pairs = [tuple(line.split()) for line in lines[1:] if line.strip()][:N_MERGES]
    if not pairs or any(len(pair) != 2 for pair in pairs):
        raise DarkroomError(f"{path}: holds no list of merges, two symbols a line; fetch {BPE_FILE}")
    merges = [(pair[0], pair[1]) for pair in pairs]
    alphabet = _bytes_in_order()
    tokens = [*alphabet, *(symbol + WORD_END for symbol in alphabet), *("".join(pair) for pair in merges), BOS, EOS]
    return CLIPTokenizer.of(path, {token: i for i, token in enumerate(tokens)}, merges, CONTEXT)


def _bytes_in_order() -> list[str]:
    """The symbols of the 256 bytes as CLIP numbers them: those that can be printed first, the others after them."""
    symbols = sorted(pre_tokenizers.ByteLevel.alphabet())
    return [s for s in symbols if ord(s) < 256] + [s for s in symbols if ord(s) >= 256]
