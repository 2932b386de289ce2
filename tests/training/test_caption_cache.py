"""setup_text_encoder.cache: the same conditions whether states are kept or tokens. Each test says which fault it would
catch."""

import shutil
from collections import namedtuple
from collections.abc import Callable
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import pytest
import torch

from darkroom.config.params import Params
from darkroom.config.params import load as params_of
from darkroom.config.text_encoder import TrainedTextEncoder
from darkroom.core.artifact import write_json
from darkroom.core.errors import DarkroomError
from darkroom.core.rng import generator
from darkroom.data import conditioning as conditions
from darkroom.data.conditioning import Conditioning
from darkroom.data.prepared_writer import PreparedWriter, Row
from darkroom.runner.stage import Work
from darkroom.tracking import Run
from darkroom.tracking.note import Account
from darkroom.training import contrastive
from tests.support.worlds import CAPTIONS, LENGTH, WIDTH, World

ROOT = Path(__file__).parents[2]
FP16 = 2.0**-11  # by which rounding to fp16 changes a number, relative to it
Stage = Callable[[str], dict[str, Any]]


def shortened(cache: str) -> Params:
    params = params_of(ROOT / "recipes" / "scenes.yaml")
    p = params.setup_text_encoder
    assert isinstance(p, TrainedTextEncoder)
    text = p.text.model_copy(update={"hidden_size": 16, "num_hidden_layers": 1, "intermediate_size": 16})
    changes = {"cache": cache, "text": text, "steps": 2, "batch_size": 4, "hard_negatives": None, "validate_every": 2}
    return params.model_copy(update={"setup_text_encoder": p.model_copy(update=changes)})


@pytest.fixture
def stage(load: Callable[[Path], ModuleType], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Stage:
    """Runs setup_text_encoder's body, with a cache of this kind, on 25 captions in shards of eight."""
    monkeypatch.chdir(tmp_path)
    writer = PreparedWriter(Path("data/prepared"), "made", (), True, 16, 3)
    for split, n in (("train", 20), ("validation", 5)):
        for i in range(n):
            pixels = np.random.default_rng(i).integers(0, 256, (16, 16, 3), dtype=np.uint8)
            writer.add(split, Row(pixels, f"{i}.png", f"{split} picture {i}", (), ()))
    writer.finish()
    monkeypatch.setattr(contrastive, "EMBED_BATCH", 8)
    module = load(ROOT / "stages" / "setup_text_encoder.py")
    monkeypatch.setattr(module, "SHARD_ROWS", 8)
    monkeypatch.setattr("darkroom.training.caption_shards.SHARD_ROWS", 8)
    work = Work(torch.device("cpu"), Run(Account("setup_text_encoder", {}, {}, {}, {}, "", False), tracked=False))
    return lambda cache: dict(module.body(shortened(cache), work))


@pytest.fixture
def in_use(load: Callable[[Path], ModuleType]) -> Callable[[], Conditioning]:
    """data/conditioning as train_unet reads it."""
    module = load(ROOT / "stages" / "train_unet.py")
    work = Work(torch.device("cpu"), Run(Account("train_unet", {}, {}, {}, {}, "", False), tracked=False))
    return lambda: module._conditioning(params_of(ROOT / "recipes" / "scenes.yaml").train_unet, work)


def test_tokens_give_the_states_that_would_have_been_kept(stage: Stage, in_use: Callable[[], Conditioning]) -> None:
    """Fails if another encoder, another order or other tokens stand behind them: they differ by fp16's rounding."""
    figures = stage("states")
    kept = in_use()
    rows = {split: torch.arange(n) for split, n in (("train", 20), ("validation", 5))}
    states = {split: kept.of_rows(kept.rows(split, r)) for split, r in rows.items()}
    shutil.move("data/conditioning", "data/kept")
    assert len(list(Path("data/kept").glob("embeddings-*"))) == 4
    assert stage("tokens") == figures
    assert len(list(Path("data/conditioning").glob("tokens-*"))) == 4
    made = in_use()
    assert (kept.of_tokens, made.of_tokens) == (False, True)
    assert kept.null is not None
    assert torch.equal(kept.null, made.null)  # type: ignore[arg-type]
    for split, r in rows.items():
        online = made.of_rows(made.rows(split, r))
        torch.testing.assert_close(states[split], online, rtol=2 * FP16, atol=1e-6)
        assert not torch.equal(states[split], online)  # type: ignore[arg-type]


def test_tokens_of_another_encoder_are_refused(stage: Stage, in_use: Callable[[], Conditioning]) -> None:
    """Fails if a training goes on with an encoder that the tokens were not made for."""
    stage("tokens")
    write_json("artifacts/text_encoder/config.json", {})
    with pytest.raises(DarkroomError, match=r"data/conditioning: was made from artifacts/text_encoder .* dvc repro"):
        in_use()


def test_states_that_do_not_fit_are_refused_before_any_work(
    stage: Stage, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Fails if the disk is full after the training, not before it, or the remedy does not work."""
    usage = namedtuple("usage", "total used free")
    states = 25 * 20 * 16 * 2
    monkeypatch.setattr(shutil, "disk_usage", lambda folder: usage(1 << 40, 1 << 40, states - 1))
    with pytest.raises(
        DarkroomError, match=r"needs 15\.6 KiB there .*give setup_text_encoder\.cache: tokens, which tak"
    ):
        stage("states")
    assert not Path("artifacts").exists()
    assert "of 25 captions, states (20 x 16 each) take 15.6 KiB and tokens 1.95 KiB" in capsys.readouterr().err
    stage("tokens")
    assert Path("data/conditioning/tokens-00000.safetensors").is_file()


@pytest.mark.parametrize("precision", ["fp32", "bf16"])
def test_a_training_from_tokens_is_that_from_states(world: Callable[[str], World], precision: Any) -> None:
    """Fails if a step from tokens sees other conditions than one from states. The losses differ by 7e-6 of them in fp32
    and 6e-4 in bf16, of which fp16's rounding of the cache is the cause: where it is not rounded, by nothing."""
    encoder = torch.randn(CAPTIONS, LENGTH, WIDTH, generator=generator(0, "states of captions"))
    task = world("text").task()
    task.context = task.data.context = type(task.context)(8, 0, precision, torch.device("cpu"))
    of_states = task.data.conditioning
    of_tokens = Conditioning(
        of_states.info,
        of_states.index,
        torch.arange(CAPTIONS, dtype=torch.int32)[:, None].expand(-1, LENGTH),
        of_states.null,
        lambda ids: encoder[ids[:, 0].long()],
    )
    losses: dict[str, list[float]] = {}
    for name, used in {
        "tokens": of_tokens,
        "states": Conditioning(of_states.info, of_states.index, encoder.half(), of_states.null),
        "unrounded": Conditioning(of_states.info, of_states.index, encoder, of_states.null),
    }.items():
        task.data.conditioning = used
        losses[name] = [float(task.loss(step, slice(0, 8))["loss"].detach()) for step in range(6)]
    assert losses["tokens"] == losses["unrounded"]
    assert losses["tokens"] == pytest.approx(losses["states"], rel=5e-5 if precision == "fp32" else 5e-3)
    assert conditions.DTYPES["states"] == torch.float16
