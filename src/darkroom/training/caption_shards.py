"""The shards of the cached conditions: captions embedded, some thousand at a time, by anybody."""

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import torch
from torch import Tensor

from darkroom.core import device as devices
from darkroom.core.output_shards import Shard
from darkroom.core.tasks import Kept
from darkroom.data.caption_table import read_captions
from darkroom.data.conditioning import SHARD_ROWS, Cache, shard_name, write_shard
from darkroom.data.tokenizer import CLIPTokenizer
from darkroom.training.contrastive import embed_captions
from darkroom.training.frozen_text import FrozenTextEncoder

TOKENIZER = "tokenizer"  # in the artifact, and beside the encoder of an imported model
Encode = Callable[[list[str]], Tensor]


def kept_encoder(folder: Path, cache: Cache) -> Kept[Encode]:
    """What gives of m captions what is kept of them, with artifacts/text_encoder: states (m, L, D) fp16, or token ids
    (m, L)."""
    return Kept(partial(_encoder, folder, cache))


def _encoder(folder: Path, cache: Cache) -> Encode:
    tokenizer = CLIPTokenizer.read(folder / TOKENIZER)
    if cache == "tokens":
        return tokenizer
    device = devices.current()
    model = FrozenTextEncoder.read(folder, device).model

    def states(captions: list[str]) -> Tensor:
        return embed_captions(model, tokenizer(captions), device)

    return states


@dataclass(frozen=True)
class CaptionShards:
    """How captions are cached.

    captions: the file of them, see `caption_table`. version: of the encoder, which the stage's fingerprint leaves open.
    """

    encode: Kept[Encode]
    cache: Cache
    captions: Path
    version: str

    def of(self, n: int) -> list[Shard]:
        """The shards of n captions."""
        starts = range(0, n, SHARD_ROWS)
        shards = [range(start, min(start + SHARD_ROWS, n)) for start in starts]
        return [
            Shard(f"{self.version}-{shard_name(self.cache, number)}", partial(self.write, rows), len(rows))
            for number, rows in enumerate(shards)
        ]

    @torch.no_grad()
    def write(self, rows: range, path: Path) -> None:
        """Read, encode and write the captions of a shard."""
        write_shard(path, self.cache, self.encode()(read_captions(self.captions, rows)))
