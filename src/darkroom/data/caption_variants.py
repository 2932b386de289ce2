"""Captions without some of their tags or sentences: variants of each, drawn once, and cached as captions are."""

import re
from collections.abc import Mapping

import pyarrow as pa
import torch
from torch import Tensor

from darkroom.config.text_encoder import CaptionDropout
from darkroom.core.seeds import numpy_rng
from darkroom.data.caption_table import batches_of, distinct

BATCH = 4096  # captions at once
UNITS = {"tags": (re.compile(r"\s*,\s*"), ", "), "sentences": (re.compile(r"(?<=[.!?])\s+"), " ")}


def variants_of(caption: str, dropout: CaptionDropout) -> list[str]:
    """The variants of a caption, a function of (seed, caption)."""
    between, joint = UNITS[dropout.unit]
    units = [unit for unit in between.split(caption.strip()) if unit]
    if len(units) <= max(1, dropout.keep_first):
        return [caption] * dropout.variants
    uniform = numpy_rng(dropout.seed, "caption dropout", caption).random((dropout.variants, len(units)))
    stays = uniform >= dropout.probability
    stays[:, : dropout.keep_first] = True
    stays[range(dropout.variants), uniform.argmax(axis=1)] |= ~stays.any(axis=1)
    return [
        caption if row.all() else joint.join(unit for unit, stay in zip(units, row, strict=True) if stay)
        for row in stays
    ]


def with_variants(
    texts: pa.Array, index: Mapping[str, Tensor], dropout: CaptionDropout
) -> tuple[pa.Array, dict[str, Tensor]]:
    """Distinct captions, and those of a split's rows, as of `distinct`; then those with the variants among them.

    The rows of train have the numbers (N, variants) of their captions' variants; others keep one.
    """
    used, which = torch.unique(index["train"], return_inverse=True)
    varied = pa.chunked_array(
        [
            pa.array([variant for caption in captions for variant in variants_of(caption, dropout)], pa.large_string())
            for captions in batches_of(texts.take(pa.array(used.numpy())), BATCH)
        ]
    )
    kept = {name: rows for name, rows in index.items() if name != "train"}
    others = {name: pa.chunked_array([texts.take(pa.array(rows.numpy()))]) for name, rows in kept.items()}
    found, rows = distinct({"train": varied, **others})
    return found, {**rows, "train": rows["train"].view(len(used), dropout.variants)[which]}


def longest_of(captions: pa.ChunkedArray, pictures: Tensor) -> Tensor:
    """The row (P,) int64 of the longest caption of each picture, of several the first.

    Args:
        captions: (N,). pictures: (N,), row -> picture.
    """
    lengths = torch.tensor([len(caption) for chunk in captions.chunks for caption in chunk.to_pylist()])
    order = lengths.argsort(descending=True, stable=True)
    order = order[pictures[order].argsort(stable=True)]
    counts = pictures.bincount()
    return order[counts.cumsum(0) - counts]
