"""artifacts/unet where adapters were trained: their file, and the base that they are added to, by path and content."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from torch import Tensor

from darkroom.core.artifact import CONFIG, PROVENANCE, atomic_path, content_hash, read_json, write_json
from darkroom.core.errors import DarkroomError
from darkroom.interop.lora import FILE, Trained, write_adapter

BASE = "adapts"  # in config.json: {path, content} of the network that the adapters are for


def write_artifact(
    folder: Path, tensors: Mapping[str, Tensor], trained: Trained, base: Path, config: Mapping[str, Any]
) -> None:
    """Write the folder, whole or not at all.

    Args:
        tensors: see `write_adapter`. base: the folder of the U-Net that they were trained on.
        config: what config.json states besides: the U-Net's spec, and more.
    """
    with atomic_path(folder) as beside:
        beside.mkdir()
        write_adapter(beside / FILE, tensors, trained)
        write_json(beside / CONFIG, {**config, BASE: {"path": base.as_posix(), "content": trained.base}})
        write_json(beside / PROVENANCE, {"inputs": dict(trained.inputs)})


def base_of(folder: Path) -> Path | None:
    """The folder of the U-Net that the adapters in `folder` are for; None where it holds whole weights.

    Raises:
        DarkroomError: that U-Net is gone, or is another one now.
    """
    if (adapts := read_json(folder / CONFIG).get(BASE)) is None:
        return None
    path, content = Path(adapts["path"]), adapts["content"]
    if not path.is_dir() or (found := content_hash(path)) != content:
        now = f"is now {found}" if path.is_dir() else "is not there"
        raise DarkroomError(
            f"{folder}: holds adapters of {path} {content}, which {now}; put that network back, or run "
            "dvc repro --force --single-item train_unet and then dvc repro, which train them on this one"
        )
    return path
