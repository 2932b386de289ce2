"""Batches of one bucket: every sample as often as any other, none dropped, the same at every step whoever asks.

And a training on buckets: resumed in the middle of an epoch it is the uninterrupted one to the bit, any number of
processes see the same batches, and what is compiled sees one shape for each bucket.
"""

from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from darkroom.core.checkpoint import Checkpoints
from darkroom.core.interruption import Interruption
from darkroom.core.rng import batch_indices, generator
from darkroom.data.latents import Latents
from darkroom.data.rows import Rows
from darkroom.training.engine.context import TrainingContext
from darkroom.training.engine.distributed import CPU
from darkroom.training.engine.ema import EMA
from darkroom.training.engine.loop import Loop
from darkroom.training.latent_batches import LatentBatches
from darkroom.training.order import BatchOrder
from darkroom.training.unet import UNetTask
from tests.support.settings import optimization
from tests.support.worlds import World, flat

SIZES = (37, 5, 64, 1, 23)
BATCH, STEPS, LOST = 4, 8, 6
SHAPES = ((10, 4, 6, 10), (7, 4, 8, 8), (7, 4, 10, 6))  # of latents: number, channels, height, width


@pytest.mark.parametrize("batch", [1, 4, 8, 64])
def test_all_samples_of_a_bucket_are_seen_equally_often(batch: int) -> None:
    """Catches a bucket whose last batch is dropped or filled up, and one that comes too often or never."""
    order, epochs = BatchOrder(SIZES, batch, 3), 64
    seen = [torch.zeros(n, dtype=torch.int64) for n in SIZES]
    for step in range(sum(n * epochs // batch for n in SIZES)):
        bucket, samples = order.at(step)
        assert len(samples) == batch
        seen[bucket] += samples.bincount(minlength=SIZES[bucket])
    for counts in seen:
        assert int(counts.max()) - int(counts.min()) <= 1
        assert epochs - batch / len(counts) <= float(counts.float().mean()) <= epochs


def test_a_step_is_a_function_of_its_number() -> None:
    """Catches an order that hangs on the steps before: a resumed run asks for step 1000 first."""
    walked = BatchOrder(SIZES, 8, 0)
    asked = [walked.at(step) for step in range(200)]
    for step in (199, 3, 120, 0):
        bucket, samples = BatchOrder(SIZES, 8, 0).at(step)
        assert bucket == asked[step][0]
        assert torch.equal(samples, asked[step][1])
    buckets = [bucket for bucket, _ in asked]
    assert len({*buckets[:20]}) > 2, "buckets come one after the other"
    assert buckets != [BatchOrder(SIZES, 8, 1).at(step)[0] for step in range(200)]


def test_one_bucket_is_the_walk_that_trainings_without_buckets_take() -> None:
    for step in (0, 7, 31):
        assert torch.equal(BatchOrder([24], 5, 9).at(step)[1], batch_indices(24, 5, step, 9))


class Buckets(World):
    """Latents of three shapes."""

    def latents(self, purpose: str = "train") -> Latents:
        draw = generator(0, "latents", purpose)
        means = [torch.randn(shape, generator=draw).half() for shape in SHAPES]
        return Latents(Rows(means), Rows([torch.full_like(mean, -2.0) for mean in means]), scaling_factor=0.8)


def task(**changes: Any) -> UNetTask:
    made = Buckets("text", TrainingContext(BATCH, 0, "fp32", CPU)).task()
    for name, value in changes.items():
        setattr(made.data, name, value)
    return made


def train(folder: Path, upto: int = STEPS) -> Tensor:
    """Weights and average after so many of STEPS steps."""
    here = task()
    ema = EMA(here.network, 30)

    def hook(step: int, values: Any) -> None:
        if step == upto < STEPS:
            raise InterruptedError

    loop = Loop(
        here.phases(optimization(learning_rate=1e-3)),
        ema,
        steps=STEPS,
        batch_size=BATCH,
        description="buckets",
        accumulation=2,
        hooks=[hook],
        checkpoints=Checkpoints(folder, {}, 0, LOST - 1, Interruption()),
    )
    loop.run()
    return torch.cat([flat(here.network), flat(ema.network)])


def test_a_training_on_buckets_is_resumed_in_the_middle_of_an_epoch(tmp_path: Path) -> None:
    """The second epoch has seven batches here, of which two were taken when the process is lost."""
    assert [sum(n * epochs // BATCH for n, *_ in SHAPES) for epochs in (1, 2)] == [4, 11]
    with pytest.raises(InterruptedError):
        train(tmp_path / "lost", LOST)
    assert torch.equal(train(tmp_path / "lost"), train(tmp_path / "whole"))


def test_processes_see_the_parts_of_one_batch() -> None:
    """Catches numbers that are drawn for the rows asked for, and a bucket chosen by each process for itself."""
    data, draw = task().data, task().objective.draw_times
    for step in range(6):
        whole = data.training_batch(step, slice(0, BATCH), draw)
        parts = [data.training_batch(step, rows, draw) for rows in (slice(0, 1), slice(1, 4))]
        assert {part.variant for part in parts} == {whole.variant}
        for name, values in whole.tensors.items():
            assert torch.equal(torch.cat([part[name] for part in parts]), values), name


def test_what_is_compiled_sees_one_shape_for_each_bucket() -> None:
    """Catches a last batch that is smaller, and sizes that are not those of the buckets."""
    compiled: list[Any] = []

    def backend(graph: Any, inputs: Any) -> Any:
        compiled.append([tuple(x.shape) for x in inputs if isinstance(x, Tensor)])
        return graph.forward

    here = task()
    torch._dynamo.reset()
    with torch.no_grad():
        network: Any = torch.compile(nn.Conv2d(4, 4, 3, padding=1), backend=backend, dynamic=False)
        for step in range(24):
            batch = here.data.training_batch(step, slice(0, BATCH), here.objective.draw_times)
            network(here.data.samples(batch).x0)
    assert len(compiled) == len(SHAPES)


def test_held_out_samples_are_of_every_size_and_the_same_each_time() -> None:
    here = task()
    batches = list(here.data.held_out_batches(here.objective.draw_times))
    assert sum(len(batch["t"]) for batch in batches) == here.data.n_held_out == 20
    assert {batch.variant for batch in batches} == {("validation", bucket) for bucket in range(len(SHAPES))}
    assert here.validate(here.network) == here.validate(here.network)
    assert here.by_chance() > 0
    assert here.flops() > 0
    assert here.data.to_show(5) == [(0, 0), (1, 0), (2, 0), (0, 1), (1, 1)]


def test_sizes_do_not_mix_with_the_captions_of_others() -> None:
    """Catches a number within a bucket that is taken for one among all samples."""
    here: LatentBatches = task().data
    mean = here.train.mean
    for step in range(6):
        bucket, samples = here.order.at(step)
        batch = here.training_batch(step, slice(0, BATCH), lambda n, g: torch.zeros(n))
        first = sum(n for n, *_ in SHAPES[:bucket])
        rows = samples + first
        assert torch.equal(mean[rows], here.train_parts[bucket].latents.mean[samples])
        assert batch.tensors["condition"].tolist() == here.conditioning.rows("train", rows).tolist()  # type: ignore[union-attr]
