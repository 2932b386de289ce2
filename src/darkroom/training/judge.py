"""Building and training the two judges that suit the data: labels, captions, or neither."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import nn

from darkroom.config.networks import (
    ClassifierSizes,
    ClassifierSpec,
    ConvTowerConfig,
    NetworkSpec,
    PictureSizes,
    SelfSupervisedSpec,
    TowersConfig,
    TowersSizes,
    TowersSpec,
    TrainedTextConfig,
)
from darkroom.core.errors import DarkroomError
from darkroom.data.caption_table import distinct
from darkroom.data.halves import Chosen, halves
from darkroom.data.prepared import Info, PreparedSplit
from darkroom.data.tokenizer import CLIPTokenizer
from darkroom.nn.judge.classifier import JUDGES, Classifier, SelfSupervised
from darkroom.nn.judge.towers import Towers
from darkroom.training.classifier import (
    ROTATIONS_BY_CHANCE,
    LabelLoss,
    RotationLoss,
    label_accuracy,
    labels_by_chance,
    rotation_accuracy,
)
from darkroom.training.contrastive import ContrastiveLoss, retrieval, retrieval_by_chance
from darkroom.training.engine.batches import Loss
from darkroom.training.engine.context import TrainingContext


@dataclass(frozen=True)
class Judge:
    """A network with the loss it is trained by and the accuracy it is known by.

    kind, spec: what rebuilds it. accuracy: (trained network, pictures) -> {what: share right}.
    chance: pictures -> what accuracy is there for answers that do not look at them.
    """

    network: nn.Module
    kind: str
    spec: NetworkSpec[Any, Any]
    loss: Loss
    accuracy: Callable[[Any, Chosen], Mapping[str, float]]
    chance: Callable[[Chosen], Mapping[str, float]]
    tokenizer: CLIPTokenizer | None = field(default=None)

    def described(self) -> dict[str, Any]:
        """What its config.json says of the network."""
        return {"kind": self.kind, **self.spec.model_dump()}


@dataclass(frozen=True)
class Judges:
    """Two judges of one shape, by their names; each is trained on one half of every split and measured on the other.

    unseen: split -> judge -> its pictures that this judge is not trained on.
    """

    each: dict[str, Judge]
    unseen: dict[str, dict[str, Chosen]]

    @property
    def networks(self) -> nn.ModuleDict:
        """The networks by their judge's name."""
        return nn.ModuleDict({name: judge.network for name, judge in self.each.items()})

    def accuracy(self, trained: nn.ModuleDict, split: str) -> dict[str, Mapping[str, float]]:
        """{judge: {what: share right}} on the pictures of `split` that it has not seen; without a judge that saw all.

        trained: weights for `networks`, an average of them, say.
        """
        return {
            name: self.each[name].accuracy(trained[name], pictures)
            for name, pictures in self.unseen[split].items()
            if len(pictures)
        }

    def chance(self, split: str) -> dict[str, Mapping[str, float]]:
        """What `accuracy` gives for answers that do not look at the pictures."""
        return {
            name: self.each[name].chance(pictures) for name, pictures in self.unseen[split].items() if len(pictures)
        }


def make_judges(
    info: Info,
    splits: Mapping[str, PreparedSplit],
    image: ConvTowerConfig,
    text: TrainedTextConfig,
    context: TrainingContext,
) -> Judges:
    """The judges for a data set: classifiers where there are labels, else towers where there are captions, else
    networks that tell which way up a picture is. Initial weights come from PyTorch's global generator.

    Args:
        splits: every split of the data, train among them.
        image: of every judge. text: of those of captions.

    Raises:
        DarkroomError: all pictures lie in one half.
    """
    half = {name: halves(split) for name, split in splits.items()}
    make = _maker(info, splits, image, text, context)
    each = {}
    for i, name in enumerate(JUDGES):
        seen = Chosen([(split, (half[of] == i).nonzero().flatten()) for of, split in splits.items()])
        if not len(seen):
            n = sum(map(len, splits.values()))
            raise DarkroomError(f"data/prepared: all {n} pictures fall into one half by their hash; give more pictures")
        each[name] = make(seen)
    unseen = {
        of: {name: Chosen([(split, (half[of] != i).nonzero().flatten())]) for i, name in enumerate(JUDGES)}
        for of, split in splits.items()
    }
    return Judges(each, unseen)


def _maker(
    info: Info,
    splits: Mapping[str, PreparedSplit],
    image: ConvTowerConfig,
    text: TrainedTextConfig,
    context: TrainingContext,
) -> Callable[[Chosen], Judge]:
    """What makes a judge of its pictures."""
    if info.heads:
        lacking = torch.stack([(split.labels < 0).any(dim=0) for split in splits.values()]).any(dim=0).tolist()
        absent = [found and not info.class_labelled for found in lacking]
        classes = [len(head.classes) for head in info.heads]
        labelled = ClassifierSizes(in_channels=info.channels, classes=classes, absent=absent)
        spec, names = ClassifierSpec(network=image, sizes=labelled), [head.name for head in info.heads]
        return lambda seen: _classifier(spec, names, seen, context)
    if info.captions:
        tokenizer = CLIPTokenizer.train(splits["train"].captions, text.vocab_size, text.max_length)
        config = TowersConfig(image=image, text=text.learnt(len(tokenizer.vocab)))
        captioned = TowersSizes(in_channels=info.channels, tokens=tokenizer.sizes)
        towers = TowersSpec(network=config, sizes=captioned)
        return lambda seen: _towers(towers, tokenizer, seen, context)
    pictures = SelfSupervisedSpec(network=image, sizes=PictureSizes(in_channels=info.channels))
    return lambda seen: _selfsupervised(pictures, seen, context)


def _selfsupervised(spec: SelfSupervisedSpec, seen: Chosen, context: TrainingContext) -> Judge:
    network = SelfSupervised(spec.network, spec.sizes).to(context.device)
    task = RotationLoss(network, seen.images, len(seen), context)

    def accuracy(trained: SelfSupervised, of: Chosen) -> Mapping[str, float]:
        return {"rotation": rotation_accuracy(trained, of.images, len(of), context.batch_size, context.device)}

    def chance(of: Chosen) -> Mapping[str, float]:
        return {"rotation": ROTATIONS_BY_CHANCE}

    return Judge(network, "selfsupervised", spec, task.loss, accuracy, chance)


def _classifier(spec: ClassifierSpec, names: list[str], seen: Chosen, context: TrainingContext) -> Judge:
    network = Classifier(spec.network, spec.sizes).to(context.device)
    task = LabelLoss(network, seen.images, seen.labels, context)

    def accuracy(trained: Classifier, of: Chosen) -> Mapping[str, float]:
        return label_accuracy(trained, of.images, of.labels, names, context.batch_size, context.device)

    def chance(of: Chosen) -> Mapping[str, float]:
        return labels_by_chance(network.targets(seen.labels), network.targets(of.labels), names, spec.sizes.classes)

    return Judge(network, "classifier", spec, task.loss, accuracy, chance)


def _towers(spec: TowersSpec, tokenizer: CLIPTokenizer, seen: Chosen, context: TrainingContext) -> Judge:
    network = Towers(spec.network, spec.sizes).to(context.device)

    def task(of: Chosen) -> ContrastiveLoss:
        texts, rows = distinct({"all": of.captions})
        return ContrastiveLoss(network, of.images, tokenizer(texts.to_pylist()), rows["all"], context)

    def accuracy(trained: Towers, of: Chosen) -> Mapping[str, float]:
        return {f"retrieval among {context.batch_size}": retrieval(task(of), trained)["held_out/accuracy"]}

    def chance(of: Chosen) -> Mapping[str, float]:
        _, rows = distinct({"all": of.captions})
        by_chance = retrieval_by_chance(rows["all"], context.batch_size)["held_out/accuracy"]
        return {f"retrieval among {context.batch_size}": by_chance}

    return Judge(network, "towers", spec, task(seen).loss, accuracy, chance, tokenizer)
