"""The judges: networks trained on real pictures only, which give alignment its verdict and FID its features.

The judge of captioned pictures is in `towers`.
"""

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from darkroom.core.errors import DarkroomError
from darkroom.nn.judge.conv_tower import ConvTower, ConvTowerConfig

ROTATIONS = 4
JUDGES = ("a", "b")  # in the order of the halves of the data that each is trained on
ABSENT = -1  # the label of an attribute that a picture does not have


@dataclass(frozen=True)
class ClassifierConfig(ConvTowerConfig):
    """A ConvTower and one head per attribute.

    classes: the number of classes of each attribute. absent: whether pictures may lack it; such a head has one class
    more, "absent", so that a thing too many is read as well as one too few.

    Raises:
        DarkroomError: no attribute, one with fewer than two classes, or another number of `absent`.
    """

    classes: tuple[int, ...] = (10,)
    absent: tuple[bool, ...] = ()

    def __post_init__(self) -> None:
        super().__post_init__()
        object.__setattr__(self, "classes", tuple(self.classes))
        object.__setattr__(self, "absent", tuple(self.absent) or (False,) * len(self.classes))
        if not self.classes or min(self.classes) < 2:
            raise DarkroomError(f"classes = {list(self.classes)}: give each attribute at least two classes")
        if len(self.absent) != len(self.classes):
            raise DarkroomError(f"absent = {list(self.absent)}: say it of each of {len(self.classes)} attributes")


class Classifier(nn.Module):
    """Reads every attribute of a picture."""

    def __init__(self, config: ClassifierConfig) -> None:
        super().__init__()
        self.config = config
        self.trunk = ConvTower(config)
        self.heads = nn.ModuleList(
            nn.Linear(self.trunk.out_features, n + absent)
            for n, absent in zip(config.classes, config.absent, strict=True)
        )

    def features(self, images: Tensor) -> Tensor:
        """(N, C, H, W) in [-1, 1] -> (N, out_features), what the heads read and FID compares."""
        return F.silu(self.trunk(images))

    def forward(self, images: Tensor) -> list[Tensor]:
        """(N, C, H, W) in [-1, 1] -> for each attribute its logits (N, classes of it, and absence where it may be)."""
        x = self.features(images)
        return [head(x) for head in self.heads]

    def read(self, images: Tensor) -> Tensor:
        """(N, C, H, W) in [-1, 1] -> the class seen of each attribute (N, H), ABSENT where it is not there."""
        seen = torch.stack([logits.argmax(dim=1) for logits in self(images)], dim=1)
        return torch.where(seen == torch.tensor(self.config.classes, device=seen.device), ABSENT, seen)

    def targets(self, labels: Tensor) -> Tensor:
        """Labels (N, H), ABSENT where there is nothing to read -> what the heads are to say; ABSENT: no matter what."""
        classes, absent = (torch.tensor(x, device=labels.device) for x in (self.config.classes, self.config.absent))
        return torch.where((labels < 0) & absent, classes, labels)


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
