"""What the autoencoder loses: the likeness of pictures to their reconstructions, per picture."""

import torch
import torch.nn.functional as F
from torch import Tensor

WINDOW, SIGMA = 11, 1.5  # of SSIM's Gaussian, pixels
K1, K2 = 0.01, 0.03
RANGE = 255.0
BEST_PSNR = 100.0  # dB, where nothing differs


def psnr(images: Tensor, others: Tensor) -> Tensor:
    """The peak signal-to-noise ratio (N,) in dB of pictures uint8 (N, C, H, W), at most 100."""
    error = (images.double() - others.double()).square().mean(dim=(1, 2, 3))
    return (10 * torch.log10(RANGE**2 / error)).clamp(max=BEST_PSNR)


def ssim(images: Tensor, others: Tensor) -> Tensor:
    """The structural similarity (N,) of pictures uint8 (N, C, H, W) (Wang et al. 2004, eq. 13), mean over channels.

    As the authors compute it: a Gaussian window of 11 pixels and sigma 1.5, only where it lies wholly in the picture.
    Pictures smaller than the window get a smaller one.
    """
    x, y = (p.double().flatten(0, 1)[:, None] for p in (images, others))  # (N C, 1, H, W)
    window = _window(min(WINDOW, *(side - (side + 1) % 2 for side in images.shape[-2:])))

    def blur(p: Tensor) -> Tensor:
        return F.conv2d(p, window)

    mx, my = blur(x), blur(y)
    vx, vy, cov = blur(x * x) - mx * mx, blur(y * y) - my * my, blur(x * y) - mx * my
    c1, c2 = (K1 * RANGE) ** 2, (K2 * RANGE) ** 2
    local = (2 * mx * my + c1) * (2 * cov + c2) / ((mx * mx + my * my + c1) * (vx + vy + c2))
    return local.flatten(1).mean(dim=1).view(images.shape[0], -1).mean(dim=1)


def _window(size: int) -> Tensor:
    """(1, 1, size, size), summing to 1."""
    at = torch.arange(size, dtype=torch.float64) - size // 2
    line = torch.exp(-(at**2) / (2 * SIGMA**2))
    line = line / line.sum()
    return torch.outer(line, line)[None, None]
