"""Training adapters: the base stays to the bit, a resumed training is the uninterrupted one, text encoders learn."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch.utils.flop_counter import FlopCounterMode

from darkroom.config.denoisers import DenoiserSizes, DenoiserSpec
from darkroom.config.networks import TextSpec
from darkroom.config.params import load
from darkroom.config.training import Optimization
from darkroom.core.checkpoint import Checkpoints
from darkroom.core.interruption import Interruption
from darkroom.core.rng import seeded
from darkroom.data.conditioning import Conditioning
from darkroom.diffusion.generate import sampling_levels
from darkroom.nn.denoiser.adapted import AdaptedDenoiser
from darkroom.nn.text.clip import CLIPTextModel
from darkroom.runner.stage import Work
from darkroom.tracking import Run
from darkroom.tracking.note import Account
from darkroom.training.engine.best import Best
from darkroom.training.engine.blank import denoised
from darkroom.training.engine.distributed import Processes
from darkroom.training.engine.ema import EMA
from darkroom.training.engine.loop import Loop
from darkroom.training.previews import LatentView, _by_size, _sampled, _sampled_without, preview
from darkroom.training.unet import UNetTask
from darkroom.view.trace import Trace
from tests.support import networks
from tests.support.diffusion import make_sampling
from tests.support.loading import load_script
from tests.support.networks import built
from tests.support.projects import ROOT
from tests.support.settings import optimization
from tests.support.worlds import LENGTH, SHAPE, WIDTH, World, randomise

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
    frozen = sum(p.nbytes for p in straight_task.network.parameters() if not p.requires_grad)
    assert size < frozen / 2, "the base is in the checkpoint, or its moments are"
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
    (group,) = _by_size(task.data, 2)
    levels = sampling_levels(how, task.objective.process, task.objective.prediction_type)
    with torch.no_grad():
        shown = _sampled_without(network, task, how, levels, group)
        expected, with_it = (_sampled(of, task, how, levels, group, Trace([], 0)) for of in (plain, network))
    assert torch.equal(shown, expected)
    assert not torch.allclose(with_it, expected, atol=0.1), "the adapter changes nothing: nothing is shown by this"


def test_what_is_frozen_has_no_gradients_of_weights_in_the_count(world: Callable[[str], World]) -> None:
    """Two passes and not three, but for the adapters themselves; fails if all weights are taken for trained."""
    here = world("text")
    network = adapted(here)
    task = here.task(network)  # type: ignore[arg-type]
    found = task.flops()
    with FlopCounterMode(display=False) as counted:
        denoised(network, 1, SHAPE, (LENGTH, WIDTH)).square().sum().backward()
    assert 0.8 * found <= counted.get_total_flops() <= found
    assert found < 0.8 * here.task().flops()


def test_a_network_with_adapters_is_made_where_it_computes(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, world: Callable[[str], World]
) -> None:
    """It is divided among no processes, so nothing would move it from the CPU, where networks that are begin: as it was
    under DARKROOM_STRATEGY=fsdp2."""
    monkeypatch.chdir(tmp_path)
    stage, p = load_script(ROOT / "stages" / "train_unet.py"), load(ROOT / "recipes" / "sd15-lora-tiny.yaml").train_unet
    device, asked = torch.device("meta"), []

    def read(folder: Path, config: Any, sizes: Any, device: torch.device, *trained_for: Any) -> Any:
        asked.append(device)
        return built(DenoiserSpec(network=config, sizes=sizes)).to(device)

    def text(folder: Path, device: torch.device, precision: str) -> Any:
        asked.append(device)
        return text_encoder().to(device)

    monkeypatch.setattr(stage, "read_pretrained_unet", read)
    monkeypatch.setattr(stage, "read_text_encoder_to_adapt", text)
    run, several = (
        Run(Account("train_unet", {}, {}, {}, {}, "", False), tracked=False),
        Processes(0, 2, device, "fsdp2"),
    )
    sizes = DenoiserSizes(in_channels=4, sample_size=8, cross_attention_dim=WIDTH, num_classes=None)
    lora = p.lora.model_copy(update={"text_encoder": True})  # type: ignore[union-attr]
    network = stage._network(p.model_copy(update={"lora": lora}), sizes, Work(device, run, processes=several))
    assert asked == [device, device]
    assert {parameter.device for parameter in network.parameters()} == {device}
