"""One training from its beginning to the weights that are handed on: what is done around the steps of `Loop`."""

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Protocol

from darkroom.config.training import Training
from darkroom.core.checkpoint import Checkpoints, Stateful
from darkroom.training.engine.best import Best
from darkroom.training.engine.chance import against_chance
from darkroom.training.engine.curves import Curves
from darkroom.training.engine.distributed import Processes, losses_recognised
from darkroom.training.engine.division import Division
from darkroom.training.engine.ema import EMA, Network
from darkroom.training.engine.ending import Ending
from darkroom.training.engine.loop import Loop
from darkroom.training.engine.task import Fitted, Previews, Task, when
from darkroom.training.engine.throughput import Throughput


class Tracker(Protocol):
    """Who is told of every value."""

    def metrics(self, step: int, values: Mapping[str, float]) -> None: ...


class Session(Protocol):
    """What a stage lends to its training; see `runner.stage.Work`."""

    @property
    def run(self) -> Tracker: ...
    @property
    def checkpoints(self) -> Checkpoints: ...
    @property
    def processes(self) -> Processes: ...
    @property
    def ending(self) -> Callable[[int, int | None], Ending]: ...


@losses_recognised()
def fit(
    task: Task[Network], config: Training, session: Session, report: Path, previews: Previews[Network] | None = None
) -> Fitted[Network]:
    """Train, and hand on the averaged weights that count: the best on held-out data, or the last (`Task.best_by`).

    Args:
        report: the folder in which the curves are written.

    Raises:
        Interrupted: the end was asked for.
        DarkroomError: see `Loop.run`; or the network is no better than chance, and that is to end the stage.
    """
    flops = task.flops()
    division = Division.of(task, config, session.processes, session.checkpoints)
    ema, best = EMA(task.network, config.ema_half_life, division.average), Best()
    curves = Curves(config.log_every, session.run.metrics)
    speed = Throughput(flops, config.log_every, task.context, session.run.metrics)
    ending = session.ending(config.steps, config.stop_at)

    def measure(step: int, values: Mapping[str, float]) -> None:
        if step % config.validate_every == 0 or step == ending.step:
            measured = division.agreed(task.validate(ema.network))
            curves.record(step, measured)
            if task.best_by is not None:
                best.consider(step, measured[task.best_by], ema.network)

    def show(step: int, values: Mapping[str, float]) -> None:
        if previews is not None and step % previews.every == 0 and step < ending.step:
            previews.show(ema.network, step, when(step, step))

    if previews is not None and division.takes_part:
        previews.show_inputs()
        # before `Loop.run` resumes, so these are always the initial weights
        previews.show(ema.network, 0, when(0, 0))
    state: dict[str, Stateful] = {"curves": curves} if task.best_by is None else {"curves": curves, "best": best}
    Loop(
        task.phases(config),
        ema,
        steps=config.steps,
        batch_size=config.batch_size,
        description=task.description,
        accumulation=task.accumulation,
        hooks=speed.around([curves, measure, show]),
        read_every=[config.log_every, config.validate_every, *([] if previews is None else [previews.every])],
        checkpoints=session.checkpoints,
        state={**state, **task.state},
        processes=session.processes,
        ending=ending,
    ).run()
    best.restore(ema.network)
    last, step = ending.step, best.step or ending.step
    if previews is not None:  # not in `show`: a training resumed at its last step runs no hooks
        previews.show(ema.network, last, when(step, last))
    network = division.handed_on(ema.network)
    curves.write(report)
    held_out = {name: value for name, value in curves.rows[step].items() if name.startswith("held_out/")}
    reached = task.reached(network, held_out)
    return Fitted(network, step, last, held_out, against_chance(task.stage, config.on_worse_than_chance, reached))
