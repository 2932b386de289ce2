"""The judges: networks trained on real pictures only, which give alignment its verdict and FID its features.

The judge of captioned pictures is in `towers`.
"""

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from darkroom.config.networks import ClassifierSizes, ConvTowerConfig, PictureSizes
from darkroom.nn.judge.conv_tower import ConvTower

ROTATIONS = 4
JUDGES = ("a", "b")  # in the order of the halves of the data that each is trained on
ABSENT = -1  # the label of an attribute that a picture does not have
MANY, NEAREST = (
    100,
    10,
)  # of an attribute with so many classes it is also told whether the right one is among the nearest


class Classifier(nn.Module):
    """Reads every attribute of a picture."""

    def __init__(self, config: ConvTowerConfig, sizes: ClassifierSizes) -> None:
        super().__init__()
        self.config, self.sizes = config, sizes
        self.trunk = ConvTower(config, sizes.in_channels)
        self.heads = nn.ModuleList(
            nn.Linear(self.trunk.out_features, n + absent)
            for n, absent in zip(sizes.classes, sizes.absent, strict=True)
        )

    def features(self, images: Tensor) -> Tensor:
        """(N, C, H, W) in [-1, 1] -> (N, out_features), what the heads read and FID compares."""
        return F.silu(self.trunk(images))

    def forward(self, images: Tensor) -> list[Tensor]:
        """(N, C, H, W) in [-1, 1] -> for each attribute its logits (N, classes of it, and absence where it may be)."""
        # fmt: off
        x = self.features(images)                  # (N, out_features)
        return [head(x) for head in self.heads]    # each (N, classes of the attribute, + 1 where it may be absent)
        # fmt: on

    def read(self, images: Tensor) -> Tensor:
        """(N, C, H, W) in [-1, 1] -> the class seen of each attribute (N, H), ABSENT where it is not there."""
        return self._seen(self(images))

    def _seen(self, logits: list[Tensor]) -> Tensor:
        # fmt: off
        seen = torch.stack([values.argmax(dim=1) for values in logits], dim=1)         # (N, H)
        classes = torch.tensor(self.sizes.classes, device=seen.device)                 # (H,)
        return torch.where(seen == classes, ABSENT, seen)                              # (N, H)
        # fmt: on

    def nearest(self, images: Tensor) -> Tensor:
        """(N, C, H, W) in [-1, 1] -> (N, H, 1 + NEAREST): what `read` sees, and the likeliest classes; of an attribute
        with fewer of them that one class again."""
        logits = self(images)
        seen = self._seen(logits)
        likeliest = [values.topk(min(NEAREST, values.shape[1]), dim=1).indices for values in logits]
        return torch.stack(
            [
                torch.cat([one[:, None].expand(-1, 1 + NEAREST - found.shape[1]), found], dim=1)
                for one, found in zip(seen.unbind(1), likeliest, strict=True)
            ],
            dim=1,
        )

    def targets(self, labels: Tensor) -> Tensor:
        """Labels (N, H), ABSENT where there is nothing to read -> what the heads are to say; ABSENT: no matter what."""
        classes, absent = (torch.tensor(x, device=labels.device) for x in (self.sizes.classes, self.sizes.absent))
        return torch.where((labels < 0) & absent, classes, labels)


def many(classes: Sequence[int]) -> list[int]:
    """Which attributes, of these numbers of classes, have many."""
    return [i for i, n in enumerate(classes) if n >= MANY]


def commonest(labels: Tensor) -> Tensor:
    """The NEAREST classes that labels (N,) have most often; where they have fewer, the commonest again."""
    classes, counts = torch.unique(labels[labels >= 0], return_counts=True)
    if not len(classes):
        return torch.full((NEAREST,), ABSENT)
    found = classes[counts.argsort(descending=True, stable=True)[:NEAREST]]
    return torch.cat([found, found[:1].expand(NEAREST - len(found))])


class SelfSupervised(nn.Module):
    """Features for pictures without labels or captions: which way up is it? (Gidaris et al. 2018, arXiv:1803.07728.)

    Needs neither augmentations nor large batches; what it learns, shapes and their arrangement, is what FID is to see.
    """

    def __init__(self, config: ConvTowerConfig, sizes: PictureSizes) -> None:
        super().__init__()
        self.config, self.sizes = config, sizes
        self.trunk = ConvTower(config, sizes.in_channels)
        self.head = nn.Linear(self.trunk.out_features, ROTATIONS)

    def features(self, images: Tensor) -> Tensor:
        """(N, C, H, W) in [-1, 1] -> (N, out_features)."""
        return F.silu(self.trunk(images))

    def forward(self, images: Tensor) -> Tensor:
        """(N, C, H, W) in [-1, 1] -> logits (N, 4) of the quarter turns the picture was given."""
        # fmt: off
        x = self.features(images)         # (N, out_features)
        out: Tensor = self.head(x)        # (N, 4)
        return out
        # fmt: on


def rotated(images: Tensor) -> tuple[Tensor, Tensor]:
    """Square pictures (N, C, S, S) -> all quarter turns (4 N, C, S, S), and how often each is turned (4 N,)."""
    turned = torch.cat([torch.rot90(images, k, dims=(2, 3)) for k in range(ROTATIONS)])
    return turned, torch.arange(ROTATIONS, device=images.device).repeat_interleave(images.shape[0])
