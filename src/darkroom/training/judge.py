"""Building and training the judge that suits the data: labels, captions, or neither."""

from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, field
from typing import Any

from torch import nn

from darkroom.data.conditioning import distinct
from darkroom.data.prepared import Info, PreparedSplit
from darkroom.data.tokenizer import CLIPTokenizer
from darkroom.nn.evaluator import Classifier, ClassifierConfig, SelfSupervised
from darkroom.nn.image import ConvTowerConfig
from darkroom.nn.text import CLIPTextConfig
from darkroom.nn.towers import Towers
from darkroom.training.classifier import ClassifierTask, RotationTask, label_accuracy, rotation_accuracy
from darkroom.training.contrastive import ContrastiveTask, retrieval
from darkroom.training.loop import Loss
from darkroom.training.setting import Setting


@dataclass(frozen=True)
class JudgeShape:
    """Sizes of the networks; text and vocabulary are for captioned data without labels.

    text: keys of CLIPTextConfig that are free to choose. max_length: tokens of a caption.
    """

    image: ConvTowerConfig
    text: dict[str, Any]
    vocab_size: int
    max_length: int


@dataclass(frozen=True)
class Judge:
    """A network with the loss it is trained by and the accuracy it is known by.

    config: `kind` and `network`, which rebuild it. accuracy: (trained network, split) -> {what: share right}.
    """

    network: nn.Module
    config: dict[str, Any]
    loss: Loss
    accuracy: Callable[[Any, PreparedSplit], Mapping[str, float]]
    tokenizer: CLIPTokenizer | None = field(default=None)


def make_judge(
    info: Info,
    train: PreparedSplit,
    shape: JudgeShape,
    setting: Setting,
) -> Judge:
    """The judge for a data set: a classifier where there are labels, else towers where there are captions, else one
    that tells which way up a picture is. Initial weights come from PyTorch's global generator."""
    if info.heads:
        return _classifier(info, train, shape, setting)
    if info.captions:
        return _towers(train, shape, setting)
    network = SelfSupervised(shape.image).to(setting.device)
    task = RotationTask(network, train.images, len(train), setting)

    def accuracy(trained: SelfSupervised, split: PreparedSplit) -> Mapping[str, float]:
        return {"rotation": rotation_accuracy(trained, split.images, len(split), setting.batch_size, setting.device)}

    return Judge(network, {"kind": "selfsupervised", "network": asdict(shape.image)}, task.loss, accuracy)


def _classifier(
    info: Info,
    train: PreparedSplit,
    shape: JudgeShape,
    setting: Setting,
) -> Judge:
    config = ClassifierConfig(**asdict(shape.image), classes=tuple(len(head.classes) for head in info.heads))
    network = Classifier(config).to(setting.device)
    task = ClassifierTask(network, train.images, train.labels, setting)
    names = [head.name for head in info.heads]

    def accuracy(trained: Classifier, split: PreparedSplit) -> Mapping[str, float]:
        return label_accuracy(trained, split.images, split.labels, names, setting.batch_size, setting.device)

    return Judge(network, {"kind": "classifier", "network": asdict(config)}, task.loss, accuracy)


def _towers(train: PreparedSplit, shape: JudgeShape, setting: Setting) -> Judge:
    tokenizer = CLIPTokenizer.train(train.captions, shape.vocab_size, shape.max_length)
    text = CLIPTextConfig(
        **shape.text,
        vocab_size=len(tokenizer.vocab),
        max_position_embeddings=shape.max_length,
        bos_token_id=tokenizer.bos_token_id,
        eos_token_id=tokenizer.eos_token_id,
        pad_token_id=tokenizer.eos_token_id,
    )
    network = Towers(shape.image, text).to(setting.device)

    def task(split: PreparedSplit) -> ContrastiveTask:
        texts, rows = distinct({"all": split.captions})
        return ContrastiveTask(
            network,
            split.images,
            tokenizer(texts),
            rows["all"],
            setting,
        )

    def accuracy(trained: Towers, split: PreparedSplit) -> Mapping[str, float]:
        return {f"retrieval among {setting.batch_size}": retrieval(task(split), trained)["held_out/accuracy"]}

    config = {"kind": "towers", "network": {"image": asdict(shape.image), "text": asdict(text)}}
    return Judge(network, config, task(train).loss, accuracy, tokenizer)
