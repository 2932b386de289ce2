"""Training the KL autoencoder (Rombach et al. 2022, section 3.1 and appendix G)."""

from collections import deque
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from darkroom.config.base import Precision
from darkroom.core.ahead import in_thread
from darkroom.core.device import autocast
from darkroom.core.progress import Progress
from darkroom.core.rng import randn_rows
from darkroom.core.tasks import Helpers
from darkroom.core.tensors import batches, count_rows, psnr, to_float, to_uint8
from darkroom.nn.autoencoder.identity import Autoencoder
from darkroom.nn.autoencoder.packed_vae import quick
from darkroom.nn.autoencoder.vae import AutoencoderKL, Moments
from darkroom.training.engine.batches import Batch, Loss
from darkroom.training.engine.context import TrainingContext
from darkroom.training.order import BatchOrder

Images = Callable[[Tensor], Tensor]  # indices (n,) -> uint8 (n, C, H, W)
Extent = int | Sequence[range]  # so many pictures of one size, or the indices of those of each size
MAX_ADAPTIVE_WEIGHT = 1e4
READ_AHEAD, IN_FLIGHT = 4, 2  # batches read before they are needed; batches whose moments are not waited for


def kl_divergence(moments: Moments) -> Tensor:
    """KL(q || N(0, I)) per sample (N,), averaged over the latent's elements, in nats."""
    mean, logvar = moments
    return 0.5 * (mean.square() + logvar.exp() - 1 - logvar).mean(dim=(1, 2, 3))


@dataclass(frozen=True)
class VAELoss:
    """reconstruction + kl_weight * KL + perceptual_weight * perceptual distance + adaptive adversarial term.

    reconstruction: "l1" or "l2", mean over pixels in [-1, 1].
    kl_weight: of the KL divergence per latent element.
    perceptual: (x, y) -> distance (N,), or None.
    discriminator: images -> patch logits, or None; its term counts from `adversarial_start` on.
    """

    reconstruction: Literal["l1", "l2"]
    kl_weight: float
    perceptual: nn.Module | None = None
    perceptual_weight: float = 0.0
    discriminator: nn.Module | None = None
    adversarial_weight: float = 0.0
    adversarial_start: int = 0


class VAELosses:
    """Losses of the autoencoder and, where there is one, of its discriminator; see `VAELoss`. Batches are of one
    size."""

    def __init__(
        self,
        vae: AutoencoderKL,
        loss: VAELoss,
        images: Images,
        n_images: Extent,
        context: TrainingContext,
    ) -> None:
        self.vae, self.terms = vae, loss
        self.images, self.context = images, context
        self.runs = [range(n_images)] if isinstance(n_images, int) else n_images
        self.order = BatchOrder([len(run) for run in self.runs], context.batch_size, context.seed)
        self.loss = Loss(self._inputs, self._loss)
        self.discriminator_loss = Loss(self._inputs, self._discriminator_loss)

    def _inputs(self, step: int, rows: slice) -> Batch:
        """Pictures, and noise for their posteriors; the variant is whether there is an adversarial term."""
        s = self.context
        bucket, chosen = self.order.at(step)
        images = self.images(chosen[rows] + self.runs[bucket].start)
        sides = (side // self.vae.downscale for side in images.shape[2:])
        eps = randn_rows(rows, (self.vae.config.latent_channels, *sides), s.seed, "posterior", step)
        adversarial = self.terms.discriminator is not None and step >= self.terms.adversarial_start
        return Batch({"images": images, "eps": eps}, adversarial)

    def _reconstruct(self, batch: Batch) -> tuple[Tensor, Tensor, Moments]:
        """(pictures, reconstructions, posterior) of a batch."""
        x = to_float(batch["images"])
        with autocast(self.context.device, self.context.precision):
            moments = self.vae.encode(x)
            moments = Moments(moments.mean.float(), moments.logvar.float())
            y = self.vae.decode(moments.sample(batch["eps"])).float()
        return x, y, moments

    def _loss(self, batch: Batch) -> Mapping[str, Tensor]:
        """The autoencoder's loss and its terms."""
        loss = self.terms
        x, y, moments = self._reconstruct(batch)
        reconstruction = F.l1_loss(y, x) if loss.reconstruction == "l1" else F.mse_loss(y, x)
        kl = kl_divergence(moments).mean()
        values = {"reconstruction": reconstruction, "kl": kl}
        likeness = reconstruction
        if loss.perceptual is not None:
            values["perceptual"] = loss.perceptual(y, x).mean()
            likeness = likeness + loss.perceptual_weight * values["perceptual"]
        total = likeness + loss.kl_weight * kl
        if loss.discriminator is not None and batch.variant:
            loss.discriminator.requires_grad_(False)  # it has a turn of its own, and of several processes a reducer
            adversarial = -loss.discriminator(y).mean()
            loss.discriminator.requires_grad_(True)
            weight = loss.adversarial_weight * self._adaptive_weight(likeness, adversarial, len(x))
            total = total + weight * adversarial
            values |= {"adversarial": adversarial, "adversarial_weight": weight}
        return {"loss": total, **values}

    def _adaptive_weight(self, likeness: Tensor, adversarial: Tensor, rows: int) -> Tensor:
        """The ratio of the two terms' gradients at the decoder's last layer (Esser et al. 2021, eq. 7).

        Both are those of all processes' rows; the terms are means over `rows` of them.
        """
        last, processes = self.vae.last_layer, self.context.processes
        g_likeness = torch.autograd.grad(likeness, last, retain_graph=True)[0]
        g_adversarial = torch.autograd.grad(adversarial, last, retain_graph=True)[0]
        norms = [processes.mean(gradient, rows).norm() for gradient in (g_likeness, g_adversarial)]
        ratio: Tensor = norms[0] / (norms[1] + 1e-6)
        return ratio.clamp(max=MAX_ADAPTIVE_WEIGHT).detach()

    def _discriminator_loss(self, batch: Batch) -> Mapping[str, Tensor]:
        """The hinge loss of the discriminator (Lim & Ye 2017): real patches above 1, reconstructed ones below -1."""
        assert self.terms.discriminator is not None
        with torch.no_grad():
            x, y, _ = self._reconstruct(batch)
        real, fake = self.terms.discriminator(x), self.terms.discriminator(y)
        loss = 0.5 * (F.relu(1 - real).mean() + F.relu(1 + fake).mean())
        return {"loss": loss}


@torch.no_grad()
def validate(
    vae: Autoencoder, images: Images, n_images: Extent, batch_size: int, device: torch.device
) -> dict[str, float]:
    """Held-out L1 and PSNR (dB; from the mean squared error of all pictures, peak 2) decoding the posterior's mean."""
    absolute = squared = 0.0
    for rows in batches(n_images, batch_size):
        x = to_float(images(rows)).to(device)
        y = vae.decode(vae.encode(x).mean).clamp(-1, 1)
        absolute += float((y - x).abs().mean(dim=(1, 2, 3)).sum())
        squared += float((y - x).square().mean(dim=(1, 2, 3)).sum())
    n = count_rows(n_images)
    return {"held_out/l1": absolute / n, "held_out/psnr": psnr(squared / n)}


def mean_colour_psnr(images: Images, n_images: Extent, batch_size: int) -> float:
    """What `validate` gives as PSNR (dB) where each picture is reconstructed as its mean colour throughout."""
    squared = 0.0
    for rows in batches(n_images, batch_size):
        x = to_float(images(rows))
        squared += float((x - x.mean(dim=(2, 3), keepdim=True)).square().mean(dim=(1, 2, 3)).sum())
    return psnr(squared / count_rows(n_images))


@torch.no_grad()
def comparison(vae: Autoencoder, x: Tensor, device: torch.device) -> Tensor:
    """Pictures uint8 (N, C, H, W), each followed by its reconstruction: uint8 (2 N, C, H, W)."""
    y = to_uint8(vae.decode(vae.encode(to_float(x).to(device)).mean)).cpu()
    return torch.stack([x, y], dim=1).flatten(0, 1)


@torch.no_grad()
def encode(
    vae: Autoencoder,
    images: Images,
    n_images: int,
    batch_size: int,
    precision: Precision,
    device: torch.device,
    description: str,
) -> Moments:
    """The posterior moments of all pictures, fp16, in order."""
    with Progress(n_images, description, "image") as bar:
        return encode_batches(vae, images, batches(n_images, batch_size), precision, device, bar)


@torch.no_grad()
def encode_batches(
    vae: Autoencoder,
    images: Images,
    rows: Iterable[Tensor],
    precision: Precision,
    device: torch.device,
    bar: Progress,
) -> Moments:
    """The posterior moments of batches of pictures, fp16, in order; rows: (n,) int64 each.

    For CUDA a thread reads pictures ahead, unless others do, and both they and the moments are copied while others are
    computed.
    """
    network, landing = quick(vae, device, precision), _Landing()
    on_cuda = device.type == "cuda"

    def read(chosen: Tensor) -> Tensor:
        return images(chosen).pin_memory() if on_cuda else images(chosen)

    if Helpers.read_ahead is not None:
        read_pictures = Helpers.read_ahead(images, rows)
    else:
        read_pictures = in_thread(read, rows, READ_AHEAD) if on_cuda else map(read, rows)
    for x in read_pictures:
        pictures = to_float(x.to(device, non_blocking=True)) if on_cuda else to_float(x).to(device)
        with autocast(device, precision):
            moments = network.encode(pictures)
        landing.add(*moments)
        bar.update(len(x))
    return landing.all()


class _Landing:
    """Moments on their way to the CPU, where they are fp16; of a CUDA device the last ones may still be computed."""

    def __init__(self) -> None:
        self._landed: list[tuple[Tensor, Tensor]] = []
        self._coming: deque[tuple[Any, tuple[Tensor, Tensor]]] = deque()

    def add(self, mean: Tensor, logvar: Tensor) -> None:
        """Behind those before."""
        on_cuda = mean.device.type == "cuda"
        halves = mean.half().contiguous(), logvar.half().contiguous()
        sent = halves[0].to("cpu", non_blocking=on_cuda), halves[1].to("cpu", non_blocking=on_cuda)
        if not on_cuda:
            self._landed.append(sent)
            return
        event: Any = torch.cuda.Event()  # type: ignore[no-untyped-call]
        event.record()
        self._coming.append((event, sent))
        while len(self._coming) > IN_FLIGHT:
            self._land()

    def all(self) -> Moments:
        """All that were added, in order."""
        while self._coming:
            self._land()
        means, logvars = zip(*self._landed, strict=True)
        return Moments(torch.cat(means), torch.cat(logvars))

    def _land(self) -> None:
        event, (mean, logvar) = self._coming.popleft()
        event.synchronize()
        self._landed.append((mean.clone(), logvar.clone()))  # out of the memory that copies go to, which is scarce
