"""`darkroom serve`."""

from typing import Annotated

import typer

from darkroom.cli.options import taught


@taught
def serve(
    version: Annotated[
        str | None,
        typer.Option(help="Which version of the registered model: its number, or an alias. [default: candidate]"),
    ] = None,
    port: Annotated[int | None, typer.Option(min=1, max=65535, help="[default: 5001]")] = None,
    host: Annotated[
        str | None, typer.Option(help="Address to listen on. [default: 127.0.0.1, this machine only]")
    ] = None,
    name: Annotated[
        list[str] | None,
        typer.Option(help="Name by which clients may address this server, besides --host; may be repeated."),
    ] = None,
) -> None:
    """Serve a registered pipeline: prompts in, pictures out.

    It is MLflow's scoring application, behind limits on what a request may ask for. Environment variables set them:
    DARKROOM_SERVE_ROWS, _STEPS, _PIXELS, _SECONDS and so on (docs/serving.md); GET /limits returns the current ones.

    \b
    darkroom serve
    curl http://127.0.0.1:5001/invocations -H 'Content-Type: application/json' \\
      -d '{"dataframe_records": [{"prompt": "EXAMPLE"}], "params": {"seed": 7}}'

    The answer is {"predictions": [{"image": PNG file in base64}]}. A row with an `image` (a PNG file in base64) redraws
    that picture, by as much as the parameter `strength` says. The other parameters:
    num_inference_steps, guidance_scale, sampler, seed (of the first row; the next ones have seed + 1, + 2, …) and
    negative_prompt.
    """
    from darkroom.serving import server
    from darkroom.serving.registry import ALIAS

    server.serve(ALIAS if version is None else version, host or server.HOST, port or server.PORT, name or [])
