"""Contrastive training, with captions that many pictures share."""

import math
from collections.abc import Callable
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from darkroom.config.text_encoder import HardNegativesConfig
from darkroom.config.training import Optimization
from darkroom.core.rng import batch_indices
from darkroom.training.contrastive import ContrastiveLoss, contrastive_loss, embed_captions, retrieval
from darkroom.training.engine.context import TrainingContext
from darkroom.training.engine.ema import EMA
from darkroom.training.engine.loop import Loop, Phase
from darkroom.training.hard_negatives import HardNegatives
from tests.support import networks
from tests.support.noting import noted


def same(captions: list[int]) -> Tensor:
    rows = torch.tensor(captions)
    return rows[:, None] == rows[None, :]


def test_of_distinct_captions_it_is_clips_loss() -> None:
    """Radford et al. 2021, figure 3."""
    logits, labels = torch.randn(5, 5), torch.arange(5)
    expected = (F.cross_entropy(logits, labels) + F.cross_entropy(logits.T, labels)) / 2
    torch.testing.assert_close(contrastive_loss(logits, same([0, 1, 2, 3, 4])), expected)


def test_of_equal_captions_each_is_as_right_as_the_others() -> None:
    """The best that can be said is to give them equal shares; no picture is asked to tell equal captions apart."""
    equal = same([0, 0, 1, 1])
    logits = torch.where(equal, 50.0, 0.0).requires_grad_()
    loss = contrastive_loss(logits, equal)
    assert float(loss.detach()) == pytest.approx(math.log(2), abs=1e-5)
    (gradient,) = torch.autograd.grad(loss, logits)
    torch.testing.assert_close(gradient, torch.zeros(4, 4), atol=1e-6, rtol=0)
    shuffled = torch.randn(4, 4)
    swapped = shuffled[:, [1, 0, 2, 3]][[1, 0, 2, 3]]
    torch.testing.assert_close(contrastive_loss(shuffled, equal), contrastive_loss(swapped, equal))


@pytest.fixture
def task(context: TrainingContext) -> ContrastiveLoss:
    """Pictures of four plain colours, and a word for each."""
    colours = torch.tensor([[255, 0, 0], [0, 255, 0], [0, 0, 255], [255, 255, 255]], dtype=torch.uint8)
    rows = torch.arange(32) % 4
    ids = torch.tensor([[10, word, 11, 11] for word in range(4)])
    spec = networks.towers(networks.text(12, length=4))
    torch.manual_seed(0)
    towers = networks.built(spec)
    pictures = colours[rows][:, :, None, None].expand(32, 3, 8, 8)
    return ContrastiveLoss(towers, lambda i: pictures[i], ids, rows, context)


def test_words_and_pictures_find_each_other(task: ContrastiveLoss, optimizer: Callable[..., Optimization]) -> None:
    before = retrieval(task, task.towers)
    phase = Phase("", task.towers, optimizer(learning_rate=3e-3), task.loss)
    Loop([phase], EMA(task.towers, 100), steps=40, batch_size=8, accumulation=1, hooks=[], description="towers").run()
    after = retrieval(task, task.towers)
    assert after["held_out/accuracy"] == 1.0
    assert after["held_out/loss"] < before["held_out/loss"]


def test_retrieval_counts_every_picture(task: ContrastiveLoss) -> None:
    losses, right = [], []
    with torch.no_grad():
        for i in range(0, 32, 8):
            logits, equal = task.logits(task.towers, torch.arange(i, i + 8))
            losses.append(contrastive_loss(logits, equal))
            right += [bool(equal[row, best]) for row, best in enumerate(logits.argmax(dim=1).tolist())]
    found = retrieval(task, task.towers)
    assert found["held_out/loss"] == pytest.approx(float(sum(losses)) / 4, rel=1e-5)
    assert found["held_out/accuracy"] == pytest.approx(sum(right) / 32)


def test_captions_are_embedded_row_by_row_in_half_precision(task: ContrastiveLoss) -> None:
    encoder = task.towers.text_model
    embedded = embed_captions(encoder, task.input_ids, torch.device("cpu"))
    assert embedded.shape == (4, 4, 16)
    assert embedded.dtype == torch.float16
    with torch.no_grad():
        alone = encoder(task.input_ids[2:3]).last_hidden_state[0]
    torch.testing.assert_close(embedded[2].float(), alone, rtol=1e-2, atol=1e-2)


def test_captions_are_embedded_alike_whichever_are_asked_for(task: ContrastiveLoss) -> None:
    """Catches neighbours that change with the number of pictures searched, and captions in another one's place."""
    everything = task._embed(torch.arange(4))
    assert torch.equal(task._embed(torch.tensor([1, 3])), everything[[1, 3]])
    assert len({tuple(row) for row in everything.tolist()}) == 4


def test_confusable_captions_fill_the_batches_from_their_step_on(
    task: ContrastiveLoss, optimizer: Callable[..., Optimization], monkeypatch: pytest.MonkeyPatch
) -> None:
    hard = HardNegatives(
        HardNegativesConfig(start_step=3, every=2, group_size=4, neighbours=24), task.rows, task._embed, 8, 0
    )
    drawn: list[Any] = []
    task.hard_negatives = hard
    pairs = task._pairs
    monkeypatch.setattr(task, "_pairs", lambda indices: noted(drawn, indices, pairs(indices)))
    searched: list[int] = []
    search = hard.search
    monkeypatch.setattr(hard, "search", lambda step: noted(searched, step, search(step)))
    phase = Phase("", task.towers, optimizer(), task.loss)
    Loop([phase], EMA(task.towers, 100), steps=6, batch_size=8, accumulation=1, hooks=[], description="towers").run()
    assert searched == [3, 5]
    assert [len(batch) for batch in drawn] == [8] * 6
    for step in range(3):
        assert drawn[step].equal(batch_indices(32, 8, step, 0))
    for batch in drawn[3:]:  # each picture beside others of another caption only
        for group in batch.view(2, 4):
            assert (task.rows[group[1:]] != task.rows[group[0]]).all()
