"""Frozen weights in 16 bits: from the file to the last gradient none of them is kept in 32, and the numbers are those
of weights that were read in 32 bits and rounded afterwards."""

import weakref
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from darkroom.config.params import load
from darkroom.core.device import autocast
from darkroom.interop.configs import read_unet_config
from darkroom.nn.layers.lora import halve, is_adapter
from darkroom.nn.layers.recompute import checkpoint_activations
from darkroom.runner.stage import Work
from darkroom.tracking import Run
from darkroom.tracking.note import Account
from darkroom.training.engine.blank import denoised
from tests.support import pipelines
from tests.support.loading import load_script
from tests.support.projects import ROOT

CPU = torch.device("cpu")
BASE = Path("artifacts/pipeline/unet")
AT_ONCE = 1  # weights in 32 bits: the one that is being read


class InFull(TorchDispatchMode):
    """Counts 32-bit tensors of two or more dimensions that live at once, and remembers of which shapes there were any.

    shapes: of those that are counted.
    """

    def __init__(self, shapes: Iterable[torch.Size] | None = None) -> None:
        super().__init__()
        self.shapes, self.seen = None if shapes is None else set(shapes), set[torch.Size]()
        self.most = 0
        self._live = set[int]()

    def __torch_dispatch__(
        self, func: Any, types: Iterable[Any], args: tuple[Any, ...] = (), kwargs: Mapping[str, Any] | None = None
    ) -> Any:
        out = func(*args, **(kwargs or {}))
        for leaf in tree_leaves(out):
            if isinstance(leaf, Tensor) and leaf.dtype == torch.float32 and leaf.device.type != "meta":
                self.seen.add(leaf.shape)
                if self.shapes is None or leaf.shape in self.shapes:
                    self._see(leaf.untyped_storage())
        return out

    def _see(self, storage: torch.UntypedStorage) -> None:
        key = storage._cdata
        if key not in self._live:
            self._live.add(key)
            weakref.finalize(storage, self._live.discard, key).atexit = False
            self.most = max(self.most, len(self._live))


@pytest.fixture
def project(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Any:
    """The stage, in a project with an imported model, and its section of the parameters."""
    monkeypatch.chdir(tmp_path)
    pipelines.assembled(Path("artifacts"))
    p = load(ROOT / "recipes" / "sd15-lora-tiny.yaml").train_unet
    process = load(ROOT / "recipes" / "scenes.yaml").train_unet.process
    spec = read_unet_config(BASE)
    changes = {"init_from": BASE.as_posix(), "unet": spec.network, "process": process, "precision": "bf16"}
    stage = load_script(ROOT / "stages" / "train_unet.py")
    run = Run(Account("train_unet", {}, {}, {}, {}, "", False), tracked=False)

    def network(precision: str = "bf16") -> Any:
        changed = p.model_copy(update=changes | {"precision": precision})
        return stage._network(changed, spec.sizes, Work(CPU, run))

    return network


def frozen_layers(network: nn.Module) -> set[torch.Size]:
    """The shapes of what is kept in 16 bits."""
    found = {p.shape for p in network.parameters() if p.dtype == torch.bfloat16 and p.ndim > 1}
    adapters = {p.shape for name, p in network.named_parameters() if is_adapter(name)}
    assert len(found) > 10
    return found - adapters


def test_a_base_is_read_weight_by_weight(project: Any) -> None:
    """Fails if a network is made in 32 bits before it gets its weights, or a file is read whole before it is rounded:
    of Stable Diffusion 1.x's U-Net, 3.4 GB in place of 1.7."""
    shapes = frozen_layers(project())
    with InFull(shapes) as counted:
        network = project()
    assert 0 < counted.most <= AT_ONCE
    assert len(shapes & counted.seen) > AT_ONCE  # so that one by one is less than all of them
    text = dict(network.text_encoder.named_parameters())
    assert {text[name].dtype for name in text if "q_proj.weight" in name} == {torch.bfloat16}  # it was read so as well


def test_what_was_rounded_while_it_was_read_has_the_same_numbers(project: Any) -> None:
    """And the same order in memory, for kernels add up by it."""
    read, rounded = project(), halve(project("fp32"))
    pairs = list(zip(read.named_parameters(), rounded.named_parameters(), strict=True))
    for (name, one), (other_name, other) in pairs:
        assert name == other_name
        assert (one.dtype, one.stride(), one.requires_grad) == (other.dtype, other.stride(), other.requires_grad), name
        assert torch.equal(one, other), name
    assert {one.dtype for (_, one), _ in pairs} == {torch.bfloat16, torch.float32}


@pytest.mark.parametrize("again", [False, True])
def test_a_step_makes_no_32_bit_copy_of_a_frozen_weight(project: Any, again: bool) -> None:
    network = project().train()
    checkpoint_activations(network, again)
    shapes = frozen_layers(network)
    with InFull() as counted, autocast(CPU, "bf16"):
        out = denoised(network, 1, (4, 8, 8), (pipelines.MAX_LENGTH,))
        out.float().square().mean().backward()
    assert counted.seen, "nothing was counted"
    assert not shapes & counted.seen
    gradients = [p.grad for p in network.parameters() if p.grad is not None]
    assert gradients
    assert {g.dtype for g in gradients} == {torch.float32}  # of adapters alone
