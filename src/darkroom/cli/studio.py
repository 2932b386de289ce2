"""`darkroom studio`."""

from pathlib import Path
from typing import Annotated

import typer

from darkroom.config.paths import PIPELINE


def studio(
    pipelines: Annotated[
        list[Path] | None,
        typer.Argument(help="Folders of pipelines. [default: artifacts/pipeline]", show_default=False),
    ] = None,
    port: Annotated[int | None, typer.Option(min=1, max=65535, help="[default: 5002]")] = None,
) -> None:
    """Open a page to draw on, on this machine only; it loads nothing from elsewhere.

    Draw from a prompt, redraw a picture or the part of it that you paint over, compare models, samplers, guidance and
    steps with the difference between them, watch a picture come about. Every picture is a PNG that says how it was
    made: the page makes it again and says whether it is identical, and shows what made it, as darkroom audit does;
    darkroom regenerate FILE does the same with a file that was downloaded.

    Besides the folders given, the page offers the averages that checkpoints of a training hold, also while it runs
    (Refresh finds new ones), and the registered versions.

    The limits of darkroom serve hold here too: DARKROOM_SERVE_ROWS, _STEPS, _PIXELS, _SECONDS and so on
    (docs/serving.md).

    Needs: pip install 'darkroom[studio]'

    \b
    darkroom studio
    darkroom studio before artifacts/pipeline --port 5003
    """
    from darkroom.studio import server

    server.serve(pipelines or [PIPELINE], server.PORT if port is None else port)
