"""The training of the KL autoencoder, for `fit`."""

from collections.abc import Mapping

from darkroom.config.autoencoder import TrainedVAE
from darkroom.config.buckets import Size
from darkroom.config.networks import PictureSizes
from darkroom.config.training import Optimization
from darkroom.core.device import channels_last, runtime
from darkroom.core.rng import seeded
from darkroom.data.prepared import PreparedSplit
from darkroom.nn.autoencoder.discriminator import PatchDiscriminator
from darkroom.nn.autoencoder.perceptual import load_perceptual
from darkroom.nn.autoencoder.vae import AutoencoderKL
from darkroom.nn.layers.recompute import checkpoint_activations
from darkroom.training.autoencoder import VAELoss, VAELosses, mean_colour_psnr, validate
from darkroom.training.engine.blank import reconstructed
from darkroom.training.engine.chance import Reached
from darkroom.training.engine.context import TrainingContext
from darkroom.training.engine.phase import Phase
from darkroom.training.engine.task import Task
from darkroom.training.engine.throughput import TRAINING, flops


class VAETask(Task[AutoencoderKL]):
    """The autoencoder and, where the parameters say so, a discriminator, both with initial weights."""

    stage = description = "train_vae"

    def __init__(
        self, config: TrainedVAE, train: PreparedSplit, held_out: PreparedSplit, context: TrainingContext
    ) -> None:
        self.context, self.adversarial = context, config.adversarial
        self.train, self.held_out = train, held_out
        channels = train.info.channels
        sizes = PictureSizes(in_channels=channels)
        with seeded(config.seed, "vae"):
            self.network = channels_last(AutoencoderKL(config.autoencoder, sizes).to(context.device))
            self.network.shift_logvar(config.initial_logvar)
            loss = _loss(config, channels, context)
        checkpoint_activations(self.network, runtime().checkpoint_activations)
        self.losses = VAELosses(self.network, loss, train.images, train.runs, context)
        # A GAN trades the held-out loss for likeness: there the last weights count.
        self.best_by = "held_out/l1" if config.adversarial is None else None

    def phases(self, config: Optimization) -> list[Phase]:
        """See `Task`."""
        phases = [Phase("", self.network, config, self.losses.loss)]
        if self.adversarial is not None and (critic := self.losses.terms.discriminator) is not None:
            start = self.adversarial.start_step
            phases.append(Phase("discriminator", critic, self.adversarial, self.losses.discriminator_loss, start))
        return phases

    def validate(self, network: AutoencoderKL) -> dict[str, float]:
        """See `Task`."""
        runs = self.held_out.runs
        return validate(network, self.held_out.images, runs, self.context.batch_size, self.context.device)

    def reached(self, network: AutoencoderKL, held_out: Mapping[str, float]) -> list[Reached]:
        """See `Task`."""
        chance = mean_colour_psnr(self.held_out.images, self.held_out.runs, self.context.batch_size)
        return [Reached("held_out/psnr", held_out["held_out/psnr"], chance, "each picture's mean colour", True)]

    def flops(self) -> float:
        """See `Task`; once all terms of the loss count."""
        sizes = zip(self.train.sizes, self.train.runs, strict=True)
        return sum(len(rows) * self._flops(size) for size, rows in sizes) / len(self.train)

    def _flops(self, sides: Size) -> float:
        """Of a picture of this height and width."""
        loss, size = self.losses.terms, (self.train.info.channels, *sides)
        forward = flops(self.network, lambda: reconstructed(self.network, 1, size))
        total, x = float(TRAINING * forward), next(self.network.parameters()).new_zeros(1, *size)
        if (perceptual := loss.perceptual) is not None:  # of two pictures, and back to one of them
            total += 1.5 * flops(perceptual, lambda: perceptual(x, x))
        if (critic := loss.discriminator) is not None:  # of one in the autoencoder's turn, then of it and a real one
            total += forward + 3 * TRAINING * flops(critic, lambda: critic(x))
        return total


def _loss(config: TrainedVAE, channels: int, context: TrainingContext) -> VAELoss:
    perceptual, adversarial = config.perceptual, config.adversarial
    distance = load_perceptual(perceptual.weights).to(context.device) if perceptual is not None else None
    critic = None
    if adversarial is not None:
        critic = PatchDiscriminator(adversarial.discriminator, channels).to(context.device)
    return VAELoss(
        config.reconstruction,
        config.kl_weight,
        perceptual=distance,
        perceptual_weight=perceptual.weight if perceptual is not None else 0.0,
        discriminator=critic,
        adversarial_weight=adversarial.weight if adversarial is not None else 0.0,
        adversarial_start=adversarial.start_step if adversarial is not None else 0,
    )
