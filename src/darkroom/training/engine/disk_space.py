"""The disk that a training will need, told before its first step, and refused where it is not there."""

import shutil
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from torch import Tensor

from darkroom.config.paths import ARTIFACTS
from darkroom.core.checkpoint import KEPT, Stateful
from darkroom.core.dvc_settings import DVC, cache_root
from darkroom.core.errors import DarkroomError
from darkroom.core.nested import pack
from darkroom.core.progress import readable_size
from darkroom.training.engine.best import Best
from darkroom.training.engine.muon import Muon

PICTURES = 16 * 2**20  # bytes of a stage's reports
MOMENTS = {Muon: 1}  # values that an optimiser remembers of each weight, where these are not AdamW's two


@dataclass(frozen=True)
class Need:
    """bytes of what will lie in the `folder`, which need not be there yet."""

    what: str
    folder: Path
    bytes: float

    def __str__(self) -> str:
        return f"{self.what} {readable_size(self.bytes)}"


def state_bytes(state: Mapping[str, Stateful]) -> float:
    """What a checkpoint of `state` will take, also where moments and best weights are not made before the first step.

    state: as `Checkpoints` saves them, of which some have `optimizers`, and "ema" is the average.
    """
    total = sum(tensor_bytes(one.state_dict()) for one in state.values())
    for one in state.values():
        for optimizer in getattr(one, "optimizers", ()):
            if not optimizer.state:
                of_each = MOMENTS.get(type(optimizer), 2)
                total += of_each * sum(p.nbytes for group in optimizer.param_groups for p in group["params"])
        if isinstance(one, Best) and not tensor_bytes(one.state_dict()) and "ema" in state:
            total += tensor_bytes(state["ema"].state_dict())
    return total


def tensor_bytes(state: Mapping[str, Any]) -> float:
    """Of the tensors of a nested state."""
    tensors: dict[str, Tensor] = {}
    pack(state, tensors)
    return sum(tensor.nbytes for tensor in tensors.values())


def check_disk(
    description: str, state: float, outputs: float, checkpoints: Path | None, folder: Path = ARTIFACTS
) -> None:
    """Print on stderr what a training will need, and where.

    Args:
        state: bytes of a checkpoint; see `state_bytes`.
        outputs: bytes of the weights that are handed on.
        checkpoints: the folder of this training's; what lies there already is counted as had. None: there are none.
        folder: of the outputs; see `kept`.

    Raises:
        DarkroomError: a file system has less room; nothing has been done.
    """
    needs = kept("outputs", folder, outputs + PICTURES)
    if checkpoints is not None:
        had = sum(file.stat().st_size for file in checkpoints.rglob("*") if file.is_file())
        # Those that are kept, and the next one while it is written.
        needs.append(Need("checkpoints", checkpoints, max((KEPT + 1) * state - had, 0)))
    total = readable_size(sum(need.bytes for need in needs))
    print(f"{description}: needs {total} of disk: {', '.join(map(str, needs))}", file=sys.stderr, flush=True)
    check_room(description, needs)


def kept(what: str, folder: Path, size: float) -> list[Need]:
    """Of outputs of so many bytes: DVC keeps a copy of them in its cache, if this is a project of DVC's."""
    copy = [Need("DVC's copy of them", cache_root(), size)] if DVC.is_dir() else []
    return [Need(what, folder, size), *copy]


def check_room(description: str, needs: Sequence[Need], remedy: str = "") -> None:
    """Refuse what the disk does not hold. remedy: what to do before more room is sought, with its own separator.

    Raises:
        DarkroomError: a file system has less room.
    """
    systems: dict[int, list[Need]] = {}
    for need in needs:
        systems.setdefault(_existing(need.folder).stat().st_dev, []).append(need)
    for on_one in systems.values():
        _check(description, on_one, remedy)


def _check(description: str, needs: Sequence[Need], remedy: str) -> None:
    """Whether what lies on one file system has room there."""
    free, wanted = shutil.disk_usage(_existing(needs[0].folder)).free, sum(need.bytes for need in needs)
    if wanted > free:
        raise DarkroomError(
            f"{', '.join(str(need.folder) for need in needs)}: {description} needs {readable_size(wanted)} there "
            f"({', '.join(map(str, needs))}), and {readable_size(free)} is free; {remedy}make room (dvc gc --workspace "
            "takes old outputs from DVC's cache), or move the project or the cache to a larger disk "
            "(docs/scaling-out.md)"
        )


def _existing(path: Path) -> Path:
    """The folder itself, or the nearest one above it that is there."""
    path = path.absolute()
    return next(folder for folder in (path, *path.parents) if folder.exists())
