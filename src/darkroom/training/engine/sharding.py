"""A network in shards: each process holds a part of every weight, and a block is whole only while it computes.

PyTorch's `fully_shard` (FSDP2; Zhao et al. 2023, "PyTorch FSDP", arXiv:2304.11277) puts the weights of a block together
before its forward and its backward pass, and gives each process its part of the summed gradient. Weights, gradients,
moments and averages so take 1/n of their memory in each of n processes, besides the largest block.
"""

import copy
import warnings
from collections.abc import Iterable, Iterator
from typing import TYPE_CHECKING, Any, TypeVar

import torch
from torch import Tensor, nn

from darkroom.config.training import AdamW, Muon
from darkroom.core import shards
from darkroom.core.errors import DarkroomError
from darkroom.nn.layers.attention import Attention, BasicTransformerBlock, Transformer2DModel
from darkroom.nn.layers.blocks import Downsample2D, ResnetBlock2D, Upsample2D

if TYPE_CHECKING:
    from torch.distributed.device_mesh import DeviceMesh

Network = TypeVar("Network", bound=nn.Module)
# Put together one by one; a block may hold others, and has the rest of its weights to itself.
BLOCKS = (ResnetBlock2D, BasicTransformerBlock, Transformer2DModel, Downsample2D, Upsample2D)
CALLS = ("prepare_context",)  # methods besides `forward` that compute with a network's weights


def check_optimizer(optimizer: AdamW | Muon) -> None:
    """Refuse what cannot work on parts of a matrix.

    Raises:
        DarkroomError: Muon.
    """
    if isinstance(optimizer, Muon):
        raise DarkroomError(
            "optimizer.kind = muon: it makes whole matrices orthogonal, and under strategy fsdp2 no process holds one; "
            "set optimizer.kind to adamw, or DARKROOM_STRATEGY=ddp"
        )


def shard(network: nn.Module, mesh: "DeviceMesh") -> None:
    """Shard a network over `mesh`, in place: its blocks, then whatever else it has.

    The weights go to the mesh's device block by block, so the whole may lie on the CPU. Gradients are averaged over the
    processes. A network on the meta device has no weights afterwards either; see `follow`.

    Raises:
        DarkroomError: a weight without dimensions, which has no parts.
    """
    from torch.distributed.fsdp import FSDPModule, fully_shard, register_fsdp_forward_method

    warnings.filterwarnings("ignore", message="FSDP2-wrapped module")  # nothing here changes an output in place
    for name, parameter in network.named_parameters():
        if parameter.ndim == 0:
            raise DarkroomError(f"{type(network).__name__}: {name} is one number and cannot be sharded; use ddp")
        parameter.data = parameter.data.contiguous()  # fully_shard takes no kernels stored channels last
    for block in _blocks(network):
        fully_shard(block, mesh=mesh, reshard_after_forward=True)
    # Kept together after a forward pass without a backward one, the rest would be out of date after the next update.
    fully_shard(network, mesh=mesh, reshard_after_forward=True)
    for module in network.modules():
        if isinstance(module, FSDPModule):  # asked for an average, Gloo makes a sum (pytorch #162338)
            module.set_force_sum_reduction_for_comms(True)
    for call in CALLS:
        if hasattr(network, call):
            register_fsdp_forward_method(network, call)
    network.register_forward_pre_hook(_hide_lists, prepend=True)


def _blocks(network: nn.Module) -> Iterator[Any]:
    """From the inside outwards; those whose weights are used together are one list."""
    for module in reversed(list(network.modules())):
        if isinstance(module, BasicTransformerBlock):
            words: Attention = module.attn2  # computed by `prepare_context`, before and apart from the block
            yield [words.to_k, words.to_v]
        if isinstance(module, BLOCKS) and module is not network:
            yield module


def block_bytes(network: nn.Module) -> list[int]:
    """Of the weights that are put together at once: of each block without those inside it, and of the rest."""
    counted: set[int] = set()
    found = []
    for block in [*_blocks(network), network]:
        modules = block if isinstance(block, list) else [block]
        weights = {id(p): p.nbytes for module in modules for p in module.parameters() if id(p) not in counted}
        counted |= weights.keys()
        found.append(sum(weights.values()))
    return found


def _hide_lists(network: nn.Module, inputs: tuple[Any, ...]) -> tuple[Any, ...]:
    """Lists as iterators, in which `fully_shard` looks for no tensors.

    It sums the gradients of a module's own weights when those of its inputs are there. Keys and values of words are
    inputs that a U-Net made itself, and have theirs long before its first layers have.
    """
    return tuple(iter(x) if isinstance(x, list) else x for x in inputs)


def outline(network: Network) -> Network:
    """A network such as this one, not sharded yet, without its weights: these are on the meta device."""
    weights = [*network.parameters(), *network.buffers()]
    memo: dict[int, Any] = {id(weight): _on_meta(weight) for weight in weights}
    return copy.deepcopy(network, memo)


def _on_meta(weight: Tensor) -> Tensor:
    empty = torch.empty_like(weight, device="meta")
    return nn.Parameter(empty, requires_grad=weight.requires_grad) if isinstance(weight, nn.Parameter) else empty


def follow(network: Network, shape: Network, mesh: "DeviceMesh") -> Network:
    """`shape`, sharded as the sharded `network` is, with its weights: what an average begins with.

    Args:
        shape: its `outline`.
    """
    shape.eval().requires_grad_(False)
    shard(shape, mesh)
    shape.to_empty(device=next(network.parameters()).device)
    with torch.no_grad():
        for target, source in zip(_weights(shape), _weights(network), strict=True):
            local(target).copy_(local(source))
    return shape


def _weights(network: nn.Module) -> Iterable[Tensor]:
    return [*network.parameters(), *network.buffers()]


def is_sharded(network: nn.Module) -> bool:
    """Whether a network, or one inside it, is sharded."""
    return any(map(shards.is_sharded, network.parameters()))


@torch.no_grad()
def local(x: Tensor) -> Tensor:
    """What this process holds of `x`, in the same memory; `x` itself where it is not sharded."""
    found: Tensor = x.to_local() if hasattr(x, "to_local") else x
    return found


def unsharded(x: Tensor) -> Tensor:
    """All of `x`; of a sharded one all processes must ask at once."""
    found: Tensor = x.full_tensor() if hasattr(x, "full_tensor") else x
    return found


@torch.no_grad()
def gather(network: nn.Module, into: Network, keep: bool) -> Network:
    """The weights of a sharded network put together one by one on the CPU, in `into`, its outline from before.

    All processes must call it. keep: whether this one is to have them; in the others `into` remains without weights.
    """
    state = {}
    for name, weight in network.state_dict().items():
        found = unsharded(weight)
        if keep:
            state[name] = found.cpu()
    if keep:
        into.load_state_dict(state, assign=True)
    return into.eval().requires_grad_(False)
