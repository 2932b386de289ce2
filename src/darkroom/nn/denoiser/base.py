"""What every network that denoises has in common, so that training and drawing need not know which one it is."""

import importlib
from abc import ABC, abstractmethod
from typing import NamedTuple, Protocol, Self, cast

from torch import Tensor, cat, nn

from darkroom.config.denoisers import DenoiserConfig, DenoiserSizes
from darkroom.core.device import channels_last
from darkroom.core.errors import DarkroomError
from darkroom.nn.layers.attention import KeysValues

Context = list[KeysValues]


class Prepared(NamedTuple):
    """A condition as a network keeps it for many calls: what `forward` takes after the time."""

    context: Context | None
    class_labels: Tensor | None


class Condition(Protocol):
    """What each of N samples is asked to show, in plain tensors; see diffusion.denoiser.Condition."""

    @property
    def tokens(self) -> Tensor | None:
        """(M, L, D)."""

    @property
    def mask(self) -> Tensor | None:
        """(M, L)."""

    @property
    def rows(self) -> Tensor | None:
        """(N,), of `tokens`."""

    @property
    def class_ids(self) -> Tensor | None:
        """(N,)."""


class DenoisingNetwork(nn.Module, ABC):
    """Noisy latents, a time and a condition -> a prediction of their shape (of what, is not its business).

    Raises:
        ValueError: sizes that go with no network of this config; names the key.
    """

    config: DenoiserConfig

    def __init__(self, config: DenoiserConfig, sizes: DenoiserSizes) -> None:
        super().__init__()
        config.check_sizes(sizes)
        self.config, self.sizes = config, sizes

    @property
    def fixed_side(self) -> int | None:
        """The one side its latents may have; None: any that `multiple` divides."""
        return self.sizes.sample_size if self.config.fixed_side else None

    @property
    def multiple(self) -> int:
        """What the sides of its latents must be divisible by."""
        return self.fixed_side or self.config.multiple

    @property
    def takes_text(self) -> bool:
        """Whether its condition has text embeddings."""
        return self.sizes.cross_attention_dim is not None

    @property
    def takes_classes(self) -> bool:
        """Whether its condition has class labels."""
        return self.sizes.num_classes is not None

    def stored(self) -> Self:
        """Itself, with its kernels stored in the order that it computes fastest with."""
        return channels_last(self)

    def prepare(self, *conditions: Condition) -> Prepared:
        """What the network keeps of the samples of conditions, one after the other, for many calls.

        Keys and values are computed once for texts that are one tensor in several conditions.

        Raises:
            DarkroomError: a condition is of a kind that this network does not take.
        """
        tables: dict[int, Context] = {}
        contexts: list[Context] = []
        for condition in conditions:
            if condition.mask is not None:
                raise DarkroomError(f"{type(self).__name__} attends to all tokens; use a text encoder without a mask")
            if (tokens := condition.tokens) is not None:
                if id(tokens) not in tables:
                    tables[id(tokens)] = self.prepare_context(tokens)
                context, rows = tables[id(tokens)], condition.rows
                contexts.append(context if rows is None else [(k[rows], v[rows]) for k, v in context])
        ids = [condition.class_ids for condition in conditions if condition.class_ids is not None]
        if len(conditions) == 1:
            return Prepared(contexts[0] if contexts else None, ids[0] if ids else None)
        joined = [tuple(map(cat, zip(*pairs, strict=True))) for pairs in zip(*contexts, strict=True)]
        return Prepared(cast(Context, joined) if contexts else None, cat(ids) if ids else None)

    def prepare_context(self, encoder_hidden_states: Tensor) -> Context:
        """The keys and values of text embeddings (N, L, D), once for many calls.

        Raises:
            DarkroomError: the network has no text condition.
        """
        raise DarkroomError(f"{type(self).__name__} takes no text embeddings; use setup_text_encoder.kind none")

    @abstractmethod
    def forward(
        self, sample: Tensor, timestep: Tensor, context: Context | None = None, class_labels: Tensor | None = None
    ) -> Tensor:
        """One prediction.

        Args:
            sample: (N, in_channels, h, w).
            timestep: (N,), fractions allowed: the time of a discrete process, 1000 t of a continuous one with t in
                [0, 1].
            context: from `prepare_context`, of batch N; for networks with a text condition, and only for them.
            class_labels: (N,) integers, the null class behind the last one; for networks with classes, and only for
                them.

        Returns:
            (N, in_channels, h, w).

        Raises:
            DarkroomError: sides it does not take; a condition is missing, or is one it does not take.
        """

    def check_condition(self, context: Context | None, class_labels: Tensor | None) -> None:
        """Refuse a condition that is missing, or that this network does not take.

        Raises:
            DarkroomError: names the network and the condition.
        """
        for what, takes, found in (
            ("text embeddings", self.takes_text, context is not None),
            ("class labels", self.takes_classes, class_labels is not None),
        ):
            if takes != found:
                wanted, there = ("needs", "none are") if takes else ("takes no", "they are")
                raise DarkroomError(f"{type(self).__name__} {wanted} {what}, but {there} given")

    def _check(self, sample: Tensor, context: Context | None, class_labels: Tensor | None) -> None:
        """Refuse sides and conditions that the network does not take."""
        self.check_condition(context, class_labels)
        name, (height, width) = type(self).__name__, sample.shape[2:]
        if self.fixed_side not in (None, height) or self.fixed_side not in (None, width):
            raise DarkroomError(f"{name} takes {self.fixed_side} x {self.fixed_side} alone, not {width} x {height}")
        if height % self.multiple or width % self.multiple:
            raise DarkroomError(f"{name} takes sides divisible by {self.multiple}, not {width} x {height}")


def build(config: DenoiserConfig, sizes: DenoiserSizes) -> DenoisingNetwork:
    """The network of a config; its initial weights come from PyTorch's global generator.

    Raises:
        ValueError: see `DenoisingNetwork`.
    """
    module, _, name = config.network.partition(":")
    network: DenoisingNetwork = getattr(importlib.import_module(module), name)(config, sizes)
    return network
