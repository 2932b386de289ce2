"""Training adapters: the base stays to the bit, a resumed training is the uninterrupted one, text encoders learn."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from darkroom.config.networks import TextSpec
from darkroom.config.training import Optimization
from darkroom.core.checkpoint import Checkpoints
from darkroom.core.interruption import Interruption
from darkroom.core.rng import seeded
from darkroom.data.conditioning import Conditioning
from darkroom.nn.denoiser.adapted import AdaptedDenoiser
from darkroom.nn.text.clip import CLIPTextModel
from darkroom.training.engine.best import Best
from darkroom.training.engine.ema import EMA
from darkroom.training.engine.loop import Loop
from darkroom.training.previews import LatentView, preview
from darkroom.training.unet import UNetTask
from tests.support import networks
from tests.support.diffusion import make_sampling
from tests.support.settings import optimization
from tests.support.worlds import LENGTH, WIDTH, World, randomise

TARGETS, STEPS = ["to_q", "to_k", "to_v", "to_out.0"], 6


class LostError(Exception):
    """The process is gone."""


def text_encoder() -> CLIPTextModel:
    tokens = {"bos_token_id": 30, "eos_token_id": 31, "pad_token_id": 31}
    spec = TextSpec.model_validate(
        networks.text(32, WIDTH, 32, layers=1, length=LENGTH, special=tokens).model_dump()  # type: ignore[arg-type]
    )
    with seeded(0, "text"):
        network: CLIPTextModel = networks.built(spec)
    return network.requires_grad_(False)


def adapted(world: World, text: CLIPTextModel | None = None) -> AdaptedDenoiser:
    unet = world.unet()
    randomise(unet)
    with seeded(0, "lora"):
        return AdaptedDenoiser(unet, text, TARGETS, 2, 4.0, halved=False)


def ids(of: Conditioning) -> Conditioning:
    """Captions as token ids, (M, L), each of which ends."""
    table = torch.randint(0, 30, (5, LENGTH), generator=torch.Generator().manual_seed(0)).int()
    table[:, -1] = 31
    null = torch.full((LENGTH,), 31)
    return Conditioning(of.info, of.index, table, None).as_ids(null)


def train(task: UNetTask, folder: Path | None, lose_after: int | None = None) -> tuple[dict[str, Any], dict[str, Any]]:
    """The adapters and their average after STEPS; lose_after: the process is lost after so many."""
    config: Optimization = optimization(learning_rate=0.01)
    ema, best = EMA(task.network, 20), Best()

    def hook(step: int, values: Any) -> None:
        best.consider(step, abs(step - 3.5), ema.network)
        if step == lose_after:
            raise LostError

    checkpoints = Checkpoints(folder, {}, 0, 2, Interruption())
    phases = task.phases(config)
    loop = Loop(
        phases,
        ema,
        steps=STEPS,
        batch_size=8,
        description="",
        hooks=[hook],
        checkpoints=checkpoints,
        state={"best": best},
    )
    loop.run()
    return dict(task.network.state_dict()), {**ema.state_dict(), "best": best.step}


def test_adapters_alone_are_trained_and_resume_exactly(world: Callable[[str], World], tmp_path: Path) -> None:
    def task() -> UNetTask:
        here = world("text")
        return here.task(adapted(here))  # type: ignore[arg-type]

    before = {name: p.clone() for name, p in adapted(world("text")).named_parameters()}
    straight_task = task()
    straight = train(straight_task, None)
    for name, p in straight_task.network.named_parameters():
        assert torch.equal(p, before[name]) == (not p.requires_grad), name
    with pytest.raises(LostError):
        train(task(), tmp_path, lose_after=4)
    assert sorted(tmp_path.glob("step_*"))
    size = sum(file.stat().st_size for file in sorted(tmp_path.glob("step_*"))[-1].iterdir())
    assert size < 4 * sum(p.nbytes for p in straight_task.network.parameters())  # no base in it, nor its moments
    resumed = train(task(), tmp_path)
    for found, expected in zip(resumed, straight, strict=True):
        assert found.keys() == expected.keys()
        assert all(torch.equal(torch.as_tensor(found[k]), torch.as_tensor(expected[k])) for k in found)


def test_the_text_encoder_learns_from_token_ids(world: Callable[[str], World]) -> None:
    """With the null condition encoded by the same adapters; fails if states of before were used."""
    here = world("text")
    network = adapted(here, text_encoder())
    task = here.task(network, condition_dropout=0.5)  # type: ignore[arg-type]
    task.data.conditioning = ids(task.data.conditioning)
    held_out = task.validate(network)["held_out/loss"]
    assert task.flops() > 0
    train(task, None)
    moved = [k for k, v in network.state_dict().items() if k.startswith("text_encoder.") and "lora_B" in k and v.any()]
    assert len(moved) == 4
    assert task.validate(network)["held_out/loss"] != held_out


def test_a_preview_shows_the_network_without_its_adapter_too(world: Callable[[str], World]) -> None:
    here = world("text")
    network = adapted(here)
    task, how = here.task(network), make_sampling("ddim", 2, 3.0, "trailing")  # type: ignore[arg-type]
    view = LatentView(lambda latents: latents[:, :3], 0.0, [f"caption {i}" for i in range(24)])
    plain = here.unet()
    randomise(plain)
    first = preview(network, task, view, how, 2, "after 0 steps").grid
    without = preview(plain, task, view, how, 2, "after 0 steps").grid
    assert first.width > without.width
    for value in network.state_dict().values():
        value.fill_(0.3)
    assert preview(network, task, view, how, 2, "after 0 steps").grid.tobytes() != first.tobytes()
