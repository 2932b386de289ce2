"""PSNR and SSIM against their formulas."""

import math

import numpy as np
import pytest
import torch
from torch import Tensor

from darkroom.evaluation.reconstruction import psnr, ssim


def pictures(n: int, size: int = 20, channels: int = 3, seed: int = 0) -> Tensor:
    g = torch.Generator().manual_seed(seed)
    return torch.randint(0, 256, (n, channels, size, size), generator=g, dtype=torch.uint8)


def test_psnr_is_per_picture_with_peak_255() -> None:
    x = torch.full((3, 1, 8, 8), 100, dtype=torch.uint8)
    y = x.clone()
    y[1] += 5
    y[2, :, :4] -= 10
    expected = [100, 10 * math.log10(255**2 / 25), 10 * math.log10(255**2 / 50)]
    assert psnr(x, y).tolist() == pytest.approx(expected)


def test_ssim_is_the_windowed_formula() -> None:
    """Wang et al. 2004, eq. 13, written out for every window."""
    x, y = pictures(2, size=13, channels=2), pictures(2, size=13, channels=2, seed=1)
    y = ((x.float() + y.float()) / 2).to(torch.uint8)
    at = np.arange(11) - 5
    line = np.exp(-(at**2) / (2 * 1.5**2))
    w = np.outer(line, line) / line.sum() ** 2
    c1, c2 = (0.01 * 255) ** 2, (0.03 * 255) ** 2
    expected = np.zeros(2)
    for n in range(2):
        for c in range(2):
            for i in range(3):
                for j in range(3):
                    a, b = (p[n, c, i : i + 11, j : j + 11].double().numpy() for p in (x, y))
                    ma, mb = (w * a).sum(), (w * b).sum()
                    va, vb = (w * (a - ma) ** 2).sum(), (w * (b - mb) ** 2).sum()
                    cov = (w * (a - ma) * (b - mb)).sum()
                    expected[n] += (2 * ma * mb + c1) * (2 * cov + c2) / ((ma**2 + mb**2 + c1) * (va + vb + c2)) / 18
    assert ssim(x, y).tolist() == pytest.approx(expected.tolist(), rel=1e-9)


def test_ssim_is_one_for_equal_pictures_and_falls_with_noise() -> None:
    x = pictures(3)
    assert ssim(x, x).tolist() == pytest.approx([1, 1, 1])
    noisy = (x.float() + 40 * torch.randn(x.shape, generator=torch.Generator().manual_seed(2))).clamp(0, 255)
    assert bool((ssim(x, noisy.to(torch.uint8)) < 0.95).all())
    small = pictures(2, size=8)
    assert ssim(small, small).tolist() == pytest.approx([1, 1])
