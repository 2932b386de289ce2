"""Which latent channels carry the picture, and which have collapsed to noise that the denoiser learns in vain."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from darkroom.core.tensors import batches
from darkroom.data.rows import Rows

DEAD = 0.1  # a channel with less signal than this is dead
AT_ONCE = 1024  # latents that are read together


@dataclass(frozen=True)
class Channels:
    """What an autoencoder makes of its latent channels, counted from 0.

    signal: of each channel Var(mean) / (Var(mean) + mean posterior variance): the share of its variance that depends on
        the picture, over pictures and positions. 0 where the posterior is the same for all, 1 where it is a point.
    kl: of each channel KL(q || N(0, I)) in nats per latent element, mean over pictures and positions.
    """

    signal: tuple[float, ...]
    kl: tuple[float, ...]

    @classmethod
    def of(cls, mean: Tensor | Rows, logvar: Tensor | Rows) -> "Channels":
        """Measure the posteriors (N, c, h, w) of N pictures, some at a time; rows may differ in height and width."""
        by_shape = ([part for _, part in Rows.of(of).by_shape()] for of in (mean, logvar))
        tables = list(zip(*by_shape, strict=True))
        positions = sum(len(part) * part.shape[-2] * part.shape[-1] for part, _ in tables)
        c = tables[0][0].shape[0]
        sums = {name: torch.zeros(c, dtype=torch.float64) for name in ("mean", "square", "variance", "logvar")}
        for part, other in tables:
            for rows in batches(len(part), AT_ONCE):
                means, logvars = part[rows].double(), other[rows].double()
                values = {"mean": means, "square": means.square(), "variance": logvars.exp(), "logvar": logvars}
                for name, value in values.items():
                    sums[name] += value.sum(dim=(0, 2, 3)).cpu()
        average = {name: total / positions for name, total in sums.items()}
        of_means = (average["square"] - average["mean"].square()).clamp(min=0)
        signal: Tensor = of_means / (of_means + average["variance"])
        kl: Tensor = 0.5 * (average["square"] + average["variance"] - 1 - average["logvar"])
        return cls(tuple(signal.tolist()), tuple(kl.tolist()))

    @property
    def dead(self) -> list[int]:
        """The channels that carry next to nothing of the picture."""
        return [channel for channel, signal in enumerate(self.signal) if signal < DEAD]

    def as_json(self) -> dict[str, Any]:
        """The figures as metrics.json holds them."""
        width = len(str(len(self.signal) - 1))

        def by_channel(values: tuple[float, ...]) -> dict[str, float]:
            return {f"{channel:0{width}d}": value for channel, value in enumerate(values)}

        return {
            "dead_latent_channels": len(self.dead),
            "latent_channels": len(self.signal),
            "channel_signal": by_channel(self.signal),
            "channel_kl": by_channel(self.kl),
        }

    def metrics(self) -> Mapping[str, float]:
        """The one figure by which runs are compared."""
        return {"dead_latent_channels": float(len(self.dead))}

    def summary(self, pretrained: bool) -> Mapping[str, str]:
        """A line for the stage's summary; pretrained: the autoencoder was not trained here."""
        said = f"{len(self.dead)} of {len(self.signal)}"
        if self.dead:
            remedy = (
                "the autoencoder came like this; the denoiser spends a share of its work on noise"
                if pretrained
                else "lower train_vae.kl_weight or train_vae.latent_channels"
            )
            said += f" ({', '.join(map(str, self.dead))}): {remedy}"
        return {"dead latent channels": said}
