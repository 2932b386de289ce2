"""Samples during training: always the same ones, and the words are prepared once for all steps."""

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch

from darkroom.core.sheet import GUTTER, JOINT, LINE, PICTURE
from darkroom.data.latents import PreviewMap
from darkroom.diffusion.continuous import VE
from darkroom.diffusion.generate import Sampling
from darkroom.diffusion.objective import Objective
from darkroom.nn.unet import UNet2DConditionModel
from darkroom.training.previews import SIDE, preview

JOINTS = range(0, 10_000, PICTURE + JOINT)  # where pictures of a strip begin
TO_RGB = PreviewMap(torch.rand(3, 4), torch.zeros(3))


@pytest.mark.parametrize("kind", ["text", "class", "none"])
def test_a_preview_is_the_same_picture_every_time(kind: str, world: Callable[[str], Any]) -> None:
    task, how = world(kind).task(), Sampling("ddpm", 4, 3.0, "trailing")
    first, again = (preview(task.unet, task, TO_RGB, how, 4) for _ in range(2))
    assert first.grid.size == (2 * SIDE + 6, 2 * SIDE + 6)
    assert [picture.tobytes() for picture in first] == [picture.tobytes() for picture in again]


@pytest.mark.parametrize(("process", "prediction"), [("vp", "v_prediction"), ("ve", "score")])
def test_the_strip_goes_from_noise_in_the_range_to_the_sample(
    process: str, prediction: Any, world: Callable[[str], Any]
) -> None:
    task = world("none").task()
    if process == "ve":
        task.objective = Objective(VE(25.0, 1e-5), prediction, "uniform", "l2", "sum")
    grid, strip = preview(task.unet, task, TO_RGB, Sampling("euler", 3, 1.0, "linspace"), 2)
    shown = np.asarray(strip)[GUTTER + LINE :, 2 * GUTTER + PICTURE :].astype(int)
    cells = [[shown[row:, column:][:PICTURE, :PICTURE] for column in JOINTS[:4]] for row in JOINTS[:4]]
    assert (shown.shape[0] - 12) // (PICTURE + JOINT) == 4  # two rows for each of the two samples
    sample = np.asarray(grid)[2 : 2 + SIDE, 2 : 2 + SIDE].astype(int)
    zoom, large = SIDE // task.train.shape[-1], PICTURE // task.train.shape[-1]
    for row in (0, 1):  # at the end, what is there is what is expected
        assert np.array_equal(cells[row][3][::large, ::large], sample[::zoom, ::zoom])
    clipped = [np.isin(cells[0][column], (0, 255)).mean() for column in (0, 3)]
    assert clipped[0] < 0.6


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
