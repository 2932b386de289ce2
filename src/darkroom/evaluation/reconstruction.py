"""What the autoencoder loses: how similar pictures and their reconstructions are."""

import torch
from torch import Tensor

from darkroom.core.seeds import numpy_rng
from darkroom.core.tensors import batches, to_float
from darkroom.data.prepared import PreparedSplit
from darkroom.evaluation.estimates import Estimate, bootstrap_mean
from darkroom.inference.pipeline import Pipeline

WINDOW, SIGMA = 11, 1.5  # of SSIM's Gaussian, pixels
K1, K2 = 0.01, 0.03
RANGE = 255.0
BEST_PSNR = 100.0  # dB, where nothing differs
BATCH = 250


def reconstruction(pipeline: Pipeline, test: PreparedSplit, seed: int, resamples: int) -> dict[str, Estimate]:
    """Mean PSNR (dB) and SSIM of the reconstructions of all test pictures; {} without an autoencoder."""
    if pipeline.info.autoencoder == "identity":
        return {}
    pairs = [(x, pipeline.reconstruct(to_float(x))) for x in map(test.images, batches(test.runs, BATCH))]
    return {
        name: bootstrap_mean(torch.cat([measure(*pair) for pair in pairs]).numpy(), resamples, numpy_rng(seed, name))
        for name, measure in (("psnr", psnr), ("ssim", ssim))
    }


def psnr(images: Tensor, others: Tensor) -> Tensor:
    """The peak signal-to-noise ratio (N,) in dB of pictures uint8 (N, C, H, W), at most 100."""
    error = (images.double() - others.double()).square().mean(dim=(1, 2, 3))
    return (10 * torch.log10(RANGE**2 / error)).clamp(max=BEST_PSNR)


def ssim(images: Tensor, others: Tensor) -> Tensor:
    """The structural similarity (N,) of pictures uint8 (N, C, H, W) (Wang et al. 2004, eq. 13), mean over channels.

    As the authors compute it: a Gaussian window of 11 pixels and sigma 1.5, only where it lies wholly in the picture.
    Pictures smaller than the window get a smaller one.
    """
    x, y = images.double(), others.double()
    height, width = images.shape[-2:]
    size = min(WINDOW, height - (height + 1) % 2, width - (width + 1) % 2)
    down, across = _windows(height, size), _windows(width, size)

    def blur(p: Tensor) -> Tensor:
        return down @ p @ across.T

    mx, my = blur(x), blur(y)
    vx, vy, cov = blur(x * x) - mx * mx, blur(y * y) - my * my, blur(x * y) - mx * my
    c1, c2 = (K1 * RANGE) ** 2, (K2 * RANGE) ** 2
    local = (2 * mx * my + c1) * (2 * cov + c2) / ((mx * mx + my * my + c1) * (vx + vy + c2))
    return local.mean(dim=(1, 2, 3))


def _windows(side: int, size: int) -> Tensor:
    """One Gaussian window per row, at each place of a line of `side` pixels: (side - size + 1, side), rows sum to 1."""
    at = torch.arange(size, dtype=torch.float64) - size // 2
    line = torch.exp(-(at**2) / (2 * SIGMA**2))
    out = torch.zeros(side - size + 1, side, dtype=torch.float64)
    for row in range(len(out)):
        out[row, row : row + size] = line / line.sum()
    return out
