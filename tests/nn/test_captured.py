"""A captured network answers what the network itself does, whatever the order of shapes and conditions.

On the CPU a recorder that runs the recorded function again stands for the CUDA graph: it would catch inputs that are
not copied to where the recording reads them, results that the next call overwrites, a shape taken for another, and a
recording that fails and takes the drawing with it. On a GPU the graph itself is tried.
"""

import copy
import logging
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor

from darkroom.inference import captured
from darkroom.inference.captured import KEPT, WARM_UP, CapturedNetwork
from darkroom.inference.packed_unet import PackedUNet
from darkroom.nn.denoiser.base import DenoisingNetwork
from tests.support.networks import built
from tests.support.unets import CLASSES, TINY, inputs

CPU = torch.device("cpu")


class Again:
    """In the place of a graph: what was recorded is run once more, and its result put where the first one lay."""

    def __init__(self) -> None:
        self.recorded = self.replayed = 0

    def record(self, run: Callable[[], Tensor]) -> tuple[Callable[[], None], Tensor]:
        output = run()
        self.recorded += 1

        def replay() -> None:
            self.replayed += 1
            output.copy_(run())

        return replay, output


def network(config: Any, randomise: Any) -> DenoisingNetwork:
    unet = built(config)
    randomise(unet)
    return PackedUNet(unet.eval().requires_grad_(False))


def recorded(of: DenoisingNetwork) -> tuple[CapturedNetwork, Again]:
    made, again = CapturedNetwork(of, CPU, "fp32"), Again()
    made._recorder = again  # type: ignore[assignment]
    return made, again


def calls(config: Any, of: DenoisingNetwork, n: int = 3) -> tuple[Any, ...]:
    x = inputs(config, n)
    context = None if x["words"] is None else of.prepare_context(x["words"])
    return x["sample"], torch.full((n,), 300.0), context, x["class_labels"]


@pytest.mark.parametrize("config", [TINY, CLASSES], ids=["text", "classes"])
def test_replays_are_the_network(randomise: Any, config: Any) -> None:
    unet = network(config, randomise)
    made, again = recorded(unet)
    x, t, context, classes = calls(config, unet)
    answers, wanted = [], []
    for step in range(8):
        if step == 5 and context is not None:  # another prompt
            context = [(k.flip(0), v + 1) for k, v in context]
        if step == 5 and classes is not None:
            classes = classes.flip(0)
        given = x + step, t - 30 * step
        answers.append(made(*given, context, classes))
        wanted.append(unet(*given, context, classes))
    assert (again.recorded, again.replayed) == (1, 8 - WARM_UP)
    for found, expected in zip(answers, wanted, strict=True):
        assert torch.equal(found, expected)


def test_each_shape_has_its_recording_and_only_some_are_kept(randomise: Any) -> None:
    unet = network(TINY, randomise)
    made, again = recorded(unet)
    for n in range(1, KEPT + 3):
        given = calls(TINY, unet, n)
        for _ in range(WARM_UP + 2):
            assert torch.equal(made(*given), unet(*given))
    assert again.recorded == KEPT + 2
    assert len(made._recordings) == KEPT


def test_contexts_of_other_lengths_are_other_shapes(randomise: Any) -> None:
    unet = network(TINY, randomise)
    made, again = recorded(unet)
    x, t, context, _ = calls(TINY, unet)
    shorter = [(k[:, :, :2], v[:, :, :2]) for k, v in context]
    for given in (context, shorter) * 4:
        assert torch.equal(made(x, t, given, None), unet(x, t, given))
    assert again.recorded == 2


def test_what_cannot_be_recorded_is_drawn_without(randomise: Any, caplog: Any) -> None:
    unet = network(TINY, randomise)
    made, again = recorded(unet)

    def refused(run: Any) -> Any:
        raise RuntimeError("operation not permitted when stream is capturing")

    again.record = refused  # type: ignore[method-assign]
    given = calls(TINY, unet)
    with caplog.at_level(logging.WARNING, logger="darkroom"):
        for _ in range(WARM_UP + 3):
            assert torch.equal(made(*given), unet(*given))
    assert [record.getMessage() for record in caplog.records] == [
        "drawing without CUDA graphs, which is slower for small batches: operation not permitted when stream is "
        "capturing"
    ]


def test_the_cpu_records_nothing(randomise: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(captured, "_Recording", None)
    unet = network(TINY, randomise)
    made = CapturedNetwork(unet, CPU, "fp32")
    given = calls(TINY, unet)
    for _ in range(WARM_UP + 2):
        assert torch.equal(made(*given), unet(*given))


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")
@pytest.mark.parametrize("precision", ["fp32", "bf16"])
def test_a_graph_is_the_network(randomise: Any, precision: Any) -> None:
    cuda = torch.device("cuda")
    unet = built(TINY)
    randomise(unet)
    unet = copy.deepcopy(unet).eval().requires_grad_(False).to(cuda)
    if precision == "bf16":
        for module in unet.modules():
            if isinstance(module, torch.nn.Conv2d | torch.nn.Linear):
                module.to(torch.bfloat16)
    fast = PackedUNet(unet)
    made = CapturedNetwork(fast, cuda, precision)
    x = inputs(TINY)
    with torch.no_grad(), torch.autocast("cuda", torch.bfloat16, enabled=precision == "bf16"):
        context = fast.prepare_context(x["words"].to(cuda))
        for step in range(6):
            given = x["sample"].to(cuda) + step, torch.full((3,), 900.0 - 30 * step, device=cuda)
            assert torch.equal(made(*given, context, None), fast(*given, context))
    assert len(made._recordings) == 1
