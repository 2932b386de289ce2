"""Diffusion in one dimension, where every answer is known: the numbers and figures of diffusion-in-one-dimension.md.

python docs/diffusion_in_one_dimension.py   # a minute; prints the tables and writes the figures beside this file
"""

import io
import math
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from PIL import Image
from torch import Tensor

from darkroom.config.diffusion import VEProcess
from darkroom.config.sampling import sampler_named
from darkroom.diffusion.continuous import VE
from darkroom.diffusion.generate import ignore_step
from darkroom.diffusion.grids import level_grid
from darkroom.diffusion.samplers.euler_maruyama import euler_maruyama
from darkroom.diffusion.schedule import Level

END, STEPS = 10.0, 100  # of the Brownian motion: its time, and in how many steps
SIGMA = 25.0  # of the published variance-exploding process, std(t)^2 = (25^(2t) - 1) / (2 ln 25)
SIGMA_MIN = 0.1  # where walks end that are to show their order
SEED = 0
PATHS, MANY = 24, 20_000  # that are drawn, and whose spread is measured
BLUE, RED, INK, PALE = "#3b6ea5", "#b23a30", "#28282c", "#828288"
ORDERS: dict[str, int] = {"ddim": 1, "heun": 2, "dpmpp_2m": 2, "pndm": 2}
TOLERANCES = (1e-2, 1e-3, 1e-4, 1e-5, 1e-6)  # of ode
NOISY_ORDERS: dict[str, int] = {"euler_maruyama": 1, "ddpm": 1, "dpmpp_2m_sde": 2}
LABELS = {"ddim": "ddim = euler", "ddpm": "ddpm = euler_ancestral", "published": "Euler–Maruyama as published"}


# Brownian motion: dx = dw from x = 0, whose variance at time t is t.


def forward(n: int, published: bool = False) -> Tensor:
    """(STEPS + 1, n): n paths of dx = dw from 0. A step's noise has the variance dt; as published, it had 1."""
    dt = END / STEPS
    z = torch.randn(STEPS, n, generator=torch.Generator().manual_seed(SEED), dtype=torch.float64)
    steps = (1.0 if published else dt**0.5) * z
    return torch.cat([torch.zeros(1, n, dtype=torch.float64), steps.cumsum(0)])


def reverse(n: int, published: bool = False) -> tuple[list[float], Tensor]:
    """Times and (times, n) paths of the motion reversed, by Euler and Maruyama, with the exact score -x / t.

    From the spread sqrt(END) to time 0, where all paths meet again in 0. As published, from the spread END to time 1.
    """
    last = STEPS * (1 - 1 / END) if published else STEPS
    times = [END * (1 - i / STEPS) for i in range(round(last) + 1)]
    levels = [Level(1.0, max(t, 0.0) ** 0.5) for t in times]
    generator = torch.Generator().manual_seed(SEED)

    def noise(number: int) -> Tensor:
        return torch.randn(1, 1, 1, n, generator=generator, dtype=torch.float64)

    def denoise(x: Tensor, level: Level) -> Tensor:
        return torch.zeros_like(x)

    start = (END if published else END**0.5) * noise(0)
    paths = [start]
    euler_maruyama(denoise, start, levels, noise, lambda i, x, x0: paths.append(x))
    return times, torch.cat(paths).view(-1, n)


# A mixture of Gaussians on the line, of which the best denoiser and every quantile are known.


@dataclass(frozen=True)
class Mixture:
    """x0 ~ sum_k weights[k] N(means[k], stds[k]^2)."""

    weights: Tensor = field(default_factory=lambda: torch.tensor([0.4, 0.6], dtype=torch.float64))
    means: Tensor = field(default_factory=lambda: torch.tensor([-0.6, 0.8], dtype=torch.float64))
    stds: Tensor = field(default_factory=lambda: torch.tensor([0.15, 0.3], dtype=torch.float64))

    def denoise(self, x: Tensor, level: Level) -> Tensor:
        """E[x0 | x]: the means of the Gaussians given x, by how likely each is."""
        variance = level.alpha**2 * self.stds**2 + level.sigma**2
        off = x[..., None] - level.alpha * self.means
        share = torch.softmax(self.weights.log() - variance.log() / 2 - off**2 / (2 * variance), dim=-1)
        return (share * (self.means + level.alpha * self.stds**2 / variance * off)).sum(-1)

    def quantiles(self, n: int, level: Level) -> Tensor:
        """(1, 1, 1, n): the x at `level` below which a share of (i + 1/2) / n lies, by bisection."""
        share = (torch.arange(n, dtype=torch.float64) + 0.5) / n
        std = (level.alpha**2 * self.stds**2 + level.sigma**2) ** 0.5
        reach = float((level.alpha * self.means).abs().max() + 9 * std.max())
        low, high = torch.full_like(share, -reach), torch.full_like(share, reach)
        for _ in range(60):
            middle = (low + high) / 2
            below = torch.special.ndtr((middle[:, None] - level.alpha * self.means) / std) @ self.weights
            low, high = torch.where(below < share, middle, low), torch.where(below < share, high, middle)
        return ((low + high) / 2).view(1, 1, 1, n)


class EvenNoise:
    """Gaussian noise that is even over a population: points close to one another get noises spread over all of N(0, 1).

    (rank / n, noise) is a rotated Hammersley set, as in L'Ecuyer, Lécot & Tuffin 2008 ("A randomized quasi-Monte Carlo
    simulation method for Markov chains"): a population of 16,000 then errs like millions of independent points, and
    what is seen is the sampler's own error.

    x: the population, set before noise is drawn for it.
    """

    def __init__(self, start: Tensor) -> None:
        self.x, n = start, start.numel()
        bits = math.ceil(math.log2(n))
        index = torch.arange(n)
        digits = [(index >> bit & 1).double() / 2 ** (bit + 1) for bit in range(bits)]
        self.even = torch.stack(digits).sum(0)
        self.generator = torch.Generator().manual_seed(SEED)

    def __call__(self, number: int) -> Tensor:
        turned = (self.even + torch.rand((), generator=self.generator, dtype=torch.float64)) % 1
        noise = torch.special.ndtri(turned.clamp(1e-9, 1 - 1e-9))
        return noise[self.x.flatten().argsort().argsort()].view_as(self.x)


@dataclass(frozen=True)
class Measured:
    """How far a population ends from the exact distribution (Wasserstein's distance), and at what cost."""

    evaluations: int
    error: float


MIXTURE, PROCESS = Mixture(), VE(VEProcess(kind="ve", sigma=SIGMA, t_min=1e-5))
POINTS = Mixture(stds=torch.zeros(2, dtype=torch.float64))


def levels_to_sigma_min(n: int) -> list[Level]:
    """n steps, even in time, from the noisiest level to SIGMA_MIN."""
    last = PROCESS.timestep(Level(1.0, SIGMA_MIN))
    return [PROCESS.level(1000 + (last - 1000) * i / n) for i in range(n + 1)]


def drawn(
    sampler: str, levels: list[Level], population: int, world: Mixture = MIXTURE, **options: Any
) -> tuple[Tensor, int]:
    """A population (1, 1, 1, n) from the quantiles of levels[0] to levels[-1], and how often its score was asked."""
    asked = []

    def denoise(x: Tensor, level: Level) -> Tensor:
        asked.append(level)
        noise.x = x
        return world.denoise(x, level)

    x = world.quantiles(population, levels[0])
    noise = EvenNoise(x)
    rule = sampler_named(sampler, **options).rule(PROCESS.at_ratio)
    end = rule(denoise, x, levels, noise, ignore_step)
    return end, len(asked)


def measure(sampler: str, levels: list[Level], population: int, **options: Any) -> Measured:
    """A sampler on the exact score."""
    end, evaluations = drawn(sampler, levels, population, **options)
    return Measured(evaluations, distance(end, levels[-1]))


def distance(x: Tensor, level: Level) -> float:
    """Of a population (1, 1, 1, n) from the exact distribution at a level: the mean distance of their quantiles."""
    return float((x.flatten().sort().values - MIXTURE.quantiles(x.numel(), level).flatten()).abs().mean())


def published(n: int, end: float, population: int, world: Mixture = MIXTURE) -> Tensor:
    """Euler and Maruyama's method as it was published: n updates on n times from 1 to `end`, so the last steps past it.

    x <- x + g^2 score dt + g sqrt(dt) z with g = 25^t; what the last update gives without its noise is the result.
    """
    times = [1 + (end - 1) * i / (n - 1) for i in range(n)]
    dt = times[0] - times[1]
    x = world.quantiles(population, PROCESS.level(1000))
    noise = EvenNoise(x)
    for i, t in enumerate(times):
        level = PROCESS.level(1000 * t)
        score = (world.denoise(x, level) - x) / level.sigma**2
        mean = x + SIGMA ** (2 * t) * dt * score
        noise.x = x
        x = mean + SIGMA**t * dt**0.5 * noise(i)
    return mean


def last_factor(n: int, end: float) -> float:
    """By how much the published last update overshoots E[x0 | x] = x + sigma^2 score, which has the factor 1."""
    dt = (1 - end) / (n - 1)
    return SIGMA ** (2 * end) * dt / float(PROCESS.level(1000 * end).sigma) ** 2


def last_steps(population: int = 2**12, end: float = 1e-3) -> list[tuple[int, float, float, float]]:
    """(updates, last factor, noise left as published, noise left by ours) for both published numbers of updates.

    In a world of two points, as the black of a background is one: what is not at one of them is noise.
    """
    rows = []
    for n in (250, 500):
        levels = level_grid(VE(VEProcess(kind="ve", sigma=SIGMA, t_min=end)), n, "linspace")
        ends = published(n, end, population, POINTS), drawn("euler_maruyama", levels, population, POINTS)[0]
        rows.append((n, last_factor(n, end), *(noise_left(x) for x in ends)))
    return rows


def noise_left(x: Tensor) -> float:
    """The root of the mean square distance to the nearest of the two points."""
    return float((x[..., None] - POINTS.means).square().amin(-1).mean().sqrt())


def curves(steps: tuple[int, ...] = (8, 16, 32, 64, 128, 256), population: int = 2**14) -> dict[str, list[Measured]]:
    """Error by evaluations of each sampler between the noisiest level and SIGMA_MIN."""
    names = (*ORDERS, *NOISY_ORDERS, "predictor_corrector")
    found = {name: [measure(name, levels_to_sigma_min(n), population) for n in steps] for name in names}
    whole = levels_to_sigma_min(2)
    found["ode"] = [measure("ode", whole, population, tolerance=tolerance) for tolerance in TOLERANCES]
    end = PROCESS.timestep(whole[-1]) / 1000
    found["published"] = [Measured(n, distance(published(n, end, population), whole[-1])) for n in steps]
    return found


# The figures.


def draw_paths(path: Path) -> None:
    """Brownian motion forward and back, as published and as it is, each beside the spread it must have."""
    figure, axes = _figure(2, 2, (9.0, 5.4), sharey=True)
    for column, wrong in enumerate((True, False)):
        times = [END * i / STEPS for i in range(STEPS + 1)]
        _paths(axes[0, column], times, forward(PATHS, wrong), forward(MANY, wrong))
        times, few = reverse(PATHS, wrong)
        _paths(axes[1, column], times, few, reverse(MANY, wrong)[1])
        axes[0, column].set(xlim=(0, END), title="as published" if wrong else "as it is")
        axes[1, column].set(xlim=(END, 0), xlabel="time")
    axes[0, 0].set(ylabel="forward", ylim=(-25, 25))
    axes[1, 0].set(ylabel="and back")
    _save(figure, path)


def draw_errors(path: Path, found: dict[str, list[Measured]]) -> None:
    """Error by number of evaluations, samplers without noise on the left, with noise on the right."""
    figure, (left, right) = _figure(1, 2, (10.4, 4.6), sharey=True)
    for axis, names in ((left, [*ORDERS, "ode"]), (right, [*NOISY_ORDERS, "predictor_corrector", "published"])):
        for name in names:
            runs = found[name]
            style = {"color": INK, "linestyle": "--"} if name == "published" else {}
            evaluations, errors = [run.evaluations for run in runs], [run.error for run in runs]
            axis.plot(evaluations, errors, marker="o", markersize=3.5, label=LABELS.get(name, name), **style)
        axis.set(xscale="log", yscale="log", xlabel="evaluations of the score")
        axis.set_xticks([8, 16, 32, 64, 128, 256, 512], [8, 16, 32, 64, 128, 256, 512])
        axis.minorticks_off()
        axis.legend(frameon=False, fontsize=9)
    left.set(ylabel="distance from the exact distribution", title="without noise")
    right.set(title="with noise")
    for axis, order, start in ((left, 1, 0.25), (left, 2, 0.012), (right, 1, 0.5)):
        axis.plot([16, 256], [start, start * 16.0**-order], color=PALE, linewidth=0.8, zorder=0)
        axis.annotate(f"order {order}", (16, start), color=PALE, fontsize=8, ha="right")
    _save(figure, path)


def _paths(axis: Any, times: list[float], few: Tensor, many: Tensor) -> None:
    exact = torch.linspace(0, END, 200)
    axis.plot(times, few, color=BLUE, linewidth=0.6, alpha=0.6)
    axis.fill_between(exact, -2 * exact**0.5, 2 * exact**0.5, color=PALE, alpha=0.3, linewidth=0, label="exact: ± 2 √t")
    spread = 2 * many.std(1)
    for sign in (1, -1):
        axis.plot(times, sign * spread, color=RED, linewidth=1.4, label="found: ± 2 std" if sign == 1 else None)
    axis.legend(frameon=False, fontsize=9, loc="upper left" if times[0] == 0 else "upper right")


def _figure(rows: int, columns: int, size: tuple[float, float], **how: Any) -> Any:
    import matplotlib

    matplotlib.use("Agg")
    import matplotlib.pyplot as plt

    figure, axes = plt.subplots(rows, columns, figsize=size, **how)
    for axis in axes.flat:
        axis.grid(alpha=0.25)
        axis.spines[["top", "right"]].set_visible(False)
    return figure, axes


def _save(figure: Any, path: Path) -> None:
    figure.tight_layout()
    with io.BytesIO() as file:
        figure.savefig(file, format="png", dpi=96, metadata={"Software": None})
        Image.open(file).convert("RGB").quantize(64, dither=Image.Dither.NONE).save(path, optimize=True)


def main(folder: Path = Path(__file__).parent) -> None:
    """Print the tables and write the figures."""
    for wrong in (True, False):
        times, back = reverse(MANY, wrong)
        print(
            "as published" if wrong else "as it is",
            f"variance forward at time {END:g}: {float(forward(MANY, wrong)[-1].var()):.1f};",
            f"back at time {times[-1]:.0f}: {float(back[-1].var()):.2f}",
        )
    print("\n| updates | last factor | noise left, as published | noise left, ours |\n|---|---|---|---|")
    for n, factor, theirs, ours in last_steps():
        print(f"| {n} | {factor:.2f} | {theirs:.3f} | {ours:.3f} |")
    found = curves()
    print("\n| sampler | evaluations: distance |\n|---|---|")
    for name, runs in found.items():
        print(f"| {LABELS.get(name, name)} | {', '.join(f'{run.evaluations}: {run.error:.1e}' for run in runs)} |")
    draw_paths(folder / "one-dimension-paths.png")
    draw_errors(folder / "one-dimension-errors.png", found)


if __name__ == "__main__":
    main()
