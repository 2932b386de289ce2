"""`darkroom show`: pictures of what a recipe does, before anything is trained."""

from pathlib import Path
from typing import Annotated

import typer

from darkroom.cli.options import checked_path
from darkroom.config.paths import REPORTS
from darkroom.core.errors import DarkroomError

FORWARD = REPORTS / "forward.png"

show = typer.Typer(help="Pictures of what a recipe does, such as darkroom show forward.", no_args_is_help=True)


@show.command("forward")
def show_forward(
    recipe: Annotated[
        str | None, typer.Option(help="As `darkroom recipe list` spells it. [default: params.yaml]", show_default=False)
    ] = None,
    out: Annotated[Path, typer.Option(help="PNG file to write.")] = FORWARD,
) -> None:
    """Show how the noise process turns pictures into noise, and its log-SNR over time.

    A row for each of the first held-out pictures of data/prepared: clean, then at 25, 50, 75 and 100 % of the times.
    All are shown in the fixed range from black to white, never stretched to the values of one picture.

    The noise of variance-exploding processes exceeds that range. For those a second row shows the same pictures divided
    by sqrt(alpha^2 + sigma^2): what is left of the picture beside the noise.

    Noise is added to the pictures themselves. Latent recipes add it to latents: train_unet shows those in
    reports/train_unet/forward.png.

    \b
    darkroom show forward
    darkroom show forward --recipe mnist-score-transformer --out forward.png
    """
    from darkroom.config import recipes
    from darkroom.config.autoencoder import IdentityVAE
    from darkroom.config.params import PARAMS_FILE, load
    from darkroom.config.paths import PREPARED
    from darkroom.core.tensors import save_png
    from darkroom.data.prepared import INFO, Prepared
    from darkroom.view.forward import ROWS, forward_of_pictures

    params = load(recipes.file_of(recipe) if recipe else PARAMS_FILE)
    checked_path("--out", out, ".png", made=out == FORWARD)
    if not (PREPARED / INFO).is_file():
        raise DarkroomError(f"{PREPARED}: no pictures here yet; make them with: dvc repro -s prepare_data")
    split = Prepared.open(PREPARED).split("validation")
    run = max(split.runs, key=len)  # pictures of one size
    rows = run[:ROWS]
    vae = params.train_vae
    black, white = vae.range if isinstance(vae, IdentityVAE) else (-1.0, 1.0)
    pictures, captions = split.images(rows), split.captions[rows.start : rows.stop]
    save_png(out, forward_of_pictures(pictures, captions, params.train_unet.process, black, white))
    print(out)
