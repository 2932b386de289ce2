"""What a denoiser's samples are: cached latents of one size, each with the captions of its picture."""

from collections.abc import Callable
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from darkroom.config.sections import CaptionChoice
from darkroom.data.conditioning import Captions
from darkroom.data.latents import Latents


@dataclass(frozen=True)
class Part:
    """The samples of one size.

    latents: of that size. latent: sample -> row of `latents`; None: the same number.
    captioned: sample -> its picture, or where each caption is a sample of its own, that caption's row of the prepared
        data. captions: of the split's pictures; None where each has one, whose row is the picture's number.
    """

    latents: Latents
    latent: Tensor | None
    captioned: Tensor
    captions: Captions | None

    def __len__(self) -> int:
        return len(self.captioned)

    def resident(self, device: torch.device) -> "Part":
        """The same, with its latents on `device` where they are not too large for that."""
        return replace(self, latents=self.latents.resident(device))

    def latent_rows(self, samples: Tensor) -> Tensor:
        """Samples (n,) -> rows of `latents` (n,)."""
        return samples if self.latent is None else self.latent[samples]

    def caption_rows(self, samples: Tensor, choice: CaptionChoice, draw: Callable[[str], Tensor]) -> Tensor:
        """Samples (n,) -> rows (n,) of the prepared data, whose captions they are shown with.

        Args:
            draw: purpose -> uniform numbers (n,) in [0, 1), one for each sample.
        """
        of = self.captioned[samples]
        if self.captions is None or choice == "each":
            return of
        if choice == "random":
            return self.captions.at(of, draw("caption"))
        return self.captions.first(of) if choice == "first" else self.captions.longest[of]


def parts_of(latents: Latents, captions: Captions | None, each: bool) -> list[Part]:
    """The samples of a split, by size.

    Args:
        latents: of each picture once, in all its variants. captions: of its pictures; None: one each.
        each: whether a picture with several captions is a sample with each of them.
    """
    found = []
    for numbers, part in latents.by_shape():
        pictures = latents.pictures(numbers)
        if captions is None or not each:
            found.append(Part(part, None, pictures, captions))
            continue
        counts = captions.counts[pictures]
        latent = torch.arange(len(numbers)).repeat_interleave(counts)
        within = torch.arange(len(latent)) - (counts.cumsum(0) - counts).repeat_interleave(counts)
        found.append(Part(part, latent, captions.row(pictures[latent], within), captions))
    return found
