"""The curves of a training: values over steps, in panels."""

from collections.abc import Mapping
from pathlib import Path

from darkroom.core.artifact import atomic_path

COMPARED = ("train", "held_out")  # groups whose values of one name share a panel


def save_curves(rows: Mapping[int, Mapping[str, float]], path: Path) -> None:
    """Write a PNG of values by step, each called GROUP/NAME: a panel for each name of the groups that are compared,
    and one for each other group. A value that falls far gets a logarithmic axis."""
    import matplotlib

    matplotlib.use("Agg")
    import matplotlib.pyplot as plt

    panels: dict[str, dict[str, str]] = {}  # title -> {label: name}
    for name in sorted({name for row in rows.values() for name in row}):
        group, value = name.split("/", 1)
        title, label = (value, group) if group in COMPARED else (group, value)
        panels.setdefault(title, {})[label] = name
    if not panels:  # a pretrained autoencoder, say
        panels["nothing was trained"] = {}
    columns = min(3, len(panels))
    lines = -(-len(panels) // columns)
    figure, axes = plt.subplots(lines, columns, figsize=(4.5 * columns, 3 * lines), squeeze=False)
    for axis in axes.flat[len(panels) :]:
        axis.set_visible(False)
    for axis, (title, members) in zip(axes.flat, sorted(panels.items()), strict=False):
        axis.set(title=title, xlabel="step")
        axis.grid(alpha=0.3)
        for label, name in members.items():
            steps, values = zip(*[(k, row[name]) for k, row in sorted(rows.items()) if name in row], strict=True)
            axis.plot(steps, values, label=label, marker="." if len(steps) < 30 else "")
            if 0 < min(values) < max(values) / 20 and values[-1] < values[0]:  # it falls, and far
                axis.set_yscale("log")
        if members:
            axis.legend(fontsize="small")
    figure.tight_layout()
    with atomic_path(path) as beside:
        figure.savefig(beside, format="png", dpi=100, metadata={"Software": None})
    plt.close(figure)
