"""CLIP's tokenizer as it is published: vocab.json and merges.txt, or the list of merges alone (OpenAI's CLIP)."""

import gzip
import zlib
from pathlib import Path
from typing import Any

from tokenizers import Tokenizer, pre_tokenizers

from darkroom.core.artifact import FETCH
from darkroom.core.errors import DarkroomError
from darkroom.core.limits import LIST_BYTES
from darkroom.core.symlinks import check_inside
from darkroom.core.text import printable
from darkroom.data.tokenizer import (
    BOS,
    EOS,
    MERGES,
    TOKENIZER_CONFIG,
    VOCAB,
    WHOLE,
    WORD_END,
    WORDS,
    CLIPTokenizer,
    model_max_length,
)
from darkroom.interop.configs import read_outside

SPECIAL, ADDED = "special_tokens_map.json", "added_tokens.json"
SPECIAL_TOKENS = {"bos_token": BOS, "eos_token": EOS, "pad_token": EOS, "unk_token": EOS}
OTHER_TOKENS = ("sep_token", "cls_token", "mask_token")  # which CLIP has not
LISTS = ("additional_special_tokens", "extra_special_tokens", "model_specific_special_tokens")
# What would give other token ids and is not done here: each of these keys is absent or has one of these values.
NEUTRAL: dict[str, tuple[Any, ...]] = {
    "tokenizer_class": (None, "CLIPTokenizer", "CLIPTokenizerFast"),
    "add_prefix_space": (None, False),
    "add_bos_token": (None, True),
    "add_eos_token": (None, True),
    "padding_side": (None, "right"),
    "truncation_side": (None, "right"),
    "split_special_tokens": (None, False),
}
PROBES = (  # what tells tokenizers apart that hold the same words
    "A  small\tRED circle's don't 12,345.67 'S ... !!! $100 #tag <cat-toy>",
    "e\u0301 \u212b \u00df na\u00efve \u65e5\u672c\u8a9e \U0001f469\u200d\U0001f467 _x_ <|endoftext|> <|startoftext|>",
)
# Steps of a tokenizer.json: (type, pattern, what is put in its place); a pattern may begin with the special tokens.
SPECIAL_WORDS = r"<\|startoftext\|>|<\|endoftext\|>|"
STEPS: dict[str, tuple[tuple[str, str | None, str | None], ...]] = {
    "normalizer": (
        *((name, None, None) for name in ("NFC", "NFD", "NFKC", "NFKD", "Lowercase", "StripAccents", "Strip")),
        ("Replace", r"\s+", " "),
        ("BertNormalizer", None, None),
    ),
    "pre_tokenizer": (
        ("Split", WORDS.removeprefix(SPECIAL_WORDS), None),
        *((name, None, None) for name in ("ByteLevel", "Whitespace", "WhitespaceSplit", "BertPreTokenizer")),
    ),
    "post_processor": tuple((name, None, None) for name in ("RobertaProcessing", "TemplateProcessing", "ByteLevel")),
}
BPE_FILE = "bpe_simple_vocab_16e6.txt.gz"
CONTEXT = 77  # tokens of a text in CLIP
N_MERGES = 49152 - 256 - 2  # of that many lines in the list, CLIP's vocabulary takes these


def read_tokenizer(path: Path) -> CLIPTokenizer:
    """Read a folder with vocab.json and merges.txt or with the list of merges, or that list itself.

    Raises:
        DarkroomError: nothing of the kind is there, it is malformed, or a file of the folder is a link out of it.
    """
    if path.is_file():
        return _from_merges(path)
    check_inside(path, (VOCAB, MERGES, WHOLE, BPE_FILE, TOKENIZER_CONFIG, SPECIAL, ADDED))
    found = None
    if (path / VOCAB).is_file() and (path / MERGES).is_file():
        found = CLIPTokenizer.read(path, _max_length(path))
    elif (path / WHOLE).is_file():
        found = _from_whole(path)
    elif (path / BPE_FILE).is_file():
        found = _from_merges(path / BPE_FILE)
    if found is not None:
        _check_brought(path, found)
        return found
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
    return model_max_length(folder, CONTEXT) if (folder / TOKENIZER_CONFIG).is_file() else CONTEXT


def _from_whole(folder: Path) -> CLIPTokenizer:
    """tokenizer.json, all that transformers 5 writes."""
    values = read_outside(folder / WHOLE)
    model = values.get("model") if isinstance(values, dict) else None
    model = model if isinstance(model, dict) else {}
    vocab, pairs = model.get("vocab") or {}, model.get("merges") or []
    vocab, pairs = vocab if isinstance(vocab, dict) else {}, pairs if isinstance(pairs, list) else [()]
    merges = [tuple(pair.split(" ")) if isinstance(pair, str) else _texts(pair) for pair in pairs]
    if model.get("end_of_word_suffix") != WORD_END or BOS not in vocab or any(len(pair) != 2 for pair in merges):
        raise DarkroomError(f"{folder / WHOLE}: not a CLIP tokenizer; give one with {VOCAB} and {MERGES}")
    return CLIPTokenizer.of(folder / WHOLE, vocab, [(pair[0], pair[1]) for pair in merges], _max_length(folder))


def _texts(pair: Any) -> tuple[str, ...]:
    """A pair of symbols as newer files list it; empty where it is not a pair."""
    return tuple(pair) if isinstance(pair, list) and all(isinstance(symbol, str) for symbol in pair) else ()


def _from_merges(path: Path) -> CLIPTokenizer:
    """The first line names a version; a token is a byte, a byte at a word's end, or what a merge makes."""
    LIST_BYTES.check(f"{path}: size", path.stat().st_size, FETCH)
    try:
        with gzip.open(path) as file:
            unpacked = file.read(LIST_BYTES.most + 1)
        LIST_BYTES.check(f"{path}: size, unpacked as far as it was read,", len(unpacked), FETCH)
        lines = unpacked.decode("utf-8").split("\n")
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


def _check_brought(folder: Path, ours: CLIPTokenizer) -> None:
    """Refuse what the files of a folder say beyond a vocabulary and its merges, where other token ids would follow.

    Raises:
        DarkroomError: names the file, the token or key, and what can be done.
    """
    for name in (ADDED, SPECIAL, TOKENIZER_CONFIG, WHOLE):
        if (folder / name).is_file():
            values = read_outside(folder / name)
            for token, i in _added(name, values):
                if token not in (BOS, EOS) or ours.vocab.get(token) != i:
                    raise DarkroomError(
                        f"{folder / name}: adds the token {printable(token)!r} ({printable(i)}) to "
                        f"CLIP's vocabulary, which is "
                        "not read here; remove it, and its row of the text encoder, or give a model without it"
                    )
            if name in (SPECIAL, TOKENIZER_CONFIG) and isinstance(values, dict):
                _check_keys(folder / name, values)
    if (folder / WHOLE).is_file():
        _check_same(folder / WHOLE, ours)


def _added(name: str, values: Any) -> list[tuple[str, Any]]:
    """(token, id) of what a file adds to a vocabulary, in any of the forms that transformers wrote over the years."""
    if not isinstance(values, dict):
        return []
    if name == ADDED:
        return [(str(token), i) for token, i in values.items()]
    if name == WHOLE:
        listed = values.get("added_tokens") or []
        listed = listed if isinstance(listed, list) else [listed]
        entries = [(_content(entry), entry.get("id")) for entry in listed if isinstance(entry, dict)]
    else:
        decoder = values.get("added_tokens_decoder")
        items = decoder.items() if isinstance(decoder, dict) else ()
        entries = [(_content(entry), int(i) if str(i).isdecimal() else i) for i, entry in items]
    for key in LISTS:
        more = values.get(key)
        listed = list(more.values()) if isinstance(more, dict) else more if isinstance(more, list) else []
        entries += [(_content(entry), "by name") for entry in listed if _content(entry) not in (BOS, EOS)]
    return [(str(token), i) for token, i in entries]


def _content(token: Any) -> Any:
    """A token is written as its text, or with how it is looked for in texts."""
    return token.get("content") if isinstance(token, dict) else token


def _check_keys(path: Path, values: dict[str, Any]) -> None:
    for key, wanted in SPECIAL_TOKENS.items():
        if (token := _content(values.get(key))) not in (None, wanted):
            raise DarkroomError(f"{path}: {key} = {printable(repr(token))} is not supported, only {wanted!r}")
    for key in OTHER_TOKENS:
        if (token := _content(values.get(key))) not in (None, BOS, EOS):
            raise DarkroomError(f"{path}: {key} = {printable(repr(token))} is not supported; CLIP has none")
    for key, allowed in NEUTRAL.items():
        if (value := values.get(key)) not in allowed:
            raise DarkroomError(f"{path}: {key} = {printable(repr(value))} is not supported, only {allowed[-1]!r}")


def _check_steps(path: Path, values: Any) -> None:
    """Refuse a tokenizer.json with a step that CLIP's has not: some, repeated, make a short text fill any memory.

    Raises:
        DarkroomError: names the file, the part and the step.
    """
    if not isinstance(values, dict):
        raise DarkroomError(f"{path}: holds no keys; {FETCH}")
    for part, known in STEPS.items():
        for step in _steps(values.get(part)):
            said = step if isinstance(step, dict) else {}
            pattern = said.get("pattern")
            regex = pattern.get("Regex") if isinstance(pattern, dict) else pattern
            plain = regex.removeprefix(SPECIAL_WORDS) if isinstance(regex, str) else regex
            if not any((said.get("type"), plain, said.get("content")) == one for one in known):
                raise DarkroomError(
                    f"{path}: {part} = {printable(repr(step))} is not a step of CLIP's tokenizer; {FETCH}, "
                    f"or remove the file "
                    f"where {VOCAB} and {MERGES} lie beside it"
                )
    model = values.get("model")
    if not isinstance(model, dict) or model.get("type", "BPE") != "BPE" or model.get("dropout"):
        raise DarkroomError(f"{path}: model is not the plain BPE of CLIP's tokenizer; {FETCH}")


def _steps(part: Any) -> list[Any]:
    """The steps of a part of a tokenizer.json: one, or a sequence of them, which nothing nests."""
    if not isinstance(part, dict) or part.get("type") != "Sequence":
        return [] if part is None else [part]
    inner = next((part[key] for key in ("normalizers", "pretokenizers", "processors") if key in part), None)
    return inner if isinstance(inner, list) else [part]


def _check_same(path: Path, ours: CLIPTokenizer) -> None:
    """Refuse a tokenizer.json that is another tokenizer than the files beside it: transformers reads it before them."""
    _check_steps(path, read_outside(path))
    try:
        theirs = Tokenizer.from_file(str(path))
        theirs.no_padding()
        theirs.no_truncation()
        vocab = theirs.get_vocab(with_added_tokens=True)
        ids = [theirs.encode(text).ids for text in PROBES]
    except Exception as error:  # tokenizers raises no other class
        reason = printable(" ".join(str(error).split()))
        raise DarkroomError(f"{path}: is not a tokenizer ({reason}); {FETCH}") from None
    if vocab != ours.vocab:
        other = min(vocab.items() ^ ours.vocab.items())
        raise DarkroomError(
            f"{path}: is another tokenizer than {VOCAB} beside it, by {printable(other[0])!r} for one; "
            f"remove the one that "
            "the text encoder was not trained with"
        )
    for text, found in zip(PROBES, ids, strict=True):
        if found != ours.ids(text):
            raise DarkroomError(
                f"{path}: reads {printable(text)!r} as other tokens than CLIP's tokenizer does; give "
                f"CLIP's own {VOCAB} "
                f"and {MERGES}"
            )
