"""Judges that have hardly learned are not believed, those that have are: both really trained.

A judge of 20 steps read second things' colours and shapes 0 % right, and how many things there are .35 where always
saying "one" gives .65; but its accuracy over all attributes, .353, lay above chance, .308, by its interval, and so
everything it said was printed.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import pytest
import torch
from torch import Tensor

from darkroom.core.rng import seeded
from darkroom.data.head import Head
from darkroom.data.prepared import Info
from darkroom.evaluation.alignment import Check, attribute_checks
from darkroom.evaluation.judge import Judge
from darkroom.evaluation.judging import Judges, Validity
from darkroom.nn.judge.classifier import JUDGES
from darkroom.nn.judge.conv_tower import ConvTowerConfig
from darkroom.training.engine.context import TrainingContext
from darkroom.training.judge import JudgeShape, make_judges

CPU, SIZE = torch.device("cpu"), 16
HEADS = (Head("color", ("red", "green", "blue")), Head("side", ("left", "right")), Head("dot", ("dark", "light")))
TEXT = {"hidden_size": 32, "num_hidden_layers": 1, "num_attention_heads": 2, "intermediate_size": 64}


@dataclass
class Split:
    """What a PreparedSplit gives, of pictures at hand."""

    name: str
    pictures: Tensor
    captions: list[str]
    labels: Tensor
    mentioned: Tensor
    info: Info

    def __len__(self) -> int:
        return len(self.captions)

    def images(self, indices: Tensor | None = None) -> Tensor:
        return self.pictures if indices is None else self.pictures[indices]


def split(name: str, n: int, seed: int, heads: tuple[Head, ...] = HEADS, riddle: bool = False) -> Split:
    """A square of one of three colours on one side and, in a third of the pictures, a dot in the middle.

    riddle: the label of the dot says nothing of how it looks.
    """
    g = torch.Generator().manual_seed(seed)
    labels = torch.stack([torch.randint(0, k, (n,), generator=g) for k in (3, 2, 2)], dim=1)
    labels[torch.randint(0, 3, (n,), generator=g) > 0, 2] = -1
    looks = torch.randint(0, 2, (n,), generator=g) if riddle else labels[:, 2]
    pictures = torch.randint(100, 140, (n, 3, SIZE, SIZE), generator=g, dtype=torch.uint8)
    for i, (color, side, dot) in enumerate(labels.tolist()):
        x = 1 + 9 * side
        pictures[i, :, 5:11, x : x + 5] = 10
        pictures[i, color, 5:11, x : x + 5] = 240
        if dot >= 0:
            pictures[i, :, 7:10, 7:9] = int(255 * looks[i])
    words = [
        " ".join(head.classes[label] for head, label in zip(HEADS, row, strict=True) if label >= 0)
        for row in labels.tolist()
    ]
    kept = labels[:, : len(heads)]
    return Split(name, pictures, words, kept, kept >= 0, Info("toy", SIZE, 3, {}, (), (), {}, heads, True))


def splits(**how: Any) -> dict[str, Split]:
    return {"train": split("train", 600, 0, **how), "test": split("test", 400, 1, **how)}


def trained(of: dict[str, Split], steps: int, rate: float = 3e-3) -> list[Judge]:
    shape, context = JudgeShape(ConvTowerConfig(3, 16, 1), TEXT, 530, 8), TrainingContext(32, 0, "fp32", CPU)
    with seeded(0, "evaluator"):
        made = make_judges(of["train"].info, of, shape, context)  # type: ignore[arg-type]
    for judge in made.each.values():
        optimizer = torch.optim.Adam(judge.network.parameters(), lr=rate)
        for step in range(steps):
            for group in optimizer.param_groups:
                group["lr"] = rate * min(1.0, (step + 1) / 50)  # warms up as the stage does
            optimizer.zero_grad()
            judge.loss(step, slice(0, 32))["loss"].backward()
            optimizer.step()
    heads = of["train"].info.heads
    return [
        Judge(
            name,
            i,
            made.each[name].config["kind"],
            heads,
            made.each[name].network.eval().requires_grad_(False),  # type: ignore[arg-type]
            made.each[name].tokenizer,
            CPU,
        )
        for i, name in enumerate(JUDGES)
    ]


def validity(judges: Sequence[Judge], of: dict[str, Split]) -> Validity:
    return Judges(judges, 0, 300).validity(of)  # type: ignore[arg-type]


@pytest.mark.parametrize("steps", [0, 5, 20])
def test_judges_of_a_few_steps_are_not_believed(steps: int) -> None:
    of = splits()
    found = validity(trained(of, steps, 1e-3), of)
    assert not found.valid
    for name in JUDGES:
        assert f"judge {name} does not clear chance on real test pictures that it has not seen" in found.reason
    assert "(chance 0." in found.reason
    assert "train_evaluator.steps" in found.reason


@pytest.fixture(scope="module")
def learned() -> list[Judge]:
    return trained(splits(), 150)


def test_judges_that_have_learned_are_believed(learned: list[Judge]) -> None:
    found = validity(learned, splits())
    assert found.valid, found.reason
    assert found.reason == ""


def test_one_attribute_that_cannot_be_read_is_enough() -> None:
    """All else was read well, and the figure over all attributes lay far above chance."""
    of = splits(riddle=True)
    found = validity(trained(of, 150), of)
    assert found.real["test"]["attribute_accuracy"].low > 0.8 > found.chance["attribute_accuracy"]
    assert not found.valid
    assert found.reason.startswith("judge a does not clear chance on real test pictures that it has not seen: dot 0.")
    assert "color" not in found.reason


def test_a_presence_that_is_told_does_not_excuse_a_class_that_is_not() -> None:
    labels = torch.tensor([[0], [1], [-1], [-1], [-1], [-1]] * 50)
    says_red_or_absent = torch.where(labels < 0, -1, 0)
    found = {
        check.name: (float(check.right.double().mean()), check.chance) for check in checks(says_red_or_absent, labels)
    }
    assert found == {"dot": (0.5, 0.5), "presence of dot": (1.0, pytest.approx(2 / 3))}
    always_absent = torch.full_like(labels, -1)
    found = {check.name: (float(check.right.double().mean()), check.chance) for check in checks(always_absent, labels)}
    assert found == {"dot": (0.0, 0.5), "presence of dot": (pytest.approx(2 / 3), pytest.approx(2 / 3))}


def checks(predicted: Tensor, labels: Tensor) -> list[Check]:
    return list(attribute_checks(predicted, labels, ["dot"]))


def test_what_is_the_same_in_all_pictures_checks_nothing() -> None:
    """A set of red things alone left no judge that could clear a chance of 1."""
    labels = torch.zeros(9, 1, dtype=torch.int64)
    assert checks(labels, labels) == []
    assert checks(labels, labels - 1) == []


def test_two_pictures_prove_no_judge(learned: list[Judge]) -> None:
    """The bootstrap of two right answers is the point 1, above any chance."""
    assert not validity(learned, {**splits(), "test": split("test", 4, 3)}).valid


@pytest.mark.parametrize(("steps", "believed"), [(0, False), (150, True)])
def test_towers_are_believed_only_where_they_have_learned(steps: int, believed: bool) -> None:
    """Judges of captioned pictures: a retrieval no better than a draw must not become a figure."""
    of = splits(heads=())
    found = validity(trained(of, steps), of)
    assert found.valid == believed
    assert ("caption_retrieval" in found.reason) != believed
