"""What takes no training, beside what a training reached. Fault caught: a text encoder that ended at a loss of 4.43,
above ln 64, was handed on without a word; so with every other network that learned nothing."""

import math
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor

from darkroom.core.errors import DarkroomError
from darkroom.core.rng import generator
from darkroom.core.tensors import to_float
from darkroom.data.rows import Rows
from darkroom.runner.resuming import fingerprint
from darkroom.training.autoencoder import mean_colour_psnr, validate
from darkroom.training.classifier import labels_by_chance
from darkroom.training.contrastive import contrastive_loss, retrieval_by_chance
from darkroom.training.engine.chance import Reached, against_chance
from tests.support.diffusion import make_objective, make_vp

WORSE = Reached("held_out/loss", 4.43, math.log(64), "luck")
BETTER = Reached("held_out/psnr", 20.0, 12.0, "mean colours", higher_is_better=True)


def test_worse_than_chance_is_said_or_stops() -> None:
    said = against_chance("setup_text_encoder", "warn", [BETTER, WORSE])
    assert said["held_out/loss_by_chance"] == math.log(64)
    assert said["worse_than_chance"] == "held_out/loss = 4.43 is no better than 4.159, luck"
    with pytest.raises(DarkroomError, match=r"4\.43 is no better.*setup_text_encoder\.on_worse_than_chance: warn"):
        against_chance("setup_text_encoder", "stop", [BETTER, WORSE])
    assert against_chance("train_vae", "stop", [BETTER]) == {"held_out/psnr_by_chance": 12.0}


@pytest.mark.parametrize("higher", [False, True])
@pytest.mark.parametrize("value", [math.nan, 1.0])
def test_what_is_no_number_or_chance_itself_is_no_better(value: float, higher: bool) -> None:
    assert not Reached("figure", value, 1.0, "luck", higher).is_better


def test_what_to_do_then_does_not_train_again() -> None:
    """Warn in the place of stop goes on from the checkpoint of the training that was stopped."""

    def of(**changes: Any) -> str:
        section = {"steps": 10, "on_worse_than_chance": "stop", **changes}
        return fingerprint("train_vae", "python stages/train_vae.py", {"train_vae": section}, {}, {})

    assert of(on_worse_than_chance="warn") == of()
    assert of(steps=11) != of()


def test_captions_by_chance_are_those_of_equal_logits() -> None:
    """In batches of 4, 4 and 1; equal captions are equally right."""
    rows = torch.tensor([0, 1, 2, 0, 3, 3, 3, 4, 5])
    known = retrieval_by_chance(rows, 4)
    losses, right = [], []
    for part in rows.split(4):
        same = part[:, None] == part[None, :]
        losses.append(contrastive_loss(torch.zeros(len(part), len(part)), same) * len(part))
        right.append(same.float().mean(dim=1).sum())
    assert known["held_out/loss"] == pytest.approx(float(sum(losses)) / len(rows))
    assert known["held_out/accuracy"] == pytest.approx(float(sum(right)) / len(rows))


def test_labels_by_chance_are_the_commonest_training_ones() -> None:
    train = torch.tensor([[0, 2], [0, -1], [1, 2], [0, 1]])
    test = torch.tensor([[0, 2], [1, -1], [0, 0], [0, 2]])
    assert labels_by_chance(train, test, ["colour", "shape"]) == pytest.approx({"colour": 3 / 4, "shape": 2 / 3})


def test_the_nearest_by_chance_are_the_ten_commonest_training_ones() -> None:
    """Fails if the bar for ten answers is that of one."""
    train = torch.tensor([[i // 3] for i in range(60)])
    test = torch.tensor([[5], [9], [10], [11]])
    found = labels_by_chance(train, test, ["idea"], [120])
    assert found == {"idea": 0.0, "idea among 10": 0.5}


def test_an_autoencoder_by_chance_keeps_the_mean_colour() -> None:
    pictures = torch.randint(0, 256, (7, 3, 8, 8), dtype=torch.uint8, generator=generator(0, "images"))

    class MeanColour:
        def encode(self, x: Tensor) -> Any:
            return type("Moments", (), {"mean": x})

        def decode(self, z: Tensor) -> Tensor:
            return z.mean(dim=(2, 3), keepdim=True).expand_as(z)

    measured: Any = MeanColour()
    known = mean_colour_psnr(lambda rows: pictures[rows], 7, 3)
    assert known == pytest.approx(
        validate(measured, lambda rows: pictures[rows], 7, 3, torch.device("cpu"))["held_out/psnr"]
    )
    assert known < 10 * math.log10(4 / float(to_float(pictures).var())) + 1


@pytest.mark.parametrize("prediction", ["epsilon", "v_prediction", "sample"])
@pytest.mark.parametrize("loss", ["l1", "l2"])
def test_a_denoiser_by_chance_answers_the_same_to_everything(
    prediction: Any, loss: Any, world: Callable[[str], Any]
) -> None:
    """No constant among those tried beats it but where the median is meant, by a little, and zero never does."""
    task = world("text").task()
    for latents in (task.data.train, task.data.held_out):
        latents.mean = Rows([latents.mean.in_memory() + 2])  # not centred, as latents are not
    task.objective = make_objective(make_vp("cosine", 0.0001, 0.02, 1000), prediction, "uniform", loss, "mean")

    class Constant(torch.nn.Module):
        def __init__(self, value: float) -> None:
            super().__init__()
            self.value = value

        def forward(self, x: Tensor, t: Tensor, context: Any, class_ids: Any) -> Tensor:
            return torch.full_like(x, self.value)

        def prepare(self, *conditions: Any) -> tuple[None, None]:
            return None, None

    constants = [task.validate(Constant(value / 10))["held_out/loss"] for value in range(-20, 21)]
    assert task.by_chance() <= task.validate(Constant(0.0))["held_out/loss"] + 1e-6
    assert task.by_chance() == pytest.approx(min(constants), rel=0.02)
    if prediction == "epsilon" and loss == "l2":
        assert task.by_chance() == pytest.approx(1, abs=0.05)
