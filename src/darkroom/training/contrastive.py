"""Contrastive training of an image tower with a text tower (CLIP, Radford et al. 2021, figure 3).

Used twice, on separate networks: for the text encoder that conditions the U-Net, and for the judge of captioned data.
"""

import math
from collections.abc import Callable, Mapping

import torch
import torch.nn.functional as F
from torch import Tensor

from darkroom.config.text_encoder import HardNegativesConfig
from darkroom.core.checkpoint import Stateful
from darkroom.core.device import autocast
from darkroom.core.rng import batch_indices
from darkroom.core.tensors import batches, to_float
from darkroom.nn.judge.towers import Towers
from darkroom.nn.text.clip import CLIPTextModel
from darkroom.training.engine.batches import Batch, Loss, never
from darkroom.training.engine.context import TrainingContext
from darkroom.training.engine.distributed import ALONE, Processes
from darkroom.training.hard_negatives import HardNegatives

EMBED_BATCH = 256
Images = Callable[[Tensor], Tensor]  # indices (n,) -> uint8 (n, C, H, W)


def contrastive_loss(logits: Tensor, same: Tensor) -> Tensor:
    """The symmetric cross-entropy over a batch of pairs.

    Args:
        logits: (N, N), picture i against caption j.
        same: (N, N) bool, whether captions i and j are equal: all equal captions are right answers, in equal shares, so
            that data with few distinct captions teaches no contradictions.
    """
    target = same / same.sum(dim=1, keepdim=True)
    return 0.5 * (F.cross_entropy(logits, target) + F.cross_entropy(logits.T, target))


class ContrastiveLoss:
    """Pictures and captions of one split.

    Args:
        input_ids: (M, L), the distinct captions. rows: (N,), picture -> its caption.
        hard_negatives: how to fill batches with captions that are easily confused; None: random batches throughout.
    """

    def __init__(
        self,
        towers: Towers,
        images: Images,
        input_ids: Tensor,
        rows: Tensor,
        context: TrainingContext,
        hard_negatives: HardNegativesConfig | None = None,
    ) -> None:
        self.towers, self.images, self.input_ids, self.rows = towers, images, input_ids, rows
        self.context = context
        self.hard_negatives = (
            HardNegatives(hard_negatives, rows, self._embed, context.batch_size, context.seed)
            if hard_negatives
            else None
        )
        waits = self.hard_negatives.due if self.hard_negatives is not None else never
        self.loss = Loss(lambda step, rows: self._pairs(self._batch(step)[rows]), self._loss, waits)

    def _pairs(self, indices: Tensor) -> Batch:
        """Pictures `indices` (n,) and their captions."""
        captions = self.rows[indices]
        return Batch({"images": self.images(indices), "input_ids": self.input_ids[captions], "captions": captions})

    def _loss(self, batch: Batch) -> Mapping[str, Tensor]:
        """The loss of some rows, all processes' together; negatives come from these rows alone."""
        logits, same = self._logits(self.towers, batch, self.context.processes)
        accuracy = torch.gather(same, 1, logits.argmax(dim=1, keepdim=True)).float().mean()
        return {"loss": contrastive_loss(logits, same), "accuracy": accuracy}

    def state(self) -> dict[str, Stateful]:
        """What a checkpoint must hold of it, by name."""
        return {"hard negatives": self.hard_negatives} if self.hard_negatives is not None else {}

    def _batch(self, step: int) -> Tensor:
        hard, s = self.hard_negatives, self.context
        if hard is None or step < hard.config.start_step:
            return batch_indices(len(self.rows), s.batch_size, step, s.seed)
        return hard.batch(step)

    @torch.no_grad()
    def _embed(self, captions: Tensor) -> Tensor:
        """Of these captions (m,), ascending; in the batches of all, so that a caption's digits are always the same."""
        wanted = torch.zeros(len(self.input_ids), dtype=torch.bool)
        wanted[captions] = True
        found = []
        for rows in batches(len(self.input_ids), EMBED_BATCH):
            if not wanted[rows].any():
                continue
            with autocast(self.context.device, self.context.precision):
                pooled = self.towers.text_model(self.input_ids[rows].to(self.context.device)).pooled
            found.append(pooled.float().cpu()[wanted[rows]])
        return torch.cat(found)

    def logits(self, towers: Towers, indices: Tensor, processes: Processes = ALONE) -> tuple[Tensor, Tensor]:
        """Pictures `indices` (n,) against their captions: logits (n, n), and which captions are equal (n, n) bool.

        With several processes, n is the number of all their pictures, and each gives its own.
        """
        return self._logits(towers, self._pairs(indices).to(self.context.device), processes)

    def _logits(self, towers: Towers, batch: Batch, processes: Processes) -> tuple[Tensor, Tensor]:
        with autocast(self.context.device, self.context.precision):
            pictures, texts = towers.embed_images(to_float(batch["images"])), towers.embed_texts(batch["input_ids"])
            logits = towers.compare(processes.gather(pictures), processes.gather(texts))
        captions = processes.gather(batch["captions"])
        return logits.float(), captions[:, None] == captions[None, :]


@torch.no_grad()
def retrieval(task: ContrastiveLoss, towers: Towers) -> dict[str, float]:
    """Held-out loss and accuracy: of batches of pictures in order, how often the best caption in the batch is right."""
    losses, right = [], []
    for indices in batches(len(task.rows), task.context.batch_size):
        logits, same = task.logits(towers, indices)
        losses.append(contrastive_loss(logits, same) * len(indices))
        right.append(torch.gather(same, 1, logits.argmax(dim=1, keepdim=True)).float().sum())
    n = len(task.rows)
    return {"held_out/loss": float(sum(losses)) / n, "held_out/accuracy": float(sum(right)) / n}


def retrieval_by_chance(rows: Tensor, batch_size: int) -> dict[str, float]:
    """What `retrieval` gives for logits that are all equal, ln n for a batch of n, and for guesses: see there.

    Args:
        rows: (N,), picture -> its caption.
    """
    loss = right = 0.0
    for indices in batches(len(rows), batch_size):
        n, captions = len(indices), rows[indices]
        loss += n * math.log(n)
        right += float((captions[:, None] == captions[None, :]).sum()) / n
    return {"held_out/loss": loss / len(rows), "held_out/accuracy": right / len(rows)}


@torch.no_grad()
def embed_captions(encoder: CLIPTextModel, input_ids: Tensor, device: torch.device) -> Tensor:
    """Token ids (M, L) -> what cross-attention reads, (M, L, D) fp16; the same for all shards of EMBED_BATCH times any
    number of captions as for these shards together."""
    states = [encoder(ids.to(device)).last_hidden_state.half().cpu() for ids in torch.split(input_ids, EMBED_BATCH)]
    return torch.cat(states)
