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
from darkroom.training.latent_batches import LatentBatches
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
        """Noisier and noisier held-out pictures, of one size."""
        asked = self.view.asked
        group = max(_by_size(self.task.data, len(asked)), key=lambda of: len(of.positions))
        means = _means(self.task.data, group)[:ROWS]
        words = [asked[i] or f"held-out picture {i + 1}" for i in group.positions[:ROWS]]
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
    levels = sampling_levels(sampling, task.objective.process, task.objective.prediction_type)
    asked = view.asked[:n] if any(view.asked) else []
    states, pictures = list[int](), dict[int, list[Image.Image]]()
    for group in _by_size(task.data, n):
        trace = Trace(evenly(len(levels), STRIP_COLUMNS), sum(position < STRIP_ROWS for position in group.positions))
        latents = _sampled(unet, task, sampling, levels, group, trace)
        real = _means(task.data, group) if asked else latents[:0].cpu()
        noisy = [visible(x, float(levels[i].alpha), float(levels[i].sigma), view.centre) for i, x, _ in trace]
        without = _sampled_without(unet, task, sampling, levels, group)
        several = [latents.cpu(), real, *noisy, *(x0 for _, _, x0 in trace), without]
        decoded = torch.split(to_uint8(view.decode(torch.cat(several))), [len(one) for one in several])
        columns = [[to_pil(picture) for picture in of] for of in decoded]
        states = [state for state, *_ in trace]
        pictures |= {position: [of[i] for of in columns if i < len(of)] for i, position in enumerate(group.positions)}
    found = [pictures[position] for position in sorted(pictures)]
    first = 2 if asked else 1  # of the moments
    moments = [[of[k] for of in found[:STRIP_ROWS]] for k in range(first, first + 2 * len(states))]
    kept = "" if task.data.held_out.std is None else ", as the autoencoder keeps it"
    if asked:
        heading += f" · left: held-out picture{kept} · right: drawn for its caption"
    adapted = isinstance(unet, AdaptedDenoiser)
    heading += ", without the adapter and with it" if adapted else ""
    rows = [[*of[1:first], *of[-1:] * adapted, of[0]] for of in found]
    return Preview(_grid(rows, asked, heading), _strip(moments, asked, len(levels) - 1, states))


def _sampled_without(
    unet: DenoisingNetwork, task: UNetTask, sampling: Sampling, levels: list[Level], group: "_Group"
) -> Tensor:
    """Latents as the network draws them without its adapters; none of a network that has none."""
    if not isinstance(unet, AdaptedDenoiser):
        return torch.zeros(0, *task.data.held_out_parts[group.size].latents.shape)
    with unet.without():
        return _sampled(unet, task, sampling, levels, group, Trace([], 0)).cpu()


class _Group(NamedTuple):
    """Held-out samples of one size to look at: positions among all of them; rows: (n,), which of that size they are."""

    size: int
    positions: list[int]
    rows: Tensor


def _by_size(data: LatentBatches, n: int) -> list[_Group]:
    """n held-out samples."""
    positions: dict[int, list[tuple[int, int]]] = {}
    for position, (size, row) in enumerate(data.to_show(n)):
        positions.setdefault(size, []).append((position, row))
    return [_Group(size, [i for i, _ in of], torch.tensor([row for _, row in of])) for size, of in positions.items()]


def _means(data: LatentBatches, group: _Group) -> Tensor:
    """Scaled, as the autoencoder is surest of them."""
    part = data.held_out_parts[group.size]
    return part.latents.sample(part.latent_rows(group.rows), torch.zeros(len(group.rows), *part.latents.shape))


def _sampled(
    unet: DenoisingNetwork, task: UNetTask, sampling: Sampling, levels: list[Level], group: _Group, trace: Trace
) -> Tensor:
    """A latent for each of the group; the trace watches."""
    conditioning, device, objective = task.data.conditioning, task.context.device, task.objective
    conditions = Conditions(
        condition_of(conditioning.of_rows(task.data.held_out_captions(group.size, group.rows)), device),
        condition_of(conditioning.null_of(len(group.rows)), device),
    )
    network = _Network(unet, device, task.context.precision)
    denoiser = Denoiser(network, objective.process, objective.prediction_type)
    shape, seeds = task.data.held_out_parts[group.size].latents.shape, group.positions
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
    pictures: Sequence[Sequence[Image.Image]], asked: Sequence[str], steps: int, states: Sequence[int]
) -> Image.Image:
    """pictures: those so far at each of `states`, then those expected."""
    so_far, expected = pictures[: len(states)], pictures[len(states) :]
    moments = [Moment(f"step {state} of {steps}", *pair) for state, *pair in zip(states, so_far, expected, strict=True)]
    rows = range(len(so_far[0]))
    return strip([asked[row] if asked else f"sample {row + 1}" for row in rows], moments)
