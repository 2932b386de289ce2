"""Which samples each step takes, where those of a batch must be of one size.

Samples lie in buckets, one for each size, and each bucket is an endless walk: every sample once per pass, in an order
reshuffled each pass. In an epoch a bucket gives as many batches as its samples fill, counting those left over from the
epochs before; the batches of an epoch come in an order of their own. So every batch is full and of one size, none is
dropped or filled up, and in the long run every sample is seen equally often: what does not fill a batch goes first in
the bucket's next one. All is a pure function of (sizes, batch size, step, seed): nothing to save for a resumed run, and
the same for any number of processes.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from darkroom.core.rng import batch_indices, generator


@dataclass(frozen=True)
class BatchOrder:
    """sizes: how many samples each bucket has, at least one; of one bucket, the walk is `batch_indices` itself."""

    sizes: Sequence[int]
    batch_size: int
    seed: int

    def at(self, step: int) -> tuple[int, Tensor]:
        """The bucket of a step, and which of its samples, (batch_size,) int64."""
        if len(self.sizes) == 1:
            return 0, batch_indices(self.sizes[0], self.batch_size, step, self.seed)
        epoch = self._epoch(step)
        before, behind = torch.tensor(self._batches(epoch)), torch.tensor(self._batches(epoch + 1))
        buckets = torch.arange(len(self.sizes)).repeat_interleave(behind - before)
        buckets = buckets[torch.randperm(len(buckets), generator=generator(self.seed, "buckets", epoch))]
        position = step - int(before.sum())
        bucket = int(buckets[position])
        number = int(before[bucket]) + int((buckets[:position] == bucket).sum())
        return bucket, batch_indices(self.sizes[bucket], self.batch_size, number, self.seed, f"order of {bucket}")

    def _batches(self, epoch: int) -> list[int]:
        """How many batches each bucket has given before an epoch."""
        return [n * epoch // self.batch_size for n in self.sizes]

    def _epoch(self, step: int) -> int:
        """The epoch that a step is in."""
        epoch = step * self.batch_size // sum(self.sizes)  # whole batches are fewer, so it is not behind the step's
        while sum(self._batches(epoch + 1)) <= step:
            epoch += 1
        return epoch
