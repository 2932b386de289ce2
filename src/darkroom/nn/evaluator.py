"""The judges: networks trained on real pictures only, which give alignment its verdict and FID its features."""

import math
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from darkroom.core.errors import DarkroomError
from darkroom.nn.image import ConvTower, ConvTowerConfig
from darkroom.nn.text import CLIPTextConfig, CLIPTextModel

END = 0  # word id that ends a caption and fills the rest of its row
ROTATIONS = 4
MAX_LOGIT_SCALE = 100.0


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


@dataclass(frozen=True)
class TowersConfig(ConvTowerConfig):
    """A ConvTower beside a small text encoder over word ids 0 (the end), 1, … vocabulary_size - 1.

    max_words: longest caption, its end included. dim: width of the text encoder and of the shared space.
    """

    vocabulary_size: int = 1000
    max_words: int = 32
    dim: int = 128
    text_layers: int = 2
    text_heads: int = 4


class Towers(nn.Module):
    """Judges whether a caption belongs to a picture (contrastive, as in CLIP), in words and weights of its own."""

    def __init__(self, config: TowersConfig) -> None:
        super().__init__()
        self.config = config
        self.trunk = ConvTower(config)
        self.image_projection = nn.Linear(self.trunk.out_features, config.dim, bias=False)
        self.text = CLIPTextModel(
            CLIPTextConfig(
                vocab_size=config.vocabulary_size,
                hidden_size=config.dim,
                intermediate_size=4 * config.dim,
                num_hidden_layers=config.text_layers,
                num_attention_heads=config.text_heads,
                max_position_embeddings=config.max_words,
                hidden_act="gelu",
                bos_token_id=END,
                eos_token_id=END,
                pad_token_id=END,
            )
        )
        self.log_scale = nn.Parameter(torch.tensor(math.log(1 / 0.07)))

    @property
    def logit_scale(self) -> Tensor:
        """What cosines are multiplied with before the softmax: learned, at most 100 (Radford et al. 2021, 2.5)."""
        return self.log_scale.exp().clamp(max=MAX_LOGIT_SCALE)

    def features(self, images: Tensor) -> Tensor:
        """(N, C, H, W) in [-1, 1] -> (N, out_features), for FID."""
        return F.silu(self.trunk(images))

    def embed_images(self, images: Tensor) -> Tensor:
        """(N, C, H, W) in [-1, 1] -> unit vectors (N, dim)."""
        return F.normalize(self.image_projection(self.features(images)), dim=-1)

    def embed_texts(self, word_ids: Tensor) -> Tensor:
        """(N, L) int64, L up to max_words, every row ended and filled with zeros -> unit vectors (N, dim)."""
        return F.normalize(self.text(word_ids).pooled, dim=-1)

    def forward(self, images: Tensor, word_ids: Tensor) -> Tensor:
        """Logits (N, M) of N pictures against M captions."""
        return self.logit_scale * self.embed_images(images) @ self.embed_texts(word_ids).T


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
