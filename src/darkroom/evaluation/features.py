"""The judge: artifacts/evaluator, a network trained on real pictures alone, as features and verdicts."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from darkroom.core.artifact import CONFIG, read_json
from darkroom.core.errors import DarkroomError
from darkroom.core.tensors import batches, to_float
from darkroom.core.weights import WEIGHTS, read_network
from darkroom.data.prepared import Head
from darkroom.data.tokenizer import CLIPTokenizer
from darkroom.nn.evaluator import Classifier, ClassifierConfig, SelfSupervised
from darkroom.nn.image import ConvTowerConfig
from darkroom.nn.text import CLIPTextConfig
from darkroom.nn.towers import Towers

BATCH = 250
CANDIDATES = 100  # captions among which a picture's own is to be found

JudgeNetwork = Classifier | Towers | SelfSupervised
BUILD: dict[str, Callable[[dict[str, Any]], JudgeNetwork]] = {
    "classifier": lambda c: Classifier(ClassifierConfig(**c)),
    "towers": lambda c: Towers(ConvTowerConfig(**c["image"]), CLIPTextConfig(**c["text"])),
    "selfsupervised": lambda c: SelfSupervised(ConvTowerConfig(**c)),
}


@dataclass(frozen=True)
class Judge:
    """kind: "classifier" (labels), "towers" (captions) or "selfsupervised" (neither). Works in fp32."""

    kind: str
    heads: tuple[Head, ...]
    network: JudgeNetwork
    tokenizer: CLIPTokenizer | None
    device: torch.device

    @classmethod
    def read(cls, folder: Path, device: torch.device) -> "Judge":
        """Read artifacts/evaluator.

        Raises:
            DarkroomError: it is missing, or of an unknown kind.
        """
        config = read_json(folder / CONFIG)
        kind = config["kind"]
        if kind not in BUILD:
            raise DarkroomError(f"{folder / CONFIG}: kind {kind!r} is unknown; rerun train_evaluator")
        network = read_network(folder, WEIGHTS, BUILD[kind], device)
        tokenizer = CLIPTokenizer.read(folder / "tokenizer") if kind == "towers" else None
        heads = tuple(Head(head["name"], tuple(head["classes"])) for head in config["heads"])
        return cls(kind, heads, network, tokenizer, device)

    @property
    def class_labelled(self) -> bool:
        """One class a picture (True), or structured labels or none (False)."""
        return [head.name for head in self.heads] == ["label"]

    @torch.no_grad()
    def features(self, images: Tensor) -> Tensor:
        """Pictures uint8 (N, C, H, W) -> features (N, F)."""
        return self._over(images, self.network.features)

    @torch.no_grad()
    def classes(self, images: Tensor) -> Tensor:
        """Pictures uint8 (N, C, H, W) -> for each head the class seen (N, H); a classifier's."""
        network = self.network
        assert isinstance(network, Classifier)
        return self._over(images, lambda x: torch.stack([logits.argmax(dim=1) for logits in network(x)], dim=1))

    @torch.no_grad()
    def finds_caption(self, images: Tensor, captions: Sequence[str]) -> Tensor:
        """Whether each of N pictures likes its own caption best in its group of `CANDIDATES`, (N,) bool; towers'.

        Equal captions in a group are the same answer. The last group may be smaller.
        """
        network, tokenizer = self.network, self.tokenizer
        assert isinstance(network, Towers)
        assert tokenizer is not None
        right = []
        for rows in batches(len(images), CANDIDATES):
            texts = [captions[i] for i in rows.tolist()]
            pictures = network.embed_images(to_float(images[rows]).to(self.device))
            best = network.compare(pictures, network.embed_texts(tokenizer(texts).to(self.device))).argmax(dim=1)
            right += [texts[int(j)] == text for j, text in zip(best, texts, strict=True)]
        return torch.tensor(right)

    def _over(self, images: Tensor, see: Callable[[Tensor], Tensor]) -> Tensor:
        parts = [see(to_float(images[rows]).to(self.device)).cpu() for rows in batches(len(images), BATCH)]
        return torch.cat(parts)
