"""Networks on disk: a folder of config.json, weights and provenance.json."""

import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeVar

import torch
from torch import nn
from torch.nn.modules.module import register_module_parameter_registration_hook
from torch.overrides import TorchFunctionMode

from darkroom.core.artifact import (
    CONFIG,
    PROVENANCE,
    REPRO,
    atomic_path,
    load_tensors,
    save_tensors,
    write_json,
)
from darkroom.core.errors import DarkroomError
from darkroom.core.limits import NETWORK_TENSORS, NETWORK_WEIGHTS
from darkroom.core.symlinks import check_inside
from darkroom.core.tensors import check_finite

DIFFUSERS_WEIGHTS = "diffusion_pytorch_model.safetensors"
WEIGHTS = "model.safetensors"
Network = TypeVar("Network", bound=nn.Module)


class _NoNumbers(TorchFunctionMode):
    """Leaves out the draws of initial weights, which are replaced anyway.

    On the meta device, too, they would be carried out, for which PyTorch imports its compiler: ten seconds.
    """

    def __torch_function__(
        self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        kwargs = kwargs or {}
        if getattr(func, "__name__", "") == "normal_":
            return kwargs["tensor"] if "tensor" in kwargs else args[0]
        return func(*args, **kwargs)


class _TooLargeError(Exception):
    """A network grows beyond what it may have; the message is what."""


def outline(
    make: Callable[[], Network],
    where: Path,
    tensors: int | None = None,
    weights: int | None = None,
    remedy: str = "give the configuration of another network",
) -> Network:
    """The network that `make` makes, without memory for its weights; what would be too large is not made to its end.

    Args:
        where: of the file that describes it, or that holds its weights.
        tensors, weights: the most it may have; by default, see core.limits.

    Raises DarkroomError: it has more, or no network can be made so; names where.
    """
    most = (tensors or NETWORK_TENSORS.most, weights or NETWORK_WEIGHTS.most)
    counts, this_thread = [0, 0], threading.get_ident()

    def count(module: nn.Module, name: str, parameter: nn.Parameter | None) -> None:
        if parameter is None or threading.get_ident() != this_thread:
            return
        counts[0] += 1
        counts[1] += parameter.numel()
        for found, limit, unit in zip(counts, most, ("tensors", "weights"), strict=True):
            if found > limit:
                raise _TooLargeError(f"describes a network of more than {limit:,} {unit}")

    hook = register_module_parameter_registration_hook(count)
    try:
        with torch.device("meta"), _NoNumbers():
            return make()
    except DarkroomError:
        raise
    except _TooLargeError as error:
        raise DarkroomError(f"{where}: {error}; {remedy}") from None
    except Exception as error:  # PyTorch raises many on shapes that no layer has
        reason = " ".join(str(error).split())[:200] or type(error).__name__
        raise DarkroomError(f"{where}: describes no network ({reason}); {remedy}") from None
    finally:
        hook.remove()


def write_network(
    folder: Path, weights: str, network: nn.Module, config: dict[str, Any], origin: dict[str, Any]
) -> None:
    """Write a network's folder, whole or not at all.

    Args:
        weights: file name of the weights.
        config: what config.json states: the network's spec, and more.
        origin: what provenance.json says, see core.artifact.provenance.
    """
    with atomic_path(folder) as beside:
        beside.mkdir()
        save_tensors(beside / weights, network.state_dict())
        write_json(beside / CONFIG, config)
        write_json(beside / PROVENANCE, origin)


def load_weights(network: Network, file: Path, device: torch.device, prefix: str = "", remedy: str = REPRO) -> Network:
    """Load weights strictly; the network comes back on `device`, in eval mode and frozen.

    Args:
        prefix: with which all names in the file begin. remedy: see core.artifact.read_json.

    Raises DarkroomError: names the file and what does not fit or is not finite, or a link that leads out of its folder.
    """
    check_inside(file.parent)
    tensors = load_tensors(file, remedy)
    for key, value in tensors.items():
        check_finite(value, f"{file}: {key}", remedy)
    try:
        network.load_state_dict({key.removeprefix(prefix): value for key, value in tensors.items()})
    except RuntimeError as error:
        raise DarkroomError(f"{file}: does not fit its config.json: {' '.join(str(error).split())[:300]}") from None
    return network.to(device).eval().requires_grad_(False)
