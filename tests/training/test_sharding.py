"""One process, and several of which each holds a part of the network: the same losses, checkpoints for any number."""

import logging
import shutil
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file
from torch import nn

from darkroom.config.training import AdamW, Muon
from darkroom.core.checkpoint import Checkpoints
from darkroom.core.errors import DarkroomError
from darkroom.core.interruption import Interruption
from darkroom.training.engine.distributed import Processes
from darkroom.training.engine.sharding import check_optimizer, is_sharded, outline, shard
from tests.support import divided
from tests.support.settings import optimization
from tests.support.worlds import World

QUICK, LONG = divided.Length(5), divided.Length(50)


def run(folder: Path, length: divided.Length) -> Path:
    """All trainings, by one, two and four processes."""
    divided.alone(folder, length)
    for size in (2, 4):
        divided.together(folder, size, length)
    divided.after(folder, length)
    return folder


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return run(tmp_path_factory.mktemp("divided"), QUICK)


def losses(folder: Path, size: int, name: str) -> list[float]:
    return [values["train/loss"] for values in divided.found(folder, size, name)["values"]]


def weights(folder: Path, size: int, name: str) -> dict[str, torch.Tensor]:
    return load_file(folder / str(size) / name / "weights.safetensors")


def check_alike(folder: Path, length: divided.Length) -> None:
    """All trainings have the losses of one process, whoever began and ended them, and hand on its weights."""
    expected = losses(folder, 1, "whole")
    assert len(expected) == length.steps
    assert expected[0] != expected[-1]
    handed_on = weights(folder, 1, "whole")
    for size, name in [
        (2, "whole"),
        (4, "whole"),
        (2, "resumed"),
        (1, "of two"),
        (4, "of two"),
        (2, "resumed as ddp"),
        (2, "of one"),
    ]:
        assert losses(folder, size, name) == pytest.approx(expected, rel=1e-5), (size, name)
        found = divided.found(folder, size, name)
        assert found["resumed"] == (None if name == "whole" else length.every)
        assert found["held_out"] == pytest.approx(divided.found(folder, 1, "whole")["held_out"], rel=1e-5)
        for key, weight in weights(folder, size, name).items():
            torch.testing.assert_close(weight, handed_on[key], rtol=1e-4, atol=1e-4)


def test_any_number_of_processes_has_the_losses_of_one_and_resumes_what_any_other_left(made: Path) -> None:
    """Catches gradients that are summed where they are to be averaged, and moments at other weights than theirs."""
    check_alike(made, QUICK)


@pytest.mark.slow
def test_over_fifty_steps_too(tmp_path: Path) -> None:
    check_alike(run(tmp_path, LONG), LONG)


def test_two_that_lost_each_other_resume_to_the_bit(made: Path) -> None:
    """Catches a part of the state that no checkpoint holds."""
    assert losses(made, 2, "resumed") == losses(made, 2, "whole")
    expected = weights(made, 2, "whole")
    assert all(torch.equal(weight, expected[key]) for key, weight in weights(made, 2, "resumed").items())


def test_previews_are_of_the_average_as_it_then_is(made: Path) -> None:
    """Catches blocks that stay together after a validation, and so show the weights of an earlier step."""
    expected = divided.found(made, 1, "whole")["shown"]
    assert len(set(expected)) == 4
    for size in (2, 4):
        assert divided.found(made, size, "whole")["shown"] == pytest.approx(expected, rel=1e-3)


def test_a_loss_that_is_no_number_in_one_process_stops_all_before_the_update(made: Path) -> None:
    """Catches a latch that closes in the process alone that met it, while the others move."""
    found = divided.found(made, 2, "broken")
    assert found["error"].startswith(f"step {divided.DIES_AT}: loss is nan at learning rate")
    assert len(found["values"]) == divided.DIES_AT


def test_a_torn_checkpoint_is_refused_by_all(made: Path) -> None:
    """Catches a process that resumes from its own whole file while another one's is torn."""
    found = divided.found(made, 2, "torn")
    assert found["resumed"] is None
    assert losses(made, 2, "torn") == losses(made, 2, "whole")[:1]


@pytest.mark.parametrize("how", ["torn", "missing", "unfinished"])
def test_one_process_refuses_it_too(how: str, made: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    folder = divided.damage(Path(shutil.copytree(divided.kept(made, "of two"), tmp_path / "copy")), how)
    with caplog.at_level(logging.WARNING):
        assert Checkpoints(folder, {}, 0, 0, Interruption()).resume({}, QUICK.steps) == 0
    assert "damaged" in caplog.text


def test_a_part_that_is_not_of_the_checkpoint_is_refused(made: Path, tmp_path: Path) -> None:
    """Catches a file that another number of processes left, of which no digest is known."""
    folder = Path(shutil.copytree(divided.kept(made, "of two"), tmp_path / "copy"))
    (newest,) = folder.glob("step_*")
    shard_file = next(newest.glob("*.safetensors"))
    shutil.copy(shard_file, shard_file.with_name("shard-00009-model-00001-of-00001.safetensors"))
    assert Checkpoints(folder, {}, 0, 0, Interruption()).resume({}, QUICK.steps) == 0


def test_a_disk_that_is_full_for_one_of_them_ends_no_training(made: Path) -> None:
    """Catches a process that waits for ever for the one that could not write; and a checkpoint of one half."""
    assert len(losses(made, 2, "full disk")) == QUICK.lost_at
    assert list(divided.kept(made, "full").iterdir()) == []


def test_what_is_written_is_safetensors_and_json(made: Path) -> None:
    """Catches the pickled metadata that PyTorch's own format of checkpoints has."""
    (checkpoint,) = divided.kept(made, "of two").glob("step_*")
    assert {file.suffix for file in checkpoint.iterdir()} == {".safetensors", ".json"}
    assert len(list(checkpoint.glob("*.safetensors"))) == 2
    sizes = [file.stat().st_size for file in checkpoint.glob("*.safetensors")]
    assert max(sizes) < 1.2 * min(sizes)


def test_muon_is_refused_by_name(made: Path) -> None:
    refused = r"optimizer.kind = muon: .*; set optimizer.kind to adamw, or DARKROOM_STRATEGY=ddp"
    muon = optimization(optimizer="muon").optimizer
    assert isinstance(muon, Muon)
    with pytest.raises(DarkroomError, match=refused):
        check_optimizer(muon)
    adamw = optimization().optimizer
    assert isinstance(adamw, AdamW)
    check_optimizer(adamw)
    assert divided.found(made, 2, "muon")["error"].startswith("optimizer.kind = muon")


def test_an_outline_has_all_but_the_weights() -> None:
    """Catches a second copy of a network that fits into memory once."""
    network = World("text", divided.task_of(Processes()).context).unet()
    shape = outline(network)
    assert [name for name, _ in shape.named_parameters()] == [name for name, _ in network.named_parameters()]
    assert all(weight.is_meta for weight in shape.state_dict().values())
    assert not any(weight.is_meta for weight in network.state_dict().values())
    shape.load_state_dict(network.state_dict(), assign=True)
    x = torch.ones(1, 4, 8, 8), torch.ones(1)
    words = torch.ones(1, 4, 16)
    found: Any = shape(*x, shape.prepare_context(words))
    assert torch.equal(found, network(*x, network.prepare_context(words)))


def test_a_weight_without_parts_is_refused() -> None:
    class Scale(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.scale = nn.Parameter(torch.ones(()))

    with pytest.raises(DarkroomError, match="Scale: scale is one number and cannot be sharded; use ddp"):
        shard(Scale(), None)  # type: ignore[arg-type]
    assert not is_sharded(Scale())
