"""A perceptual distance between pictures: differences of VGG16's features (after LPIPS, Zhang et al. 2018)."""

from pathlib import Path

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from darkroom.core.artifact import load_tensors
from darkroom.core.errors import DarkroomError

# Simonyan & Zisserman 2014, configuration D: widths of the convolutions, stage by stage, a pooling between stages.
STAGES = ((64, 64), (128, 128), (256, 256, 256), (512, 512, 512), (512, 512, 512))
MIN_SIDE = 2 ** (len(STAGES) - 1)  # pixels
EPS = 1e-6  # shorter feature vectors are not brought to unit length
IMAGENET_MEAN = (0.485, 0.456, 0.406)  # of pictures in [0, 1], as VGG16 was trained
IMAGENET_STD = (0.229, 0.224, 0.225)


class PerceptualDistance(nn.Module):
    """Mean squared difference of unit-length VGG16 feature vectors, summed over the five stages; frozen.

    LPIPS without its learned weights per channel, which are not in the VGG16 file.
    """

    def __init__(self) -> None:
        super().__init__()
        layers: list[nn.Module] = []
        self.taps: list[int] = []  # the last activation of each stage
        channels = 3
        for i, widths in enumerate(STAGES):
            layers += [nn.MaxPool2d(2)] if i else []
            for width in widths:
                layers += [nn.Conv2d(channels, width, 3, padding=1), nn.ReLU()]
                channels = width
            self.taps.append(len(layers) - 1)
        self.features = nn.Sequential(*layers)
        self.register_buffer("mean", torch.tensor(IMAGENET_MEAN).view(1, 3, 1, 1), persistent=False)
        self.register_buffer("std", torch.tensor(IMAGENET_STD).view(1, 3, 1, 1), persistent=False)
        self.requires_grad_(False)

    def forward(self, a: Tensor, b: Tensor) -> Tensor:
        """Pictures (N, 1 or 3, H, W) in [-1, 1], sides of at least 16 -> distances (N,); grey is repeated thrice.

        Raises:
            DarkroomError: the pictures are smaller than VGG16's stages need.
        """
        if min(a.shape[2:]) < MIN_SIDE:
            raise DarkroomError(
                f"the perceptual term needs pictures of {MIN_SIDE} pixels a side; these have {a.shape[2:]}"
            )
        total = a.new_zeros(a.shape[0])
        for x, y in zip(self._stages(a), self._stages(b), strict=True):
            total = total + (F.normalize(x, eps=EPS) - F.normalize(y, eps=EPS)).square().sum(dim=1).mean(dim=(1, 2))
        return total

    def _stages(self, images: Tensor) -> list[Tensor]:
        mean, std = self.get_buffer("mean"), self.get_buffer("std")
        x = ((images + 1) / 2 - mean) / std  # one channel becomes three by broadcasting
        found = []
        for i, layer in enumerate(self.features):
            x = layer(x)
            if i in self.taps:
                found.append(x)
        return found


def load_perceptual(path: Path | str) -> PerceptualDistance:
    """The distance with torchvision's VGG16 weights from `path` (.safetensors, or .pth read without pickled code).

    Raises:
        DarkroomError: the file is missing, unreadable, or holds no VGG16.
    """
    path = Path(path)
    if path.suffix == ".safetensors":
        weights = load_tensors(path)
    else:
        try:
            weights = torch.load(path, map_location="cpu", weights_only=True)
        except FileNotFoundError:
            raise DarkroomError(f"{path}: no such file; give the path of torchvision's VGG16 weights") from None
        except Exception as error:  # torch.load raises many kinds for a file that is not one of its own
            reason = str(error).splitlines()[0].split(". ")[0]  # what follows advises to run what is in the file
            raise DarkroomError(f"{path}: not a readable weights file ({reason}); give VGG16 as .safetensors") from None
    distance = PerceptualDistance()
    try:
        distance.load_state_dict({key: value for key, value in weights.items() if key.startswith("features.")})
    except (RuntimeError, AttributeError):
        raise DarkroomError(f"{path}: these are not torchvision's VGG16 weights (features.0.weight, …)") from None
    return distance
