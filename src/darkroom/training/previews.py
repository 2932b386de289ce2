"""Samples during training, decoded, with what they are samples of: the same noise and captions every time."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import NamedTuple

import torch
from PIL import Image
from torch import Tensor

from darkroom.config.base import Precision
from darkroom.config.sampling import Sampling
from darkroom.core.device import autocast
from darkroom.core.rng import randn_each
from darkroom.core.tensors import to_pil, to_uint8
from darkroom.diffusion.denoiser import Condition, Conditions, Denoiser
from darkroom.diffusion.generate import initial_noise, sample_from, sampling_levels
from darkroom.diffusion.guidance import guided
from darkroom.diffusion.schedule import Level
from darkroom.nn.denoiser.adapted import AdaptedDenoiser
from darkroom.nn.denoiser.base import DenoisingNetwork, Prepared
from darkroom.training.unet import UNetTask, condition_of
from darkroom.view.forward import ROWS, forward
from darkroom.view.sheet import STRIP_COLUMNS, STRIP_ROWS, Moment, Plate, sheet, strip
from darkroom.view.trace import Trace, evenly, visible


class LatentView(NamedTuple):
    """How latents are looked at.

    decode: scaled latents (N, c, h, w) -> pictures (N, C, H, W), about [-1, 1]; called once a preview, for the
        autoencoder may have to be read first.
    centre: the scaled latent about which noisy ones lose contrast, see view.trace.visible.
    asked: what each of the first held-out samples is asked to show; "" where nothing is asked.
    """

    decode: Callable[[Tensor], Tensor]
    centre: float
    asked: Sequence[str]


class Preview(NamedTuple):
    """grid: the samples. strip: how the first few of them came about."""

    grid: Image.Image
    strip: Image.Image


@dataclass(frozen=True)
class UNetPreviews:
    """The `Previews` of a U-Net's training: what the process makes of held-out pictures, then samples.

    n: of the samples. emit: (picture, name, step or None) -> shown and kept.
    """

    task: UNetTask
    view: LatentView
    sampling: Sampling
    n: int
    every: int
    emit: Callable[[Image.Image, str, int | None], None]

    def show_inputs(self) -> None:
        """Noisier and noisier held-out pictures."""
        held_out = self.task.data.held_out
        first = torch.arange(min(ROWS, len(held_out)))
        means = held_out.sample(first, torch.zeros(len(first), *held_out.shape))
        words = [asked or f"held-out picture {i + 1}" for i, asked in zip(first, self.view.asked, strict=False)]
        picture = forward(means, words, self.task.objective.process, self.view.decode, self.view.centre)
        self.emit(picture, "forward", None)

    def show(self, network: DenoisingNetwork, step: int, heading: str) -> None:
        """Samples, and how the first of them came about."""
        grid, strip = preview(network, self.task, self.view, self.sampling, self.n, heading)
        self.emit(grid, "samples", step)
        self.emit(strip, "denoising", step)


@torch.no_grad()
def preview(
    unet: DenoisingNetwork, task: UNetTask, view: LatentView, sampling: Sampling, n: int, heading: str
) -> Preview:
    """n samples for the conditions of the first n held-out pictures; heading: of which step the weights are.

    Where something is asked for, the held-out picture it was said of stands beside each sample, as the autoencoder
    gives it back. All are in one range, [-1, 1].
    """
    held_out = task.data.held_out
    n = min(n, len(held_out))
    levels = sampling_levels(sampling, task.objective.process, task.objective.prediction_type)
    trace = Trace(evenly(len(levels), STRIP_COLUMNS), STRIP_ROWS)
    latents = _sampled(unet, task, sampling, levels, n, trace)
    asked = view.asked[:n] if any(view.asked) else []
    real_latents = held_out.sample(torch.arange(len(asked)), torch.zeros(len(asked), *held_out.shape))
    noisy = [visible(x, float(levels[i].alpha), float(levels[i].sigma), view.centre) for i, x, _ in trace]
    groups = [latents.cpu(), real_latents, *noisy, *(x0 for _, _, x0 in trace)]
    before = _sampled_without(unet, task, sampling, levels, n)
    groups.append(before)
    decoded = torch.split(to_uint8(view.decode(torch.cat(groups))), [len(group) for group in groups])
    drawn, real, *moments, base = [[to_pil(picture) for picture in pictures] for pictures in decoded]
    kept = "" if held_out.std is None else ", as the autoencoder keeps it"
    if asked:
        heading += f" · left: held-out picture{kept} · right: drawn for its caption"
    heading += ", without the adapter and with it" if base else ""
    rows = [list(row) for row in zip(*(some for some in (real, base, drawn) if some), strict=True)]
    return Preview(_grid(rows, asked, heading), _strip(moments, asked, levels, trace))


def _sampled_without(unet: DenoisingNetwork, task: UNetTask, sampling: Sampling, levels: list[Level], n: int) -> Tensor:
    """n latents as the network draws them without its adapters; none of a network that has none."""
    if not isinstance(unet, AdaptedDenoiser):
        return torch.zeros(0, *task.data.train.shape)
    with unet.without():
        return _sampled(unet, task, sampling, levels, n, Trace([], 0)).cpu()


def _sampled(
    unet: DenoisingNetwork, task: UNetTask, sampling: Sampling, levels: list[Level], n: int, trace: Trace
) -> Tensor:
    """n latents; the trace watches."""
    conditioning, device, objective = task.data.conditioning, task.context.device, task.objective
    conditions = Conditions(
        condition_of(conditioning.of_samples("validation", torch.arange(n)), device),
        condition_of(conditioning.null_of(n), device),
    )
    network = _Network(unet, device, task.context.precision)
    denoiser = Denoiser(network, objective.process, objective.prediction_type)
    shape, seeds = task.data.train.shape, list(range(n))
    x = initial_noise(sampling, objective.process, levels, randn_each(shape, seeds, "preview").to(device))
    trace.start(x)

    def noise(step: int) -> Tensor:
        return randn_each(shape, seeds, "preview step", step).to(device)

    denoise = guided(denoiser, conditions, sampling.guidance_scale, sampling.guidance_rescale)
    return sample_from(denoise, sampling, objective.process, x, levels, noise, trace.watch)


@dataclass(frozen=True)
class _Network:
    """The network under training, as a `diffusion.denoiser.Network`; conditions are prepared in fp32."""

    unet: DenoisingNetwork
    device: torch.device
    precision: Precision

    def prepare(self, *conditions: Condition) -> Prepared:
        return self.unet.prepare(*conditions)

    def __call__(self, x: Tensor, t: Tensor, prepared: Prepared) -> Tensor:
        with autocast(self.device, self.precision):
            output: Tensor = self.unet(x, t, *prepared)
        return output


def _grid(rows: Sequence[Sequence[Image.Image]], asked: Sequence[str], heading: str) -> Image.Image:
    """rows: the pictures that stand beside each other, for each sample."""
    plates = [Plate(row, asked[i] if asked else "") for i, row in enumerate(rows)]
    return sheet(plates, max(1, round(len(plates) ** 0.5)), heading)


def _strip(
    pictures: Sequence[Sequence[Image.Image]], asked: Sequence[str], levels: Sequence[Level], trace: Trace
) -> Image.Image:
    """pictures: those so far at each state of the trace, then those expected."""
    states = [state for state, *_ in trace]
    so_far, expected = pictures[: len(states)], pictures[len(states) :]
    moments = [
        Moment(f"step {state} of {len(levels) - 1}", *pair)
        for state, *pair in zip(states, so_far, expected, strict=True)
    ]
    rows = range(len(so_far[0]))
    return strip([asked[row] if asked else f"sample {row + 1}" for row in rows], moments)
