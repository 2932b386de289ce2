"""Samples during training: always the same ones, decoded, and the words are prepared once for all steps.

What these tests would catch: previews that show noise whatever the model knows (as those through a map fitted on the
means of posteriors did), the picture of another caption beside a sample, previews that change from call to call or
with the training around them, and an autoencoder that is read more than once a preview.
"""

import math
from collections.abc import Callable
from typing import Any, cast

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from PIL import Image
from torch import Tensor, nn

from darkroom.core.rng import generator, seeded
from darkroom.core.tensors import to_uint8
from darkroom.nn.denoiser.unet import UNet2DConditionModel
from darkroom.training.previews import LatentView, preview
from darkroom.view.sheet import GUTTER, JOINT, LINE, PICTURE
from tests.support.diffusion import make_objective, make_sampling, make_ve
from tests.support.networks import built, kl

JOINTS = range(0, 10_000, PICTURE + JOINT)  # where pictures of a strip begin
FACTOR = 0.8  # what the small worlds' latents are scaled by
TO_RGB = torch.rand(3, 4, generator=generator(0, "to rgb"))
ASKED = [f"caption {i}" for i in range(24)]


def to_rgb(latents: Tensor) -> Tensor:
    return torch.einsum("oc,nchw->nohw", TO_RGB, latents)


def shown(kind: str) -> LatentView:
    return LatentView(to_rgb, 0.0, [""] * 24 if kind == "none" else ASKED)


def on_grid(grid: Image.Image, plate: int, columns: int, which: int, each: int) -> NDArray[np.int64]:
    """Picture `which` of the `each` of a plate whose caption is one line, or none for each = 1."""
    wide, cell = each * PICTURE + (each - 1) * JOINT + GUTTER, PICTURE + (LINE if each > 1 else 0) + GUTTER
    x = GUTTER + plate % columns * wide + which * (PICTURE + JOINT)
    y = GUTTER + LINE + 4 + plate // columns * cell
    return np.asarray(grid.crop((x, y, x + PICTURE, y + PICTURE))).astype(np.int64)


def enlarged(picture: Tensor) -> NDArray[np.int64]:
    """uint8 (C, h, w), h dividing PICTURE, as it stands on a sheet."""
    zoom = PICTURE // picture.shape[-1]
    return picture.repeat_interleave(zoom, 1).repeat_interleave(zoom, 2).movedim(0, -1).numpy().astype(np.int64)


@pytest.mark.parametrize("kind", ["text", "class", "none"])
def test_a_preview_is_the_same_picture_every_time_and_leaves_no_trace(kind: str, world: Callable[[str], Any]) -> None:
    task, how = world(kind).task(), make_sampling("ddpm", 4, 3.0, "trailing")
    before = torch.get_rng_state()
    first, again = (preview(task.network, task, shown(kind), how, 4, "after 7 steps") for _ in range(2))
    assert torch.equal(torch.get_rng_state(), before)
    assert [picture.tobytes() for picture in first] == [picture.tobytes() for picture in again]
    drawn = [on_grid(first.grid, i, 2, 0, 1) if kind == "none" else on_grid(first.grid, i, 2, 1, 2) for i in range(4)]
    assert len({picture.tobytes() for picture in drawn}) == 4


def test_beside_a_sample_stands_the_held_out_picture_that_its_caption_was_said_of(world: Callable[[str], Any]) -> None:
    task = world("text").task()
    grid, _ = preview(task.network, task, shown("text"), make_sampling("ddim", 2, 1.0, "trailing"), 4, "after 7 steps")
    for i in range(4):
        real = to_uint8(to_rgb(task.data.held_out.mean[torch.tensor([i])].float() * FACTOR))[0]
        assert np.array_equal(on_grid(grid, i, 2, 0, 2), enlarged(real))


@pytest.mark.parametrize(("process", "prediction"), [("vp", "v_prediction"), ("ve", "score")])
def test_the_strip_goes_from_noise_in_the_range_to_the_sample(
    process: str, prediction: Any, world: Callable[[str], Any]
) -> None:
    task = world("none").task()
    if process == "ve":
        task.objective = make_objective(make_ve(25.0, 1e-5), prediction, "uniform", "l2", "sum")
    grid, strip = preview(
        task.network, task, shown("none"), make_sampling("euler", 3, 1.0, "linspace"), 2, "after 7 steps"
    )
    pictures = np.asarray(strip)[GUTTER + LINE :, 2 * GUTTER + PICTURE :].astype(int)
    cells = [[pictures[row:, column:][:PICTURE, :PICTURE] for column in JOINTS[:4]] for row in JOINTS[:4]]
    assert (pictures.shape[0] - 12) // (PICTURE + JOINT) == 4  # two rows for each of the two samples
    for row in (0, 1):  # at the end, what is there is what is expected
        assert np.array_equal(cells[row][3], on_grid(grid, 0, 1, 0, 1))
    clipped = [np.isin(cells[0][column], (0, 255)).mean() for column in (0, 3)]
    assert clipped[0] < 0.6


class Knowing(nn.Module):
    """A network that knows the answer: whatever it is given, it predicts what leads to `latents`."""

    def __init__(self, latents: Tensor) -> None:
        super().__init__()
        self.latents = latents

    def prepare(self, *conditions: Any) -> tuple[None, None]:
        return None, None

    def forward(self, x: Tensor, *rest: Any) -> Tensor:
        return self.latents.repeat(len(x) // len(self.latents), 1, 1, 1)


def closeness(picture: NDArray[np.int64], other: NDArray[np.int64]) -> float:
    """PSNR in dB."""
    return 10 * math.log10(255**2 / max(float(np.square(picture - other).mean()), 1e-3))


@pytest.mark.parametrize("sampling", [("ddim", 6), ("ddpm", 6), ("dpmpp_2m", 6)])
def test_a_model_that_knows_the_pictures_is_seen_to_draw_them(
    sampling: tuple[Any, int], world: Callable[[str], Any], randomise: Callable[[nn.Module], None]
) -> None:
    """Confetti would be caught: what such a model draws is what the decoder makes of the held-out latents."""
    task = world("text").task()
    task.objective = make_objective(task.objective.process, "sample", "uniform", "l2", "mean")
    with seeded(0, "vae"):
        vae = built(kl((8, 8), groups=1)).eval()
    randomise(vae)
    calls = []

    def decode(latents: Tensor) -> Tensor:
        calls.append(len(latents))
        return torch.tanh(vae.decode(latents / FACTOR))

    known = task.data.held_out.sample(torch.arange(4), torch.zeros(4, *task.data.held_out.shape))
    how = make_sampling(*sampling, 3.0, "trailing")
    grid, strip = preview(cast(Any, Knowing(known)), task, LatentView(decode, 0.0, ASKED), how, 4, "after 7 steps")
    assert len(calls) == 1
    expected = [enlarged(picture) for picture in to_uint8(decode(known)).detach()]
    for i in range(4):
        assert closeness(on_grid(grid, i, 2, 1, 2), expected[i]) > 35
        assert closeness(on_grid(grid, i, 2, 1, 2), expected[i - 1]) < 20
    last = np.asarray(strip)[GUTTER + LINE :, -(GUTTER + PICTURE + JOINT) :].astype(int)
    for i in range(4):
        for row in (2 * i, 2 * i + 1):
            assert closeness(last[JOINTS[row] :][:PICTURE, :PICTURE], expected[i]) > 35


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
    preview(task.network, task, shown("text"), make_sampling("ddim", 6, 3.0, "trailing"), 4, "after 7 steps")
    assert prepared == [4, 4]  # the captions and the null
    assert batches == [8] * 6
    batches.clear()
    preview(task.network, task, shown("text"), make_sampling("ddim", 6, 1.0, "trailing"), 4, "after 7 steps")
    assert batches == [4] * 6
