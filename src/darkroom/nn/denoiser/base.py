"""What every network that denoises has in common, so that training and drawing need not know which one it is."""

from abc import ABC, abstractmethod
from typing import NamedTuple, Protocol, Self, cast

from torch import Tensor, cat, nn

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


class Shape(Protocol):
    """in_channels: of the noisy latents, and of the prediction."""

    @property
    def in_channels(self) -> int: ...


class DenoisingNetwork(nn.Module, ABC):
    """Noisy latents, a time and a condition -> a prediction of their shape (of what, is not its business).

    config: a dataclass that rebuilds the network, see `kinds`.
    """

    config: Shape

    @property
    @abstractmethod
    def multiple(self) -> int:
        """What the sides of its latents must be divisible by."""

    @property
    def fixed_side(self) -> int | None:
        """The one side its latents may have; None: any that `multiple` divides."""
        return None

    @property
    def takes_text(self) -> bool:
        """Whether it is told text embeddings."""
        return False

    @property
    def takes_classes(self) -> bool:
        """Whether it is told class labels."""
        return False

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
        for what, takes, given in (
            ("text embeddings", self.takes_text, context is not None),
            ("class labels", self.takes_classes, class_labels is not None),
        ):
            if takes != given:
                wanted, found = ("needs", "none are") if takes else ("takes no", "they are")
                raise DarkroomError(f"{type(self).__name__} {wanted} {what}, but {found} given")

    def _check(self, sample: Tensor, context: Context | None, class_labels: Tensor | None) -> None:
        """Refuse sides and conditions that the network does not take."""
        self.check_condition(context, class_labels)
        name, (height, width) = type(self).__name__, sample.shape[2:]
        if self.fixed_side not in (None, height) or self.fixed_side not in (None, width):
            raise DarkroomError(f"{name} takes {self.fixed_side} x {self.fixed_side} alone, not {width} x {height}")
        if height % self.multiple or width % self.multiple:
            raise DarkroomError(f"{name} takes sides divisible by {self.multiple}, not {width} x {height}")


class FixedShape(Shape, Protocol):
    """sample_size: the side of the pictures."""

    @property
    def sample_size(self) -> int: ...


class FixedSideNetwork(DenoisingNetwork):
    """A network made for pictures of one side."""

    config: FixedShape

    @property
    def multiple(self) -> int:
        """The only side there is."""
        return self.config.sample_size

    @property
    def fixed_side(self) -> int:
        """The side of the pictures it was made for."""
        return self.config.sample_size
