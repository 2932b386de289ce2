"""The curves of a training, as numbers and as a picture."""

import csv
from pathlib import Path

from PIL import Image

from darkroom.training.engine.curves import Curves


def filled(every: int = 2) -> tuple[Curves, list[tuple[int, dict[str, float]]]]:
    logged: list[tuple[int, dict[str, float]]] = []
    curves = Curves(every, lambda step, values: logged.append((step, dict(values))))
    for step in range(1, 7):
        curves(step, {"loss": float(step), "learning_rate": 0.5})
        if step == 4:
            curves.record(step, {"held_out/loss": 9.0})
    return curves, logged


def test_training_values_are_averaged_and_measured_ones_kept() -> None:
    curves, logged = filled()
    assert logged == [
        (2, {"train/loss": 1.5, "train/learning_rate": 0.5}),
        (4, {"train/loss": 3.5, "train/learning_rate": 0.5}),
        (4, {"held_out/loss": 9.0}),
        (6, {"train/loss": 5.5, "train/learning_rate": 0.5}),
    ]
    assert curves.rows[4] == {"train/loss": 3.5, "train/learning_rate": 0.5, "held_out/loss": 9.0}


def test_the_last_steps_are_kept_where_the_interval_does_not_divide(tmp_path: Path) -> None:
    curves, logged = filled(every=4)
    curves.write(tmp_path)
    assert logged[-1] == (6, {"train/loss": 5.5, "train/learning_rate": 0.5})


def test_a_table_and_a_picture_are_written_always_the_same(tmp_path: Path) -> None:
    for name in ("1", "2"):
        filled()[0].write(tmp_path / name)
    with (tmp_path / "1" / "curves.csv").open(newline="") as file:
        rows = list(csv.reader(file))
    assert rows[0] == ["step", "held_out/loss", "train/learning_rate", "train/loss"]
    assert rows[1:] == [["2", "", "0.5", "1.5"], ["4", "9", "0.5", "3.5"], ["6", "", "0.5", "5.5"]]
    with Image.open(tmp_path / "1" / "curves.png") as picture:
        assert picture.width > picture.height > 100
    for name in ("curves.csv", "curves.png"):
        assert (tmp_path / "1" / name).read_bytes() == (tmp_path / "2" / name).read_bytes()
