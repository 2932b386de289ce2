"""Cached conditions: every distinct caption once, as the text encoder's states or as tokens, and the null condition.

data/conditioning/: config.json, a `ConditioningInfo`; index.safetensors with, for each split, (N,) int64: row of the
prepared data -> its caption's number, or its class; (N, K) where each caption is kept in K variants. Where pictures
have several captions, also SPLIT/pictures, (N,): row -> picture, and of text SPLIT/longest: picture -> the row of its
longest caption. Of text besides: embeddings-00000.safetensors, … with `embeddings` fp16 (m, L, D) of SHARD_ROWS
captions, or tokens-00000.safetensors, … with `tokens` int32 (m, L); null.safetensors with `null` fp16 (L, D);
captions.arrow, the captions. provenance.json.
"""

import copy
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Literal, Self

import torch
from torch import Tensor

from darkroom.core.artifact import CONFIG, REPRO, load_tensors, read_json, save_tensors, write_json
from darkroom.core.errors import DarkroomError
from darkroom.data.caption_table import read_captions
from darkroom.data.rows import Rows

CAPTIONS = "captions.arrow"
SHARD_ROWS = 4096  # captions of all shards but the last: as many states of 77 x 768 are 484 MB
Kind = Literal["text", "class", "none"]
Cache = Literal["states", "tokens"]
Draw = Callable[[str], Tensor]
Encode = Callable[[Tensor], Tensor]  # token ids (n, L) -> states (n, L, D) float32, on the encoder's device
NAMES: dict[Cache, str] = {"states": "embeddings", "tokens": "tokens"}  # of the shards, and of the tensor in each
DTYPES: dict[Cache, torch.dtype] = {"states": torch.float16, "tokens": torch.int32}


@dataclass(frozen=True)
class ConditioningInfo:
    """What the conditions are.

    kind: "text" (states), "class" (ids; the embedding is the U-Net's) or "none".
    null: how the null condition was made: "empty_prompt" or "zeros" (text), "class" (id = n_classes), or None.
    max_length, dim: of a caption's states (L, D); 0 without text.
    classes: the names of the classes; empty without classes.
    """

    kind: Kind
    null: str | None
    max_length: int
    dim: int
    classes: list[str]

    @property
    def takes_prompts(self) -> bool:
        """Whether anything can be asked for."""
        return self.kind != "none"

    @property
    def of_text(self) -> bool:
        """Whether it is asked for in words."""
        return self.kind == "text"

    @property
    def of_classes(self) -> bool:
        """Whether it is asked for by the name of a class."""
        return self.kind == "class"


@dataclass(frozen=True)
class Captions:
    """The captions of P pictures, of which some have several, as rows of the prepared data.

    rows: (N,), those of a picture together, in order. starts, counts: (P,), where those of a picture begin, and how
    many they are. longest: (P,), the row of each picture's longest caption; of its first where lengths are not known.
    """

    rows: Tensor
    starts: Tensor
    counts: Tensor
    longest: Tensor

    @classmethod
    def of(cls, pictures: Tensor, longest: Tensor | None) -> Self:
        """Of rows (N,), each with the number of its picture."""
        rows, counts = pictures.argsort(stable=True), pictures.bincount()
        starts = counts.cumsum(0) - counts
        return cls(rows, starts, counts, rows[starts] if longest is None else longest)

    def row(self, pictures: Tensor, which: Tensor) -> Tensor:
        """The rows (n,) of captions `which` (n,), from 0, of pictures (n,)."""
        return self.rows[self.starts[pictures] + which]

    def first(self, pictures: Tensor) -> Tensor:
        """The rows (n,) of the first captions of pictures (n,)."""
        return self.rows[self.starts[pictures]]

    def at(self, pictures: Tensor, uniform: Tensor) -> Tensor:
        """The rows (n,) of one caption each of pictures (n,), chosen by uniform numbers (n,) in [0, 1)."""
        counts = self.counts[pictures]
        return self.row(pictures, (uniform * counts).long().clamp(max=counts - 1))


class Conditioning:
    """Conditions of a data set, of which only the rows asked for are read.

    Args:
        index: what index.safetensors holds.
        table: of text, states (M, L, D) fp16 or token ids (M, L) int32; else None.
        null: (L, D), of text. encode: what makes states of token ids; needed where the table has those.
    """

    def __init__(
        self,
        info: ConditioningInfo,
        index: dict[str, Tensor],
        table: Tensor | Rows | None,
        null: Tensor | None,
        encode: Encode | None = None,
    ) -> None:
        self.info, self.index, self.encode = info, index, encode
        self.table = None if table is None else Rows.of(table)
        self.null = torch.tensor(len(info.classes)) if info.of_classes else null

    @property
    def of_tokens(self) -> bool:
        """Whether captions are kept as token ids, which `encode` has to make states of."""
        return self.table is not None and not self.table.dtype.is_floating_point

    def as_ids(self, null: Tensor) -> "Conditioning":
        """The same, whose conditions are token ids (n, L) int64 as they are kept, for an encoder that is trained.

        Args:
            null: token ids (L,) of the null condition.
        """
        other = self.encoded_by(lambda ids: ids.long())
        other.null = null
        return other

    def encoded_by(self, encode: Encode) -> "Conditioning":
        """The same, whose token ids `encode` makes states of."""
        other = copy.copy(self)
        other.encode = encode
        return other

    def resident(self, device: torch.device) -> "Conditioning":
        """The same, with the null condition and, where it is not too large for that, the table on `device`."""
        other = copy.copy(self)
        other.table = None if self.table is None else self.table.resident(device).at_random()
        other.null = None if self.null is None else self.null.to(device)
        return other

    def captions(self, split: str) -> Captions | None:
        """Those of a split's pictures; None where each has one, in the row of its number."""
        pictures = self.index.get(f"{split}/pictures")
        return None if pictures is None else Captions.of(pictures, self.index.get(f"{split}/longest"))

    def rows(self, split: str, samples: Tensor) -> Tensor | None:
        """Of rows (n,) of the prepared data the rows of `table`, or the class ids, (n,) int64; None without conditions.
        Where captions are kept in K variants, (n, K), of which `one_variant` takes one."""
        return self.index[split][samples] if self.info.takes_prompts else None

    def states(self, found: Tensor) -> Tensor:
        """Rows of the table -> the states they stand for, (n, L, D) float32."""
        return found.float() if self.encode is None else self.encode(found)

    def of_rows(self, rows: Tensor | None) -> Tensor | None:
        """The conditions in `rows` (n,) of the table, or of these class ids: states (n, L, D) float32, class ids (n,)
        int64, or None."""
        return rows if rows is None or self.table is None else self.states(self.table[rows])

    def null_of(self, n: int) -> Tensor | None:
        """The null condition of n samples, in the form of `of_rows`."""
        return None if self.null is None else self.null.expand(n, *self.null.shape)

    @classmethod
    def read(cls, folder: Path | str) -> "Conditioning":
        """Map data/conditioning; where it keeps tokens, `encoded_by` has to follow.

        Raises:
            DarkroomError: a file is missing or torn.
        """
        folder = Path(folder)
        info = ConditioningInfo(**read_json(folder / CONFIG))
        index = load_tensors(folder / "index.safetensors")
        if not info.of_text:
            return cls(info, index, None, None)
        null = load_tensors(folder / "null.safetensors")["null"].float()
        for name in NAMES.values():
            if shards := sorted(folder.glob(f"{name}-*.safetensors")):
                return cls(info, index, Rows.mapped(shards, name), null)
        raise DarkroomError(f"{folder}: has no {' or '.join(NAMES.values())} of captions; {REPRO}")


def one_variant(rows: Tensor, draw: Draw) -> Tensor:
    """One of K variants each, (n, K) -> (n,); rows (n,) as they are.

    Args:
        draw: purpose -> uniform numbers (n,) in [0, 1).
    """
    if rows.ndim == 1:
        return rows
    which = (draw("caption variant") * rows.shape[1]).long().clamp(max=rows.shape[1] - 1)
    return rows.gather(1, which[:, None])[:, 0]


def write_description(folder: Path, info: ConditioningInfo, index: dict[str, Tensor], null: Tensor | None) -> None:
    """Write to a cache's folder what is not its captions and their shards. null: (L, D), of text."""
    save_tensors(folder / "index.safetensors", index)
    if null is not None:
        save_tensors(folder / "null.safetensors", {"null": null.half()})
    write_json(folder / CONFIG, asdict(info))


def shard_name(cache: Cache, number: int) -> str:
    """The file of a shard of captions, from 0."""
    return f"{NAMES[cache]}-{number:05d}.safetensors"


def write_shard(path: Path, cache: Cache, table: Tensor) -> None:
    """Write the states (m, L, D) or the token ids (m, L) of one shard's captions."""
    save_tensors(path, {NAMES[cache]: table.to(DTYPES[cache])})


def read_asked(folder: Path | str, split: str, n: int) -> list[str]:
    """What the first n rows of a split are asked to show: captions, names of classes, or nothing ("").

    Raises:
        DarkroomError: a file is missing or torn.
    """
    folder = Path(folder)
    if not ConditioningInfo(**read_json(folder / CONFIG)).takes_prompts:
        return [""] * n
    return read_words(folder, load_tensors(folder / "index.safetensors")[split][:n].tolist())


def read_words(folder: Path | str, rows: Sequence[int]) -> list[str]:
    """The captions of these rows of the table, or the names of these classes.

    Raises:
        DarkroomError: a file is missing or torn.
    """
    info = ConditioningInfo(**read_json(Path(folder) / CONFIG))
    return [info.classes[row] for row in rows] if info.of_classes else read_captions(Path(folder) / CAPTIONS, rows)
