"""The training loop: the algorithm, and nothing else. Logging, validation and samples are hooks."""

from collections.abc import Callable, Mapping, Sequence
from typing import Any

from darkroom.core import device as devices
from darkroom.core.checkpoint import Checkpoints, Stateful
from darkroom.core.progress import Progress
from darkroom.training.engine.compiling import compile_networks
from darkroom.training.engine.disk_space import check_disk, state_bytes, tensor_bytes
from darkroom.training.engine.distributed import ALONE, Processes
from darkroom.training.engine.ema import EMA
from darkroom.training.engine.ending import Ending
from darkroom.training.engine.latch import Latch
from darkroom.training.engine.phase import Loss, Phase
from darkroom.training.engine.steps import Steps

Hook = Callable[[int, Mapping[str, float]], None]  # (steps done, the values of the last one)
__all__ = ["Hook", "Loss", "Phase", "train"]


def train(
    phases: Sequence[Phase],
    ema: EMA[Any],
    *,
    steps: int,
    batch_size: int,
    accumulation: int,
    hooks: Sequence[Hook],
    description: str,
    read_every: Sequence[int] = (1,),
    checkpoints: Checkpoints | None = None,
    remembered: Mapping[str, Stateful] | None = None,
    processes: Processes = ALONE,
    ending: Ending | None = None,
) -> None:
    """Minimise the losses of all phases for `steps` steps of `batch_size` samples, in `accumulation` parts each.

    Args:
        steps: over which the learning rate runs.
        hooks: called after every step. They get its values unread: who looks at one waits for the device.
        read_every: numbers of steps after whose multiples the values may be read, for the log or before a validation;
            between them the device is not waited for.
        checkpoints: where to go on from, if there is one, and where to save. None: nowhere.
        remembered: what else has a memory, hooks above all, by name.
        processes: who share the rows. Hooks run in the one that leads; for the others all ends here.
        ending: after which step it ends; hooks learn it from there. None: after `steps`.

    Raises:
        Interrupted: the end was asked for.
        DarkroomError: the disk has no room for what a training writes; or a loss or gradient was not finite at a step
            since the values were last read. No weight, moment or average has been moved from that step on, and no
            checkpoint written.
    """
    state: dict[str, Stateful] = {f"phase {i}": phase for i, phase in enumerate(phases)} | {"ema": ema}
    state |= remembered or {}
    checkpoints = checkpoints or Checkpoints.none()
    parts = processes.parts(batch_size, accumulation)
    ending = ending or Ending(steps)
    if processes.leads and checkpoints.folder is not None:
        check_disk(description, state_bytes(state), tensor_bytes(ema.state_dict()), checkpoints.folder)
    first = checkpoints.resume(state, ending.step)
    together = processes.together(first, [phase.network for phase in phases])
    hooks = ending.around(hooks if processes.leads else ())
    settings = devices.runtime()
    compile_networks([phase.network for phase in phases], settings.compile, steps)
    making = Steps(
        phases, ema, steps, parts, batch_size, processes, Latch(phases[0].device), capture=settings.cuda_graphs
    )
    with (
        together as meeting,
        Progress(ending.step, description, training=True) as bar,
        checkpoints.interruption.deferred(),
        ending.watched(processes.leads, meeting),
        making.begun(),
    ):
        bar.start_at(first)
        step, shown = first, dict[str, float]()
        while step < (end := ending.after(step)):
            bar.total = end
            values = making.make(step, end)
            step += 1
            if step == end or any(step % every == 0 for every in read_every):
                making.check()
                shown = {"loss": values["loss"]}
            for hook in hooks:
                hook(step, values)
            bar.update(1, **shown)
            checkpoints.after(step, state, end, making.check)
