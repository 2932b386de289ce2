"""A judge: one of the two networks in artifacts/evaluator, trained on real pictures alone."""

from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, cast

import torch
from torch import Tensor, nn

from darkroom.config.networks import ClassifierSpec, NetworkSpec, SelfSupervisedSpec, TowersSpec
from darkroom.core.artifact import CONFIG, REPRO, read_json
from darkroom.core.errors import DarkroomError
from darkroom.core.rng import generator
from darkroom.core.tensors import batches, to_float
from darkroom.core.weights import WEIGHTS, load_weights
from darkroom.data.caption_table import distinct
from darkroom.data.head import Head
from darkroom.data.tokenizer import CLIPTokenizer
from darkroom.evaluation.alignment import (
    Asked,
    Check,
    Scores,
    among_scores,
    attribute_checks,
    attribute_scores,
    beside,
    class_scores,
    share_scores,
)
from darkroom.nn.judge.classifier import (
    JUDGES,
    NEAREST,
    ROTATIONS,
    Classifier,
    SelfSupervised,
    commonest,
    many,
    rotated,
)
from darkroom.nn.judge.towers import Towers

BATCH = 250
CANDIDATES = 100  # captions among which a picture's own is to be found

JudgeNetwork = Classifier | Towers | SelfSupervised
NETWORKS: dict[str, tuple[type[NetworkSpec[Any, Any]], Callable[[Any, Any], JudgeNetwork]]] = {
    "classifier": (ClassifierSpec, Classifier),
    "towers": (TowersSpec, Towers),
    "selfsupervised": (SelfSupervisedSpec, SelfSupervised),
}


@dataclass(frozen=True)
class Judge:
    """One judge. Works in fp32.

    half: of the data, what it was trained on; 0 or 1, see data.halves.
    kind: "classifier" (labels), "towers" (captions) or "selfsupervised" (neither).
    """

    name: str
    half: int
    kind: str
    heads: tuple[Head, ...]
    network: JudgeNetwork
    tokenizer: CLIPTokenizer | None
    device: torch.device

    @property
    def class_labelled(self) -> bool:
        """One class a picture (True), or structured labels or none (False)."""
        return [head.name for head in self.heads] == ["label"]

    @property
    def _many(self) -> dict[int, str]:
        """Of each attribute with many classes its place, and the name of the figure of being among the nearest."""
        return {i: f"{self.heads[i].name}_among_{NEAREST}" for i in many([len(head.classes) for head in self.heads])}

    @torch.no_grad()
    def features(self, images: Tensor) -> Tensor:
        """Pictures uint8 (N, C, H, W) -> features (N, F)."""
        return self._over(images, self.network.features)

    @torch.no_grad()
    def read(self, images: Tensor) -> Tensor:
        """Pictures uint8 (N, C, H, W) -> what `score` compares with what was asked.

        Classes (N, H) of a classifier; where an attribute has many, (N, H, K), those and the nearest ones; embeddings
        (N, D) of towers; of the self-supervised, the share of the four rotations of each picture that is recognised
        (N, 1).
        """
        network = self.network
        if isinstance(network, Classifier):
            return self._over(images, network.nearest) if self._many else self._over(images, network.read)
        if isinstance(network, Towers):
            return self._over(images, network.embed_images)

        def rotations_recognised(x: Tensor) -> Tensor:
            turned, turns = rotated(x)
            right: Tensor = network(turned).argmax(dim=1) == turns
            return right.view(ROTATIONS, -1).double().mean(dim=0)[:, None]

        return self._over(images, rotations_recognised)

    def score(self, reading: Tensor, asked: Asked) -> Scores:
        """A reading of N pictures compared with what was asked, in the figures that the data allows."""
        if self.kind == "towers":
            return share_scores("caption_retrieval", self._finds_caption(reading, asked.captions))
        if self.kind == "selfsupervised":
            return share_scores("rotation_accuracy", reading[:, 0])
        seen = _seen(reading)
        if self.class_labelled:
            found = class_scores(seen[:, 0], asked.labels[:, 0], self.heads[0].classes)
        else:
            found = attribute_scores(seen, asked, [head.name for head in self.heads])
        return beside(found, among_scores(reading, asked, self._many)) if self._many else found

    def checks(self, reading: Tensor, asked: Asked) -> list[Check]:
        """What else must clear chance on real pictures, besides the figures of `score`: each attribute."""
        if self.kind != "classifier" or self.class_labelled:
            return []
        return attribute_checks(_seen(reading), asked.labels, [head.name for head in self.heads])

    def blind(self, asked: Asked) -> dict[str, float]:
        """The figures of the best constant answer.

        Of attributes the best of three answers: the commonest class of each, the same where absence counts as a class,
        and the commonest picture as a whole; of the nearest, the commonest classes.
        """
        if self.kind == "towers":
            return {"caption_retrieval": max(Counter(asked.captions).values()) / len(asked)}
        if self.kind == "selfsupervised":
            return {"rotation_accuracy": 1 / ROTATIONS}
        columns = zip(asked.labels.T, asked.mentioned.T, strict=True)
        counted = [torch.where(mentioned, labels, -1) for labels, mentioned in columns]
        most = [int(labels[labels >= 0].mode().values) if (labels >= 0).any() else -1 for labels in counted]
        ((combination, _),) = Counter(map(tuple, asked.labels.tolist())).most_common(1)
        answers = [torch.tensor(most), asked.labels.mode(dim=0).values, torch.tensor(combination)]
        if self._many:
            nearest = torch.stack([commonest(labels) for labels in counted])
            answers = [torch.cat([answer[:, None], nearest], dim=1) for answer in answers]
        found: dict[str, float] = {}
        for answer in answers:
            reading = answer[None].expand(len(asked), *answer.shape)
            for name, value in self.score(reading, asked).values().items():
                found[name] = max(found.get(name, 0.0), value)
        return found

    @torch.no_grad()
    def _finds_caption(self, pictures: Tensor, captions: list[str]) -> Tensor:
        """Whether each of N embedded pictures is nearest to its own caption in its group of `CANDIDATES`: (N,) bool.

        Groups are random, for neighbours in a sorted folder have similar captions. Equal captions in a group are the
        same answer. The last group may be smaller.
        """
        network, tokenizer = self.network, self.tokenizer
        assert isinstance(network, Towers)
        assert tokenizer is not None
        texts, rows_of = distinct({"all": captions})
        ids = tokenizer(texts.to_pylist())
        row = rows_of["all"]
        embedded = torch.cat(
            [network.embed_texts(ids[rows].to(self.device)).cpu() for rows in batches(len(texts), BATCH)]
        )
        order = torch.randperm(len(pictures), generator=generator(0, "retrieval groups"))
        right = torch.empty(len(pictures), dtype=torch.bool)
        for chunk in batches(len(order), CANDIDATES):
            group = order[chunk]
            best = (pictures[group] @ embedded[row[group]].T).argmax(dim=1)
            right[group] = row[group][best] == row[group]
        return right

    def _over(self, images: Tensor, run: Callable[[Tensor], Tensor]) -> Tensor:
        return torch.cat([run(to_float(images[rows]).to(self.device)).cpu() for rows in batches(len(images), BATCH)])


def _seen(reading: Tensor) -> Tensor:
    """The one class of each attribute (N, H) in a classifier's reading."""
    return reading if reading.ndim == 2 else reading[:, :, 0]


def read_judges(folder: Path, device: torch.device) -> tuple[Judge, ...]:
    """The judges of artifacts/evaluator.

    Raises:
        DarkroomError: they are missing, or of an unknown kind.
    """
    config = read_json(folder / CONFIG)
    kind = config["kind"]
    if kind not in NETWORKS:
        raise DarkroomError(f"{folder / CONFIG}: kind {kind!r} is unknown; rerun train_evaluator")
    spec_class, network = NETWORKS[kind]
    spec = spec_class.read(config, str(folder / CONFIG), REPRO)
    networks = nn.ModuleDict({name: network(spec.network, spec.sizes) for name in JUDGES})
    load_weights(networks, folder / WEIGHTS, device)
    tokenizer = CLIPTokenizer.read(folder / "tokenizer") if kind == "towers" else None
    heads = tuple(Head(head["name"], tuple(head["classes"])) for head in config["heads"])
    return tuple(
        Judge(name, half, kind, heads, cast(JudgeNetwork, networks[name]), tokenizer, device)
        for half, name in enumerate(JUDGES)
    )
