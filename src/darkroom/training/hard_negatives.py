"""Batches of pictures whose captions are easily confused.

In a random batch, knowing which words a caption holds is enough to find its picture, so a contrastive text encoder
learns no more: not which thing is left, not which colour belongs to which shape (Yuksekgonul et al. 2023,
arXiv:2210.01936). Among captions that the encoder itself holds for alike, only those details tell them apart.
"""

from collections.abc import Callable, Mapping
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F

from darkroom.config.text_encoder import HardNegativesConfig
from darkroom.core.rng import batch_indices, generator
from darkroom.core.tensors import batches

SEARCH_BATCH = 1000
MAX_SEARCHED = 20_000  # pictures among which alike ones are sought: the search takes the square of it


class HardNegatives:
    """Draws the batches.

    Args:
        rows: (N,), picture -> its caption. embed: distinct captions (m,) in ascending order -> embeddings (m, D).
    """

    def __init__(
        self, config: HardNegativesConfig, rows: Tensor, embed: Callable[[Tensor], Tensor], batch_size: int, seed: int
    ) -> None:
        self.config, self.rows, self.embed = config, rows, embed
        self.batch_size, self.seed = batch_size, seed
        self._pictures = self._nearest = torch.empty(0, dtype=torch.int64)
        self._searched: int | None = None  # the step before which it was done last

    def due(self, step: int) -> bool:
        """Whether the neighbours are to be sought before step `step`."""
        since = step - self.config.start_step
        return since >= 0 and since % self.config.every == 0

    def search(self, step: int) -> None:
        """Find the neighbours by the cosine of the present embeddings."""
        self._searched = step
        shuffled = torch.randperm(len(self.rows), generator=generator(self.seed, "hard negatives", step))
        self._pictures = shuffled[:MAX_SEARCHED]
        captions = self.rows[self._pictures]
        distinct, row = torch.unique(captions, return_inverse=True)
        self._nearest = nearest(self.embed(distinct)[row], captions, self.config.neighbours)

    def state_dict(self) -> Mapping[str, Any]:
        """The neighbours that were found: they depend on the weights of that time."""
        return {"pictures": self._pictures, "nearest": self._nearest}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Resume from `state_dict`."""
        self._pictures, self._nearest = state["pictures"], state["nearest"]

    def batch(self, step: int) -> Tensor:
        """The pictures (batch_size,) of step `step`, groups one after the other; searches first where that is due."""
        if self.due(step) and self._searched != step:
            self.search(step)
        c = self.config
        anchors = batch_indices(len(self._pictures), self.batch_size // c.group_size, step, self.seed)
        scores = torch.rand(len(anchors), self._nearest.shape[1], generator=generator(self.seed, "groups", step))
        others = self._nearest[anchors].gather(1, scores.argsort(dim=1)[:, : c.group_size - 1])
        return self._pictures[torch.cat([anchors[:, None], others], dim=1)].flatten()


def nearest(embeddings: Tensor, captions: Tensor, k: int) -> Tensor:
    """The k of another caption with the largest cosine, (n, min(k, n)) int64; those of the same caption come last.

    Args:
        embeddings: (n, D). captions: (n,), equal numbers for equal captions.
    """
    unit = F.normalize(embeddings.float(), dim=1)
    found = []
    for rows in batches(len(unit), SEARCH_BATCH):
        cosines = unit[rows] @ unit.T
        cosines[captions[rows][:, None] == captions[None, :]] = -torch.inf
        found.append(cosines.topk(min(k, len(unit)), dim=1).indices.cpu())
    return torch.cat(found)
