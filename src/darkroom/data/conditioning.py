"""Cached conditions: every distinct caption embedded once, and the null condition.

data/conditioning/: config.json, a `ConditioningInfo`; embeddings.safetensors with `embeddings` (M, L, D) fp16 and
`null` (L, D) fp16 (text only); index.safetensors with, for each split, (N,) int64: sample -> row of `embeddings`, or
its class; captions.json, the M captions; provenance.json.
"""

import copy
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Literal

import torch
from torch import Tensor

from darkroom.core.artifact import CONFIG, load_tensors, read_json, save_tensors, write_json
from darkroom.core.errors import DarkroomError
from darkroom.core.tensors import resident

CAPTIONS = "captions.json"
Kind = Literal["text", "class", "none"]


@dataclass(frozen=True)
class ConditioningInfo:
    """What the conditions are.

    kind: "text" (embeddings), "class" (ids; the embedding is the U-Net's) or "none".
    null: how the null condition was made: "empty_prompt" or "zeros" (text), "class" (id = n_classes), or None.
    max_length, dim: of an embedding (L, D); 0 without text.
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


class Conditioning:
    """Conditions of a data set, in memory."""

    def __init__(
        self, info: ConditioningInfo, index: dict[str, Tensor], embeddings: Tensor | None, null: Tensor | None
    ) -> None:
        self.info, self.index, self.embeddings = info, index, embeddings
        self.null = torch.tensor(len(info.classes)) if info.of_classes else null

    def resident(self, device: torch.device) -> "Conditioning":
        """The same, with the null condition and, where they are not too large for that, the embeddings on `device`."""
        other = copy.copy(self)
        other.embeddings = None if self.embeddings is None else resident(self.embeddings, device)
        other.null = None if self.null is None else self.null.to(device)
        return other

    def rows(self, split: str, samples: Tensor) -> Tensor | None:
        """Of samples (n,) the rows of `embeddings`, or the class ids, (n,) int64; None without conditions."""
        return self.index[split][samples] if self.info.takes_prompts else None

    def of_samples(self, split: str, samples: Tensor) -> Tensor | None:
        """The conditions of samples (n,): embeddings (n, L, D) float32, class ids (n,) int64, or None."""
        rows = self.rows(split, samples)
        return rows if rows is None or self.embeddings is None else self.embeddings[rows].float()

    def null_of(self, n: int) -> Tensor | None:
        """The null condition of n samples, in the form of `of_samples`."""
        return None if self.null is None else self.null.expand(n, *self.null.shape)

    @classmethod
    def read(cls, folder: Path | str) -> "Conditioning":
        """Read data/conditioning.

        Raises:
            DarkroomError: a file is missing or torn.
        """
        folder = Path(folder)
        info = ConditioningInfo(**read_json(folder / CONFIG))
        embeddings = null = None
        if info.of_text:
            tensors = load_tensors(folder / "embeddings.safetensors")
            embeddings, null = tensors["embeddings"], tensors["null"].float()
        return cls(info, load_tensors(folder / "index.safetensors"), embeddings, null)

    def write(self, folder: Path, captions: list[str]) -> None:
        """Write to `folder` (which the caller makes appear whole); captions: the texts of the embeddings' rows."""
        folder.mkdir(parents=True)
        if self.embeddings is not None and self.null is not None:
            tensors = {"embeddings": self.embeddings.half(), "null": self.null.half()}
            save_tensors(folder / "embeddings.safetensors", tensors)
        save_tensors(folder / "index.safetensors", self.index)
        write_json(folder / CAPTIONS, captions)
        write_json(folder / CONFIG, asdict(self.info))


def read_asked(folder: Path | str, split: str, n: int) -> list[str]:
    """What the first n samples of a split are asked to show: captions, names of classes, or nothing ("").

    Raises:
        DarkroomError: a file is missing or torn.
    """
    folder = Path(folder)
    info = ConditioningInfo(**read_json(folder / CONFIG))
    if not info.takes_prompts:
        return [""] * n
    texts: list[str] = info.classes if info.of_classes else read_json(folder / CAPTIONS)
    return [texts[row] for row in load_tensors(folder / "index.safetensors")[split][:n].tolist()]


def distinct(captions: dict[str, list[str]]) -> tuple[list[str], dict[str, Tensor]]:
    """The distinct captions of all splits, sorted, and for each split the index of each sample's caption.

    Raises:
        DarkroomError: there is no caption at all.
    """
    texts = sorted({text for split in captions.values() for text in split})
    if not texts:
        raise DarkroomError("setup_text_encoder: the data has no captions; use mode class or none, or captioned data")
    row = {text: i for i, text in enumerate(texts)}
    return texts, {name: torch.tensor([row[text] for text in split]) for name, split in captions.items()}
