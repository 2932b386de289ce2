"""The judges: networks trained on real pictures only, which give alignment its verdict and FID its features.

The judge of captioned pictures is in `towers`.
"""

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from darkroom.core.errors import DarkroomError
from darkroom.nn.image import ConvTower, ConvTowerConfig

ROTATIONS = 4


@dataclass(frozen=True)
class ClassifierConfig(ConvTowerConfig):
    """A ConvTower and one head per attribute; classes: the number of classes of each.

    Raises:
        DarkroomError: no attribute, or one with fewer than two classes.
    """

    classes: tuple[int, ...] = (10,)

    def __post_init__(self) -> None:
        super().__post_init__()
        object.__setattr__(self, "classes", tuple(self.classes))
        if not self.classes or min(self.classes) < 2:
            raise DarkroomError(f"classes = {list(self.classes)}: give each attribute at least two classes")


class Classifier(nn.Module):
    """Reads every attribute of a picture."""

    def __init__(self, config: ClassifierConfig) -> None:
        super().__init__()
        self.config = config
        self.trunk = ConvTower(config)
        self.heads = nn.ModuleList(nn.Linear(self.trunk.out_features, n) for n in config.classes)

    def features(self, images: Tensor) -> Tensor:
        """(N, C, H, W) in [-1, 1] -> (N, out_features), what the heads read and FID compares."""
        return F.silu(self.trunk(images))

    def forward(self, images: Tensor) -> list[Tensor]:
        """(N, C, H, W) in [-1, 1] -> for each attribute its logits (N, classes of it)."""
        x = self.features(images)
        return [head(x) for head in self.heads]


class SelfSupervised(nn.Module):
    """Features for pictures without labels or captions: which way up is it? (Gidaris et al. 2018, arXiv:1803.07728.)

    Needs neither augmentations nor large batches; what it learns, shapes and their arrangement, is what FID is to see.
    """

    def __init__(self, config: ConvTowerConfig) -> None:
        super().__init__()
        self.config = config
        self.trunk = ConvTower(config)
        self.head = nn.Linear(self.trunk.out_features, ROTATIONS)

    def features(self, images: Tensor) -> Tensor:
        """(N, C, H, W) in [-1, 1] -> (N, out_features)."""
        return F.silu(self.trunk(images))

    def forward(self, images: Tensor) -> Tensor:
        """(N, C, H, W) in [-1, 1] -> logits (N, 4) of the quarter turns the picture was given."""
        out: Tensor = self.head(self.features(images))
        return out


def rotated(images: Tensor) -> tuple[Tensor, Tensor]:
    """Square pictures (N, C, S, S) -> all quarter turns (4 N, C, S, S), and how often each is turned (4 N,)."""
    turned = torch.cat([torch.rot90(images, k, dims=(2, 3)) for k in range(ROTATIONS)])
    return turned, torch.arange(ROTATIONS, device=images.device).repeat_interleave(images.shape[0])
