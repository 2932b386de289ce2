"""What a training writes down: its curves, as numbers and as a picture."""

import csv
import io
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from darkroom.core.artifact import atomic_path
from darkroom.view.curves import save_curves

Log = Callable[[int, Mapping[str, float]], None]


class Curves:
    """Averages training values over `every` steps, keeps all values, and passes them on to `log`.

    A hook of the training loop; `record` takes values measured otherwise, such as held-out losses.
    """

    def __init__(self, every: int, log: Log) -> None:
        self.every, self.log = every, log
        self.rows: dict[int, dict[str, float]] = {}
        self._sums: dict[str, list[float]] = {}
        self._unread: list[Mapping[str, float]] = []
        self._last = 0

    def __call__(self, step: int, values: Mapping[str, float]) -> None:
        self._unread.append(values)  # looked at when they are averaged, for that waits for the device
        self._last = step
        if step % self.every == 0:
            self._flush()

    def _read(self) -> None:
        for values in self._unread:
            for name, value in values.items():
                self._sums.setdefault(f"train/{name}", []).append(value)
        self._unread.clear()

    def _flush(self) -> None:
        self._read()
        if self._sums:
            self.record(self._last, {name: sum(v) / len(v) for name, v in self._sums.items()})
            self._sums.clear()

    def record(self, step: int, values: Mapping[str, float]) -> None:
        """Note values measured after `step` steps."""
        self.rows.setdefault(step, {}).update(values)
        self.log(step, values)

    def state_dict(self) -> Mapping[str, Any]:
        """All points, and what the next one will average."""
        self._read()
        return {"rows": self.rows, "sums": self._sums, "last": self._last}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Resume from `state_dict`; `log` hears of every point again."""
        self.rows, self._sums, self._last = state["rows"], state["sums"], state["last"]
        for step, values in self.rows.items():
            self.log(step, values)

    def write(self, folder: Path | str) -> None:
        """Write curves.csv (a row a step, a column a value) and curves.png (a panel for values to compare)."""
        self._flush()  # the last steps, where `every` does not divide their number
        folder = Path(folder)
        names = sorted({name for row in self.rows.values() for name in row})
        text = io.StringIO()
        writer = csv.writer(text, lineterminator="\n")
        writer.writerow(["step", *names])
        for step, row in sorted(self.rows.items()):
            writer.writerow([step, *(f"{row[name]:.6g}" if name in row else "" for name in names)])
        with atomic_path(folder / "curves.csv") as beside:
            beside.write_text(text.getvalue(), encoding="utf-8")
        save_curves(self.rows, folder / "curves.png")
