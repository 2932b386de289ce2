"""Samples during training: always the same ones, and the words are prepared once for all steps."""

from collections.abc import Callable
from typing import Any

import pytest
import torch

from darkroom.data.latents import PreviewMap
from darkroom.diffusion.generate import Sampling
from darkroom.nn.unet import UNet2DConditionModel
from darkroom.training.previews import SIDE, preview

TO_RGB = PreviewMap(torch.rand(3, 4), torch.zeros(3))


@pytest.mark.parametrize("kind", ["text", "class", "none"])
def test_a_preview_is_the_same_picture_every_time(kind: str, world: Callable[[str], Any]) -> None:
    task, how = world(kind).task(), Sampling("ddpm", 4, 3.0, "trailing")
    first = preview(task.unet, task, TO_RGB, how, 4)
    assert first.size == (2 * SIDE + 6, 2 * SIDE + 6)
    assert first.tobytes() == preview(task.unet, task, TO_RGB, how, 4).tobytes()


def test_words_are_prepared_once_and_both_halves_are_one_batch(
    world: Callable[[str], Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    prepared, batches = [], []
    prepare, forward = UNet2DConditionModel.prepare_context, UNet2DConditionModel.forward

    def counted_prepare(self: UNet2DConditionModel, words: torch.Tensor) -> Any:
        prepared.append(len(words))
        return prepare(self, words)

    def counted_forward(self: UNet2DConditionModel, sample: torch.Tensor, *rest: Any) -> torch.Tensor:
        batches.append(len(sample))
        return forward(self, sample, *rest)

    monkeypatch.setattr(UNet2DConditionModel, "prepare_context", counted_prepare)
    monkeypatch.setattr(UNet2DConditionModel, "forward", counted_forward)
    task = world("text").task()
    preview(task.unet, task, TO_RGB, Sampling("ddim", 6, 3.0, "trailing"), 4)
    assert prepared == [4, 4]  # the captions and the null
    assert batches == [8] * 6
    batches.clear()
    preview(task.unet, task, TO_RGB, Sampling("ddim", 6, 1.0, "trailing"), 4)
    assert batches == [4] * 6
