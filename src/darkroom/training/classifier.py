"""Training the judges that read labels, or, where there are none, the picture's orientation."""

from collections.abc import Callable, Mapping, Sequence

import torch
import torch.nn.functional as F
from torch import Tensor

from darkroom.core.device import autocast
from darkroom.core.rng import batch_indices, generator, randn_rows
from darkroom.core.tensors import batches, to_float
from darkroom.nn.judge.classifier import ABSENT, NEAREST, Classifier, SelfSupervised, commonest, many, rotated
from darkroom.training.engine.batches import Batch, Loss
from darkroom.training.engine.context import TrainingContext

Images = Callable[[Tensor], Tensor]  # indices (n,) -> uint8 (n, C, H, W)
MAX_SHIFT = 2  # pixels
ROTATIONS_BY_CHANCE = 1 / 4
MAX_NOISE = 0.1  # standard deviation, in units of [-1, 1]


def augmented(x: Tensor, rows: slice, batch_size: int, seed: int, step: int) -> Tensor:
    """Pictures (n, C, H, W) shifted by up to MAX_SHIFT pixels, the border repeated, with a little noise.

    A judge of generated pictures must not lean on pixel-exact details of the real ones.

    Args:
        rows: which of the step's `batch_size` pictures these n are.
    """
    draw = generator(seed, "augment", step)
    *_, h, w = shape = tuple(x.shape[1:])
    dy, dx = torch.randint(0, 2 * MAX_SHIFT + 1, (2, batch_size), generator=draw)[:, rows]
    strength = torch.rand(batch_size, 1, 1, 1, generator=draw)[rows] * MAX_NOISE
    ys = (torch.arange(h)[None] + dy[:, None] - MAX_SHIFT).clamp(0, h - 1)
    xs = (torch.arange(w)[None] + dx[:, None] - MAX_SHIFT).clamp(0, w - 1)
    x = x.take_along_dim(ys[:, None, :, None], 2).take_along_dim(xs[:, None, None, :], 3)
    return x + randn_rows(rows, shape, seed, "augment", step) * strength


def label_losses(logits: list[Tensor], labels: Tensor) -> Tensor:
    """The cross-entropy (N,) summed over the attributes; labels (N, H), ABSENT where nothing is to be learnt."""
    losses = [
        F.cross_entropy(values.float(), labels[:, i], ignore_index=ABSENT, reduction="none")
        for i, values in enumerate(logits)
    ]
    return torch.stack(losses, dim=1).sum(dim=1)


class LabelLoss:
    """Pictures and their labels (N, H) int64, ABSENT where a picture does not have the attribute."""

    def __init__(
        self,
        network: Classifier,
        images: Images,
        labels: Tensor,
        context: TrainingContext,
    ) -> None:
        self.network, self.images, self.labels = network, images, network.targets(labels)
        self.context = context
        self.loss = Loss(self._inputs, self._loss)

    def _inputs(self, step: int, rows: slice) -> Batch:
        s = self.context
        indices = batch_indices(len(self.labels), s.batch_size, step, s.seed)[rows]
        x = augmented(to_float(self.images(indices)), rows, s.batch_size, s.seed, step)
        return Batch({"x": x, "labels": self.labels[indices]})

    def _loss(self, batch: Batch) -> Mapping[str, Tensor]:
        with autocast(self.context.device, self.context.precision):
            logits = self.network(batch["x"])
        return {"loss": label_losses(logits, batch["labels"]).mean()}


@torch.no_grad()
def label_accuracy(
    network: Classifier, images: Images, labels: Tensor, names: list[str], batch_size: int, device: torch.device
) -> dict[str, float]:
    """{attribute: share of the pictures in which it is read right}.

    Of an attribute that may be absent all pictures count, of another those that have it; an attribute that none of the
    pictures has is left out. Of one with many classes also the share in which the right one is among the nearest.
    """
    among = many(network.sizes.classes)
    read = network.nearest if among else network.read
    seen = torch.cat([read(to_float(images(rows)).to(device)).cpu() for rows in batches(len(labels), batch_size)])
    counts = network.targets(labels) >= 0
    right = (seen[:, :, 0] if among else seen) == labels
    found = {name: float(right[counts[:, i], i].float().mean()) for i, name in enumerate(names) if counts[:, i].any()}
    for i in among:
        near = (seen[:, i] == labels[:, i, None]).any(dim=1)[counts[:, i]]
        if len(near):
            found[_among(names[i])] = float(near.float().mean())
    return found


def _among(name: str) -> str:
    return f"{name} among {NEAREST}"


def labels_by_chance(train: Tensor, labels: Tensor, names: list[str], classes: Sequence[int] = ()) -> dict[str, float]:
    """{attribute: how often `label_accuracy` finds right what always answers with the commonest training labels}.

    Args:
        train, labels: `Classifier.targets` of (N, H) and (M, H) labels, -1 where there is nothing to read.
        classes: how many each attribute has; of those with many, the nearest are asked for too.
    """
    found = {}
    for i, name in enumerate(names):
        seen, asked = (values[values >= 0] for values in (train[:, i], labels[:, i]))
        if len(seen) and len(asked):
            found[name] = float((asked == seen.mode().values).float().mean())
            if i in many(classes):
                found[_among(name)] = float((asked[:, None] == commonest(seen)).any(dim=1).float().mean())
    return found


class RotationLoss:
    """Pictures without labels: the network learns to tell by how many quarter turns one was rotated."""

    def __init__(
        self,
        network: SelfSupervised,
        images: Images,
        n_images: int,
        context: TrainingContext,
    ) -> None:
        self.network, self.images, self.n_images = network, images, n_images
        self.context = context
        self.loss = Loss(self._inputs, self._loss)

    def _inputs(self, step: int, rows: slice) -> Batch:
        s = self.context
        indices = batch_indices(self.n_images, s.batch_size, step, s.seed)[rows]
        return Batch({"x": augmented(to_float(self.images(indices)), rows, s.batch_size, s.seed, step)})

    def _loss(self, batch: Batch) -> Mapping[str, Tensor]:
        """The mean loss over the four turns of a batch."""
        turned, turns = rotated(batch["x"])
        with autocast(self.context.device, self.context.precision):
            logits = self.network(turned)
        return {"loss": F.cross_entropy(logits.float(), turns)}


@torch.no_grad()
def rotation_accuracy(
    network: SelfSupervised, images: Images, n_images: int, batch_size: int, device: torch.device
) -> float:
    """The share of all quarter turns of all pictures that is told right."""
    right = 0
    for rows in batches(n_images, batch_size):
        turned, turns = rotated(to_float(images(rows)).to(device))
        right += int((network(turned).argmax(dim=1) == turns).sum())
    return right / (4 * n_images)
