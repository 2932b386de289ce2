"""An image tower and a text tower that meet in one space (CLIP, Radford et al. 2021, section 2.3)."""

import math

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from darkroom.config.networks import TowersConfig, TowersSizes
from darkroom.nn.judge.conv_tower import GRID, ConvGrid
from darkroom.nn.text.clip import CLIPTextModel

MAX_LOGIT_SCALE = 100.0
CELL_WIDTH = 32  # length of the embedding of each of the grid's cells


class Towers(nn.Module):
    """Says how well captions go with pictures.

    A picture's embedding is a grid of cells, each made from its own place by the same projection; a caption's is
    projected into all cells at once. So the picture's side cannot give up where things are; the text has to learn it.
    """

    def __init__(self, config: TowersConfig, sizes: TowersSizes) -> None:
        super().__init__()
        self.config, self.sizes = config, sizes
        self.trunk = ConvGrid(config.image, sizes.in_channels)
        self.image_projection = nn.Conv2d(self.trunk.out_channels, CELL_WIDTH, 1, bias=False)
        self.text_model = CLIPTextModel(config.text, sizes.tokens)
        self.text_projection = nn.Linear(config.text.hidden_size, CELL_WIDTH * GRID * GRID, bias=False)
        self.log_scale = nn.Parameter(torch.tensor(math.log(1 / 0.07)))

    @property
    def logit_scale(self) -> Tensor:
        """What cosines are multiplied with before the softmax: learned, at most 100 (Radford et al. 2021, 2.5)."""
        return self.log_scale.exp().clamp(max=MAX_LOGIT_SCALE)

    def features(self, images: Tensor) -> Tensor:
        """(N, C, H, W) in [-1, 1] -> (N, features), the mean over the grid, for FID."""
        # fmt: off
        grid = self.trunk(images)                 # (N, features, 4, 4)
        out: Tensor = grid.mean(dim=(2, 3))       # (N, features)
        return out
        # fmt: on

    def embed_images(self, images: Tensor) -> Tensor:
        """(N, C, H, W) in [-1, 1] -> unit vectors (N, CELL_WIDTH * GRID * GRID)."""
        # fmt: off
        grid = self.trunk(images)                 # (N, features, GRID, GRID)
        cells = self.image_projection(grid)       # (N, CELL_WIDTH, GRID, GRID)
        return F.normalize(cells.flatten(1), dim=-1)
        # fmt: on

    def embed_texts(self, input_ids: Tensor) -> Tensor:
        """(N, L) int64 -> unit vectors (N, CELL_WIDTH * GRID * GRID)."""
        # fmt: off
        pooled = self.text_model(input_ids).pooled   # (N, hidden_size)
        cells = self.text_projection(pooled)         # (N, CELL_WIDTH * GRID * GRID)
        return F.normalize(cells, dim=-1)
        # fmt: on

    def compare(self, images: Tensor, texts: Tensor) -> Tensor:
        """Embeddings (N, D) of pictures and (M, D) of captions -> logits (N, M)."""
        return self.logit_scale * images @ texts.T
