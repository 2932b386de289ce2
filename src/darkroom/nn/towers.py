"""An image tower and a text tower that meet in one space (CLIP, Radford et al. 2021, section 2.3)."""

import math

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from darkroom.nn.image import ConvTower, ConvTowerConfig
from darkroom.nn.text import CLIPTextConfig, CLIPTextModel

MAX_LOGIT_SCALE = 100.0


class Towers(nn.Module):
    """Says how well captions go with pictures.

    The space is the text encoder's own, of width hidden_size; only pictures are projected into it.
    """

    def __init__(self, image: ConvTowerConfig, text: CLIPTextConfig) -> None:
        super().__init__()
        self.trunk = ConvTower(image)
        self.image_projection = nn.Linear(self.trunk.out_features, text.hidden_size, bias=False)
        self.text_model = CLIPTextModel(text)
        self.log_scale = nn.Parameter(torch.tensor(math.log(1 / 0.07)))

    @property
    def logit_scale(self) -> Tensor:
        """What cosines are multiplied with before the softmax: learned, at most 100 (Radford et al. 2021, 2.5)."""
        return self.log_scale.exp().clamp(max=MAX_LOGIT_SCALE)

    def features(self, images: Tensor) -> Tensor:
        """(N, C, H, W) in [-1, 1] -> (N, features), for FID."""
        return F.silu(self.trunk(images))

    def embed_images(self, images: Tensor) -> Tensor:
        """(N, C, H, W) in [-1, 1] -> unit vectors (N, hidden_size)."""
        return F.normalize(self.image_projection(self.features(images)), dim=-1)

    def embed_texts(self, input_ids: Tensor) -> Tensor:
        """(N, L) int64 -> unit vectors (N, hidden_size)."""
        return F.normalize(self.text_model(input_ids).pooled, dim=-1)

    def forward(self, images: Tensor, input_ids: Tensor) -> Tensor:
        """Logits (N, M) of N pictures against M captions."""
        return self.logit_scale * self.embed_images(images) @ self.embed_texts(input_ids).T
