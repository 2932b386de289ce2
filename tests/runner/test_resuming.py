"""How long a stage's checkpoints lie, and what tells one training from another."""

import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch
import yaml

from darkroom.core.artifact import content_hash, save_tensors
from darkroom.core.errors import DarkroomError
from darkroom.core.interruption import GRACE
from darkroom.runner.lock import exclusive
from darkroom.runner.resuming import FOLDER, clear_recorded, fingerprint, mark_done

BASE = ("train_unet", "python stages/train_unet.py", {"train_unet": {"steps": 3}}, {"data": "a"}, {"src/a.py": "b"})


@pytest.mark.parametrize(
    ("position", "other"),
    [
        (0, "train_vae"),
        (1, "python -O stages/train_unet.py"),
        (2, {"train_unet": {"steps": 4}}),
        (3, {"data": "c"}),
        (3, {}),
        (4, {"src/a.py": "c"}),
        (4, {"src/b.py": "b"}),
    ],
)
def test_whatever_may_change_the_result_is_another_training(position: int, other: object) -> None:
    changed = [*BASE[:position], other, *BASE[position + 1 :]]
    assert fingerprint(*changed) != fingerprint(*BASE)  # type: ignore[arg-type]
    assert fingerprint(*BASE) == fingerprint(*BASE)


def test_another_network_to_begin_with_is_another_training(tmp_path: Path) -> None:
    """Adapters of one base were resumed on another that had taken its place: DVC knows the path alone."""
    base = tmp_path / "unet"
    base.mkdir()
    (base / "weights").write_text("one")
    params = {"train_unet": {"init_from": str(base)}}

    def now() -> str:
        return fingerprint(*BASE[:2], params, *BASE[3:])

    first = now()
    assert now() == first
    (base / "weights").write_text("another")
    assert now() != first
    (base / "weights").write_text("one")
    assert now() == first


@pytest.fixture
def trained(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A finished training's checkpoints; its output is there, and not yet in dvc.lock."""
    monkeypatch.chdir(tmp_path)
    training = tmp_path / FOLDER / "train_unet" / "fingerprint"
    (training / "step_000000001").mkdir(parents=True)
    Path("weights").write_text("trained")
    mark_done(training, [Path("weights")])
    return training


def lock(digest: str) -> None:
    outs = [{"path": "weights", "hash": "md5", "md5": digest, "size": 7}]
    Path("dvc.lock").write_text(yaml.safe_dump({"schema": "2.0", "stages": {"train_unet": {"outs": outs}}}))


def test_checkpoints_lie_until_dvc_has_recorded_what_was_made_of_them(trained: Path, tmp_path: Path) -> None:
    clear_recorded(tmp_path)
    assert trained.exists()
    lock("of an earlier training")
    clear_recorded(tmp_path)
    assert trained.exists()
    lock(content_hash("weights"))
    clear_recorded(tmp_path)
    assert not trained.exists()


@pytest.mark.parametrize("text", ["", "[", "stages: 3", "\x00"])
def test_a_damaged_lock_file_is_left_to_dvc(trained: Path, tmp_path: Path, text: str) -> None:
    Path("dvc.lock").write_text(text)
    clear_recorded(tmp_path)
    assert trained.exists()


def test_an_unfinished_training_keeps_its_checkpoints(trained: Path, tmp_path: Path) -> None:
    lock(content_hash("weights"))
    other = trained.with_name("other")
    (other / "step_000000001").mkdir(parents=True)
    clear_recorded(tmp_path)
    assert other.exists()


def test_two_do_not_write_the_same_outputs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("darkroom.runner.lock.WAIT", 0.1)
    with (
        exclusive("train_vae", tmp_path / "vae.lock"),
        pytest.raises(DarkroomError, match="another run of train_vae works in this folder"),
        exclusive("train_vae", tmp_path / "vae.lock"),
    ):
        pass
    with exclusive("train_vae", tmp_path / "vae.lock"):
        pass


SLOW = """
import time
from collections.abc import Mapping
from pathlib import Path

import torch

from darkroom.core.checkpoint import Checkpoints
from darkroom.core.interruption import Interruption, Interrupted
from darkroom.config.params import load
from darkroom.training.engine.ema import EMA
from darkroom.training.engine.loop import Loop, Loss, Phase

interruption = Interruption()
interruption.listen()
network = torch.nn.Linear(1, 1)

def loss(step: int, rows: slice) -> Mapping[str, torch.Tensor]:
    Path("started").touch()
    time.sleep({seconds})
    return {{"loss": network(torch.ones(1, 1)).square().mean()}}

config = load({recipe!r}).train_unet
checkpoints = Checkpoints(Path("training"), {{}}, 0, 0, interruption)
try:
    Loop([Phase("", network, config, Loss.of(loss))], EMA(network, 1), steps=1000, batch_size=1,
         description="slow", checkpoints=checkpoints).run()
except Interrupted as end:
    print(end.number, time.monotonic(), end.saved)
"""
RECIPE = str(Path(__file__).parents[2] / "recipes" / "scenes.yaml")


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
@pytest.mark.parametrize(("seconds", "saves"), [(0.02, True), (1000, False)])
def test_at_a_signal_a_training_saves_and_ends_in_ten_seconds(
    tmp_path: Path, number: signal.Signals, seconds: float, saves: bool
) -> None:
    if number == signal.SIGINT and not saves:
        pytest.skip("as with SIGTERM, and it takes as long")
    code = SLOW.format(seconds=seconds, recipe=RECIPE)
    process = subprocess.Popen([sys.executable, "-c", code], cwd=tmp_path, stdout=subprocess.PIPE, text=True)
    while not (tmp_path / "started").exists():
        assert process.poll() is None
        time.sleep(0.05)
    asked = time.monotonic()
    process.send_signal(number)
    said, _ = process.communicate(timeout=60)
    signalled, ended, saved = said.split(maxsplit=2) if saves else (*said.split(), "")
    assert float(ended) - asked < 10  # by the work's own clock: a busy machine takes seconds to unload torch
    assert GRACE < 10
    assert process.returncode == 0
    assert int(signalled) == number
    assert ("saved at step" in saved) == saves
    assert (tmp_path / "training").exists() == saves


def test_weights_that_cannot_be_written_are_an_error_of_the_disk(tmp_path: Path) -> None:
    with pytest.raises(OSError, match="No such file or directory") as caught:
        save_tensors(tmp_path / "missing" / "weights.safetensors", {"a": torch.zeros(2)})
    assert caught.value.filename == str(tmp_path / "missing" / "weights.safetensors")
