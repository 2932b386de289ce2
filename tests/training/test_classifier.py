"""Training the judges that read labels or tell which way up a picture is."""

from collections.abc import Callable
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from darkroom.config.training import Optimization
from darkroom.nn.judge.classifier import Classifier, rotated
from darkroom.training.classifier import (
    MAX_SHIFT,
    LabelLoss,
    RotationLoss,
    augmented,
    label_accuracy,
    label_losses,
    rotation_accuracy,
)
from darkroom.training.engine.context import TrainingContext
from darkroom.training.engine.ema import EMA
from darkroom.training.engine.loop import Loop, Phase
from tests.support.networks import built, classifier, selfsupervised

CPU, ALL = torch.device("cpu"), slice(0, 8)
Make = Callable[..., Optimization]


def test_labels_that_are_absent_teach_nothing() -> None:
    logits = [torch.randn(3, 4), torch.randn(3, 2)]
    labels = torch.tensor([[1, 0], [2, -1], [-1, -1]])
    losses = label_losses(logits, labels)
    first = F.cross_entropy(logits[0][:1], labels[:1, 0]) + F.cross_entropy(logits[1][:1], labels[:1, 1])
    torch.testing.assert_close(losses, torch.stack([first, F.cross_entropy(logits[0][1:2], labels[1:2, 0]), first * 0]))


def test_augmentation_is_a_function_of_seed_step_and_row() -> None:
    """Catches a process that draws other numbers for its rows than one that has the whole batch."""
    x, every = torch.rand(20, 3, 12, 12), slice(0, 20)
    whole = augmented(x, every, 20, 0, 1)
    assert torch.equal(whole, augmented(x, every, 20, 0, 1))
    assert not torch.equal(whole, augmented(x, every, 20, 0, 2))
    assert not torch.equal(whole, augmented(x, every, 20, 1, 1))
    for rows in (slice(0, 7), slice(7, 18), slice(17, 20)):
        assert torch.equal(augmented(x[rows], rows, 20, 0, 1), whole[rows])


def test_augmentation_shifts_by_a_few_pixels_and_adds_a_little_noise() -> None:
    x = torch.zeros(64, 1, 16, 16)
    x[:, 0, 8, 8] = 100.0
    out = augmented(x, slice(0, 64), 64, 0, 0)
    places = [divmod(int(i), 16) for i in out.flatten(1).argmax(dim=1)]
    assert {max(abs(y - 8), abs(x - 8)) for y, x in places} == set(range(MAX_SHIFT + 1))
    rest = out[out < 50]
    assert 0 < float(rest.abs().mean()) < 0.1


def two_headed(absent: bool = False) -> tuple[Classifier, Tensor, Tensor]:
    """Pictures bright or dark, and of one of three colours, which dark ones have not."""
    torch.manual_seed(0)
    labels = torch.tensor([[1, i % 3] if i % 2 else [0, -1] for i in range(24)])
    pictures = torch.zeros(24, 3, 8, 8, dtype=torch.uint8)
    for i, (bright, colour) in enumerate(labels.tolist()):
        pictures[i, colour] = 255 * bright
    return built(classifier((2, 3), absent=(False, absent))), pictures, labels


def test_a_classifier_learns_to_read(context: TrainingContext, optimizer: Make) -> None:
    network, pictures, labels = two_headed()
    task = LabelLoss(network, lambda i: pictures[i], labels, context)
    phase = Phase("", network, optimizer(learning_rate=3e-3), task.loss)
    Loop([phase], EMA(network, 100), steps=40, batch_size=8, accumulation=1, hooks=[], description="judge").run()
    found = label_accuracy(network, task.images, labels, ["bright", "colour"], 7, CPU)
    assert found == {"bright": 1.0, "colour": 1.0}


def test_a_classifier_learns_what_is_not_there(context: TrainingContext, optimizer: Make) -> None:
    """An attribute that a picture lacks was read as some class or other, so a thing too many was never seen."""
    network, pictures, labels = two_headed(absent=True)
    task = LabelLoss(network, lambda i: pictures[i], labels, context)
    phase = Phase("", network, optimizer(learning_rate=3e-3), task.loss)
    Loop([phase], EMA(network, 100), steps=40, batch_size=8, accumulation=1, hooks=[], description="judge").run()
    assert torch.equal(network.read(pictures.float() / 127.5 - 1), labels)
    assert label_accuracy(network, task.images, labels, ["bright", "colour"], 7, CPU) == {"bright": 1.0, "colour": 1.0}


def test_of_many_classes_the_nearest_count_too() -> None:
    """Fails if the nearest are not those of the ten largest logits, or the first of them not what is read."""
    torch.manual_seed(0)
    network = built(classifier((2, 120)))
    pictures = torch.randint(0, 256, (40, 3, 8, 8), dtype=torch.uint8)
    with torch.no_grad():
        x = pictures.float() / 127.5 - 1
        logits = network(x)[1]
        ranked, read, nearest = logits.argsort(dim=1, descending=True), network.read(x), network.nearest(x)
    assert nearest.shape == (40, 2, 11)
    assert torch.equal(nearest[:, :, 0], read)
    assert set(nearest[:, 0].unique().tolist()) <= {0, 1}
    labels = torch.stack([read[:, 0], ranked[torch.arange(40), torch.arange(40) % 20]], dim=1)
    found = label_accuracy(network, lambda i: pictures[i], labels, ["style", "idea"], 7, CPU)
    assert found == pytest.approx({"style": 1.0, "idea": 2 / 40, "idea among 10": 0.5})


def test_accuracy_counts_only_what_is_there_to_read() -> None:
    network, pictures, labels = two_headed()
    with torch.no_grad():
        heads: list[Any] = list(network.heads)
        for head, answer in zip(heads, (1, 0), strict=True):
            head.weight.zero_()
            head.bias.copy_(torch.eye(head.out_features)[answer])
    found = label_accuracy(network, lambda i: pictures[i], labels, ["bright", "colour"], 5, CPU)
    assert found == pytest.approx({"bright": 0.5, "colour": 4 / 12})


def test_a_loss_is_a_function_of_its_step_and_rows(context: TrainingContext) -> None:
    network, pictures, labels = two_headed()
    task = LabelLoss(network, lambda i: pictures[i], labels, context)
    whole = float(task.loss(1, ALL)["loss"].detach())
    parts = [float(task.loss(1, rows)["loss"].detach()) for rows in (slice(0, 6), slice(6, 8))]
    assert 0.75 * parts[0] + 0.25 * parts[1] == pytest.approx(whole, rel=1e-5)
    assert float(task.loss(1, ALL)["loss"].detach()) == whole


def test_without_labels_a_network_learns_which_way_up(context: TrainingContext, optimizer: Make) -> None:
    torch.manual_seed(0)
    network = built(selfsupervised(channels=1))
    pictures = torch.zeros(16, 1, 8, 8, dtype=torch.uint8)
    pictures[:, :, :3] = 255  # a bright sky
    task = RotationLoss(network, lambda i: pictures[i], 16, context)
    phase = Phase("", network, optimizer(learning_rate=3e-3), task.loss)
    Loop([phase], EMA(network, 100), steps=25, batch_size=8, accumulation=1, hooks=[], description="judge").run()
    assert rotation_accuracy(network, task.images, 16, 5, CPU) == 1.0


def test_accuracy_of_turns_counts_all_four() -> None:
    network = built(selfsupervised(channels=1))
    with torch.no_grad():
        network.head.weight.zero_()
        network.head.bias.copy_(torch.tensor([0.0, 1.0, 0.0, 0.0]))
    pictures = torch.zeros(3, 1, 8, 8, dtype=torch.uint8)
    assert rotated(pictures)[1].unique().tolist() == [0, 1, 2, 3]
    assert rotation_accuracy(network, lambda i: pictures[i], 3, 2, CPU) == 0.25
