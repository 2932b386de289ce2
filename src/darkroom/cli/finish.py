"""`darkroom finish`."""

import sys
from typing import Annotated

import typer

from darkroom.cli.completion import trained_stages


def finish(
    stage: Annotated[
        str, typer.Argument(help="The stage that is training.", show_default=False, autocompletion=trained_stages)
    ],
) -> None:
    """End a running training early; the stage completes, and the same bytes can be made again.

    The training ends after the current step. That step is written to params.yaml as `stop_at`, a parameter like any
    other: DVC records it, and the same training ends there again. The number of steps, the learning rate and all else
    stay as they are. The end of the training is as always (last measurement on held-out data, best weights, curves,
    previews), and dvc continues with the next stage.

    Run it in the project's folder, in another terminal, while dvc repro runs.

    \b
    darkroom finish train_unet
    """
    from darkroom.runner.finishing import finish as ask
    from darkroom.runner.resuming import STOP_AT

    done = ask(stage, lambda text: print(text, file=sys.stderr, flush=True))
    if done.end >= done.planned:
        print(f"{stage}: is at its last step, {done.planned}, and ends by itself; nothing was changed")
        return
    print(f"{stage}: ends after step {done.end} of {done.planned}; params.yaml says so now: {STOP_AT}: {done.end}")
    print(f"  the same bytes again: dvc repro -f -s {stage}")
    print(f"  all {done.planned} steps, from the beginning: {STOP_AT}: null, then dvc repro")
    if done.end <= done.warmup:
        print(f"  its learning rate was still rising: warmup_steps is {done.warmup}")
