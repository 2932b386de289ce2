"""How a network is trained: the optimiser, its learning rate, how long and how much at once."""

from typing import Annotated, Literal, Self

from pydantic import Field, model_validator

from darkroom.config.base import BatchSize, Count, Precision, Probability, Section, Seed, Whole, check_at_most

Decay = Annotated[float, Field(ge=0, lt=1)]


class _Optimizer(Section):
    kind: Literal["adamw", "muon"]

    learning_rate: Annotated[float, Field(gt=0, le=1)]
    """The highest rate, of both optimisers where there are two. Muon scales its updates to those of AdamW, so that the
    same rates suit both."""

    betas: Annotated[list[Decay], Field(min_length=2, max_length=2)]
    """How slowly AdamW forgets gradients and their squares: two decay factors in [0, 1)."""

    weight_decay: Probability
    """Share of the learning rate by which matrices and kernels shrink each step; biases and norms do not."""

    clip_norm: Annotated[float, Field(gt=0, le=1e6)] | None
    """The gradient's largest L2 norm over all weights; longer ones are shortened to it. null: none are."""


class AdamW(_Optimizer):
    """AdamW for every weight."""

    kind: Literal["adamw"]
    """Loshchilov & Hutter 2019, arXiv:1711.05101; with weight_decay 0 it is Adam."""


class Muon(_Optimizer):
    """Muon for matrices and kernels, AdamW for embeddings, norms and biases."""

    kind: Literal["muon"]
    """Jordan et al. 2024: momentum whose matrices are orthogonalised by Newton-Schulz iterations."""


class _Schedule(Section):
    warmup_steps: Whole
    """Steps in which the rate rises from near 0 to its highest, in equal parts; at most `steps`."""


class Constant(_Schedule):
    """The highest rate after the warm-up, to the end."""

    kind: Literal["constant"]
    """One rate after the warm-up."""


class Cosine(_Schedule):
    """From the highest rate down towards 0, which it would reach one step after the last."""

    kind: Literal["cosine"]
    """Half a cosine from the end of the warm-up to `steps` (Loshchilov & Hutter 2017, arXiv:1608.03983)."""


class Exponential(_Schedule):
    """The rate times max(floor, factor ** decays), in stairs."""

    kind: Literal["exponential"]
    """A decay every so many steps after the warm-up."""

    factor: Annotated[float, Field(gt=0, lt=1)]
    """Of each decay, in (0, 1)."""

    every: Count
    """Steps between two decays."""

    floor: Probability
    """Share of the highest rate that stays however many decays there were."""


class Optimization(Section):
    """How weights are moved."""

    optimizer: Annotated[AdamW | Muon, Field(discriminator="kind")]
    """What turns gradients into updates."""

    lr_schedule: Annotated[Constant | Cosine | Exponential, Field(discriminator="kind")]
    """The learning rate as a function of the step."""


class Training(Optimization):
    """What every trained network has: how long, how much at once, how it is moved."""

    seed: Seed
    """Of initial weights, the order of samples and all noise of this training."""

    precision: Precision
    """Of matrix products and convolutions: bf16 (autocast; weights stay fp32) or fp32."""

    steps: Count
    """Updates of the weights, over which the learning rate runs; the last of them ends the training."""

    stop_at: Count | None
    """The step that ends the training before `steps`, as at the last one, with the learning rate where it then is.
    `darkroom finish` writes it. null: none."""

    batch_size: BatchSize
    """Samples of a step."""

    ema_half_life: Count
    """Samples after which a weight counts half in the average of weights that is kept; shorter at the beginning, so
    that the average does not cling to the initial weights (Karras et al. 2022, arXiv:2206.00364)."""

    on_worse_than_chance: Literal["stop", "warn"]
    """What happens where the training ends no better than without it: end the stage with an error, or say so in its
    summary and metrics."""

    validate_every: Count
    """Steps between two measurements on held-out data; there is one at the end besides."""

    log_every: Count
    """Steps over which logged values are averaged."""

    @model_validator(mode="after")
    def _check_steps(self) -> Self:
        check_at_most("lr_schedule.warmup_steps", self.lr_schedule.warmup_steps, "steps", self.steps)
        if self.stop_at is not None:
            check_at_most("stop_at", self.stop_at, "steps", self.steps)
        return self
