"""CLIP's tokenizer (Radford et al. 2021, section 2.4), trained here or read from a folder.

Lower-cased byte-pair encoding over bytes, a word's last piece marked `</w>`, between a start and an end token, filled
up with end tokens. Its folder is one that transformers' `CLIPTokenizer` loads, with the same ids.
"""

import json
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from tokenizers import Regex, Tokenizer, decoders, models, normalizers, pre_tokenizers, processors, trainers

from darkroom.config.networks import TokenSizes
from darkroom.core.artifact import read_json, write_json
from darkroom.core.errors import DarkroomError
from darkroom.core.limits import JSON_BYTES, LIST_BYTES, NUMBER, TOKENS
from darkroom.core.outside import read_bytes
from darkroom.core.text import UnreadableTextError, decode_text, printable

if TYPE_CHECKING:
    from torch import Tensor

VOCAB, MERGES, WHOLE, TOKENIZER_CONFIG = "vocab.json", "merges.txt", "tokenizer.json", "tokenizer_config.json"
REMEDY = "fetch or make the tokenizer again"
BOS, EOS = "<|startoftext|>", "<|endoftext|>"
WORD_END = "</w>"
WORDS = r"""<\|startoftext\|>|<\|endoftext\|>|'s|'t|'re|'ve|'m|'ll|'d|[\p{L}]+|[\p{N}]|[^\s\p{L}\p{N}]+"""
AT_ONCE = 4096  # texts
LEAST_LENGTH = 2  # tokens of a text: its start and its end
SMALLEST_VOCABULARY = 2 * 256 + 2  # every byte, within a word and at its end, and the two special tokens


@dataclass(frozen=True)
class Fit:
    """How texts fit a tokenizer.

    lengths: tokens of each text, uncut, start and end included. words: how many distinct ones, in lower case.
    in_pieces: those of them that are more than one token, the most frequent first.
    """

    lengths: list[int]
    words: int
    in_pieces: list[str]


class CLIPTokenizer:
    """Texts -> token ids (N, max_length)."""

    def __init__(self, vocab: dict[str, int], merges: list[tuple[str, str]], max_length: int) -> None:
        self.vocab, self.merges, self.max_length = vocab, merges, max_length
        self.bos_token_id, self.eos_token_id = vocab[BOS], vocab[EOS]
        self._tokenizer = _frame(models.BPE(vocab=vocab, merges=merges, end_of_word_suffix=WORD_END, unk_token=EOS))
        self._tokenizer.post_processor = processors.TemplateProcessing(
            single=f"{BOS} $A {EOS}", special_tokens=[(BOS, self.bos_token_id), (EOS, self.eos_token_id)]
        )
        self._tokenizer.decoder = decoders.ByteLevel()
        self._tokenizer.add_special_tokens([BOS, EOS])

    @classmethod
    def train(cls, texts: Iterable[str], vocab_size: int, max_length: int) -> "CLIPTokenizer":
        """Learn the merges from `texts`; fewer than `vocab_size` tokens where the texts offer no more."""
        learner = _frame(models.BPE(end_of_word_suffix=WORD_END))
        alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
        trainer = trainers.BpeTrainer(
            vocab_size=vocab_size,
            initial_alphabet=alphabet,
            end_of_word_suffix=WORD_END,
            show_progress=False,
        )
        learner.train_from_iterator(texts, trainer)
        merges = [tuple(pair) for pair in json.loads(learner.to_str())["model"]["merges"]]
        base = [*alphabet, *(symbol + WORD_END for symbol in alphabet)]
        merges = merges[: vocab_size - SMALLEST_VOCABULARY]
        tokens = [*base, *dict.fromkeys("".join(pair) for pair in merges), BOS, EOS]
        return cls({token: i for i, token in enumerate(tokens)}, merges, max_length)

    @classmethod
    def read(cls, folder: Path | str, max_length: int | None = None) -> "CLIPTokenizer":
        """Read the vocab.json and merges.txt of a folder; max_length is tokenizer_config.json's unless given.

        Raises:
            DarkroomError: a file is missing, or is none of a CLIP tokenizer.
        """
        folder = Path(folder)
        vocab = read_json(folder / VOCAB, REMEDY, JSON_BYTES)
        try:
            lines = decode_text(read_bytes(folder / MERGES, LIST_BYTES, REMEDY)).split("\n")
        except UnreadableTextError as error:
            raise DarkroomError(f"{folder / MERGES}: {error}; {REMEDY}") from None
        if not isinstance(vocab, dict):
            raise DarkroomError(f"{folder / VOCAB}: lists no tokens; {REMEDY}")
        merges = [tuple(line.split(" ")) for line in lines if line and not line.startswith("#version")]
        if BOS not in vocab or EOS not in vocab or any(len(pair) != 2 for pair in merges):
            raise DarkroomError(f"{folder}: not a CLIP tokenizer ({BOS} or {EOS} missing, or {MERGES} malformed)")
        if max_length is None:
            max_length = model_max_length(folder)
        return cls.of(folder, vocab, [(pair[0], pair[1]) for pair in merges], max_length)

    @classmethod
    def of(cls, file: Path, vocab: Any, merges: list[tuple[str, str]], max_length: int) -> "CLIPTokenizer":
        """The tokenizer of what was read from `file`.

        Raises:
            DarkroomError: these merges do not belong to this vocabulary, or it is none.
        """
        if isinstance(vocab, dict):
            for token, number in vocab.items():
                if isinstance(number, bool) or not isinstance(number, int) or number < 0:
                    raise DarkroomError(
                        f"{file}: {printable(token)!r} = {printable(repr(number))} is not a token's id; {REMEDY}"
                    )
                NUMBER.check(f"{file}: id of {printable(token)!r}", number, REMEDY)
        try:
            return cls(vocab, merges, max_length)
        except Exception as error:  # tokenizers raises no other class
            reason = printable(" ".join(str(error).split()))
            raise DarkroomError(f"{file}: not a CLIP tokenizer ({reason}); {REMEDY}") from None

    def write(self, folder: Path) -> None:
        """Write the files that transformers' CLIPTokenizer and CLIPTokenizerFast read."""
        folder.mkdir(parents=True)
        text = json.dumps(self.vocab, ensure_ascii=False) + "\n"
        (folder / VOCAB).write_text(text, encoding="utf-8")
        lines = ["#version: 0.2", *(" ".join(pair) for pair in self.merges)]
        (folder / MERGES).write_text("\n".join(lines) + "\n", encoding="utf-8")
        special = {"bos_token": BOS, "eos_token": EOS, "pad_token": EOS, "unk_token": EOS}
        config = {
            **special,
            "add_prefix_space": False,
            "do_lower_case": True,
            "errors": "replace",
            "model_max_length": self.max_length,
            "tokenizer_class": "CLIPTokenizer",
        }
        write_json(folder / TOKENIZER_CONFIG, config)
        write_json(folder / "special_tokens_map.json", special)
        self._tokenizer.save(str(folder / WHOLE))

    @property
    def sizes(self) -> TokenSizes:
        """Its special tokens; it fills texts up with their end."""
        end = self.eos_token_id
        return TokenSizes(bos_token_id=self.bos_token_id, eos_token_id=end, pad_token_id=end)

    def __call__(self, texts: Sequence[str]) -> "Tensor":
        """Token ids (N, max_length) int64: start, text, end, then more ends. Longer texts are cut, their end kept."""
        import torch

        rows = torch.full((len(texts), self.max_length), self.eos_token_id)
        for row, encoding in zip(rows, self._encoded(texts), strict=True):
            ids = encoding.ids[: self.max_length - 1]
            row[: len(ids)] = torch.tensor(ids)
        return rows

    def _encoded(self, texts: Sequence[str]) -> Iterator[Any]:
        """Each text's `tokenizers.Encoding`, of which there are never more than AT_ONCE: each is a kilobyte or more."""
        for start in range(0, len(texts), AT_ONCE):
            yield from self._tokenizer.encode_batch(list(texts[start : start + AT_ONCE]))

    def ids(self, text: str) -> list[int]:
        """The token ids of a text of any length: start, text, end."""
        return list(self._tokenizer.encode(text).ids)

    def fit(self, texts: Sequence[str]) -> Fit:
        """How long the texts are, and which of their words are read in pieces."""
        lengths, tokens, counts = list[int](), dict[str, int](), Counter[str]()
        for text, encoding in zip(texts, self._encoded(texts), strict=True):
            lengths.append(len(encoding.ids))
            spans: dict[int, list[tuple[int, int]]] = {}
            for word, span in zip(encoding.word_ids, encoding.offsets, strict=True):
                if word is not None:
                    spans.setdefault(word, []).append(span)
            for pieces in spans.values():
                word_text = text[pieces[0][0] : pieces[-1][1]].lower()
                counts[word_text] += 1
                tokens[word_text] = len(pieces)
        in_pieces = sorted((word for word in counts if tokens[word] > 1), key=lambda word: (-counts[word], word))
        return Fit(lengths, len(counts), in_pieces)

    def cut(self, text: str) -> str:
        """What `__call__` drops of a text that is too long: its last words, the one it cuts through included, as they
        are written; empty for a text that fits."""
        encoding = self._tokenizer.encode(text)
        if len(encoding.ids) <= self.max_length:
            return ""
        first = encoding.word_ids.index(encoding.word_ids[self.max_length - 1])
        return text[encoding.offsets[first][0] :].strip()


def model_max_length(folder: Path, silent: int | None = None) -> int:
    """What tokenizer_config.json says, which is 10^30 in some for "no limit", at most `TOKENS`; `silent` where it says
    nothing.

    Raises:
        DarkroomError: it says no number.
    """
    file = folder / TOKENIZER_CONFIG
    values = read_json(file, REMEDY, JSON_BYTES)
    found = values.get("model_max_length", silent) if isinstance(values, dict) else None
    if isinstance(found, bool) or not isinstance(found, int | float) or not found >= LEAST_LENGTH:
        raise DarkroomError(
            f"{file}: model_max_length = {printable(repr(found))}: give a number above {LEAST_LENGTH - 1}"
        )
    return min(int(found), TOKENS.most)


def _frame(model: models.Model) -> Tokenizer:
    tokenizer = Tokenizer(model)
    tokenizer.normalizer = normalizers.Sequence(
        [normalizers.NFC(), normalizers.Replace(Regex(r"\s+"), " "), normalizers.Lowercase()]
    )
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence(
        [
            pre_tokenizers.Split(Regex(WORDS), behavior="removed", invert=True),
            pre_tokenizers.ByteLevel(add_prefix_space=False),
        ]
    )
    return tokenizer
