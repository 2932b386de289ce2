"""Tables that are mapped and read by row. Each test says which fault it would catch."""

from pathlib import Path

import pytest
import torch
from torch import Tensor

from darkroom.core.artifact import save_tensors
from darkroom.core.errors import DarkroomError
from darkroom.data.latents import Latents
from darkroom.data.rows import Rows
from tests.support.memory import anonymous_bytes

MIB = 1 << 20


def noise(*shape: int) -> Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(len(shape) + shape[0])).half()


@pytest.mark.parametrize("lengths", [(7,), (4, 3), (1, 5, 1)])
def test_rows_of_several_files_are_those_of_one(
    tmp_path: Path, lengths: tuple[int, ...], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Fails if a row is taken from the wrong file, or rows come in another order than they were asked for."""
    monkeypatch.setattr("darkroom.data.rows.READ_AHEAD_BYTES", 0)
    table = noise(7, 2, 3)
    files = [tmp_path / f"{i}.safetensors" for i in range(len(lengths))]
    for file, rows in zip(files, table.split(lengths), strict=True):
        save_tensors(file, {"x": rows})
    rows = Rows.mapped(files, "x").at_random()
    asked = torch.tensor([6, 0, 3, 3, 5, 4, 1, 2, 6])
    assert (len(rows), rows.shape, rows.dtype, rows.nbytes) == (7, (2, 3), torch.float16, table.nbytes)
    assert torch.equal(rows[asked], table[asked])
    assert torch.equal(rows[asked[:0]], table[asked[:0]])
    assert torch.equal(rows.in_memory(), table)


def test_the_deviation_of_a_row_has_the_bytes_it_has_among_all() -> None:
    """Fails if drawing from a posterior depends on which rows are read with it."""
    logvar = noise(301, 3, 5, 7) * 10
    of_all = (0.5 * logvar.float()).exp().half()
    latents = Latents(torch.zeros_like(logvar), Rows(logvar.split(100)), 1.0)
    assert latents.std is not None
    for asked in (torch.arange(301), torch.tensor([300]), torch.randperm(301)[:17]):
        assert torch.equal(latents.std[asked], of_all[asked])
    assert torch.equal(latents.std.in_memory(), of_all)


def test_what_is_read_is_memory_of_the_file(tmp_path: Path) -> None:
    """Fails if a shard is read into memory, at its opening or row by row: 10^6 latents are 16 GB in each process."""
    file = tmp_path / "train-00000.safetensors"
    save_tensors(file, {"mean": torch.ones(64, MIB // 2).half(), "logvar": torch.ones(64, MIB // 2).half()})
    before = anonymous_bytes()
    mean, logvar = (Rows.mapped([file], name) for name in ("mean", "logvar"))
    total = sum(float(table[torch.tensor([row])].float().mean()) for table in (mean, logvar) for row in range(64))
    assert total == 128
    assert anonymous_bytes() - before < 32 * MIB  # of 128


def test_rows_of_several_sizes_do_not_go_into_one_batch() -> None:
    """Fails if a bucket's pictures are taken for another's."""
    rows = Rows([noise(2, 4, 8, 8), noise(2, 4, 8, 16)])
    with pytest.raises(DarkroomError, match=r"shapes \(4, 8, 8\), \(4, 8, 16\) do not go into one batch"):
        rows[torch.tensor([0, 3])]


def test_a_file_without_the_tensor_is_named(tmp_path: Path) -> None:
    """Fails if a shard of something else ends in a traceback."""
    file = tmp_path / "train-00000.safetensors"
    save_tensors(file, {"mean": noise(2, 2)})
    with pytest.raises(DarkroomError, match=r"train-00000\.safetensors: has no 'logvar', only mean; run the stage"):
        Rows.mapped([file], "logvar")


def test_what_fits_on_a_device_is_told_by_the_whole_table(monkeypatch: pytest.MonkeyPatch) -> None:
    """Catches a limit that each bucket has for itself: of twelve buckets 96 GiB went to the device, or were read with
    what lies beside each row."""
    advised: list[Tensor] = []
    monkeypatch.setattr("darkroom.data.rows._advise_random", advised.append)
    means = [noise(4, 2, 3), noise(4, 3, 2), noise(4, 2, 3)]
    size, table = sum(mean.nbytes for mean in means), Latents(Rows(means), Rows(means), 1.0)
    for limit, where in ((size - 1, "cpu"), (size, "meta")):
        monkeypatch.setattr("darkroom.data.rows.RESIDENT_BYTES", limit)
        for _, part in table.by_shape():
            resident = part.resident(torch.device("meta"))
            assert resident.std is not None
            assert {resident.mean.device.type, resident.std.device.type} == {where}
    for limit, hinted in ((size, 0), (size - 1, len(means))):
        monkeypatch.setattr("darkroom.data.rows.READ_AHEAD_BYTES", limit)
        advised.clear()
        for _, rows in table.mean.by_shape():
            rows.at_random()
        assert len(advised) == hinted
