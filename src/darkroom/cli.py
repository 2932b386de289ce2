"""The command line, `darkroom`. What is heavy is imported by the command that needs it, so that --help is quick."""

import math
import re
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from darkroom import __version__, cli_interop
from darkroom.cli_register import register
from darkroom.core.choices import SamplerName
from darkroom.core.errors import DarkroomError

if TYPE_CHECKING:
    from PIL.Image import Image

    from darkroom.data.manifest import Files, Manifest
    from darkroom.params import OutsideSource

PIPELINE, SAMPLES = Path("artifacts/pipeline"), Path("samples")
MAX_PICTURES, BATCH = 256, 64
MAX_SLUG = 60  # letters of a prompt that a file name takes
INTERRUPTED = 130

app = typer.Typer(
    help="Train latent diffusion models from scratch, stage by stage, and draw with them.",
    epilog="Training itself is `make repro` (all stages that are out of date) or `dvc repro STAGE`.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
)
recipe = typer.Typer(help="Complete sets of parameters under names: list, show, use.", no_args_is_help=True)
params = typer.Typer(help="The parameters in params.yaml: check.", no_args_is_help=True)
data = typer.Typer(help="Data from outside the project: scan.", no_args_is_help=True)
for name, group in {"recipe": recipe, "params": params, "data": data}.items():
    app.add_typer(group, name=name)
app.command()(register)


@app.command(no_args_is_help=True)
def generate(
    prompt: Annotated[str, typer.Argument(help="What the picture is to show, in the words of the training captions.")],
    n: Annotated[int, typer.Option("-n", min=1, max=MAX_PICTURES, help="How many pictures.")] = 1,
    steps: Annotated[int | None, typer.Option(min=1, help="Sampling steps. [default: the pipeline's]")] = None,
    guidance_scale: Annotated[
        float | None,
        typer.Option(min=0, help="How hard the prompt is pressed; 1 is no guidance. [default: the pipeline's]"),
    ] = None,
    seed: Annotated[int, typer.Option(min=0, help="Of the first picture; the next ones have seed + 1, + 2, …")] = 0,
    sampler: Annotated[SamplerName | None, typer.Option(help="[default: the pipeline's]")] = None,
    out: Annotated[
        Path | None, typer.Option(help="PNG file to write. [default: samples/, named after the prompt]")
    ] = None,
    pipeline: Annotated[Path, typer.Option(help="Folder of the trained pipeline.")] = PIPELINE,
) -> None:
    """Draw pictures of a prompt with the trained pipeline.

    One picture goes to --out. Of several, --out shows all in a grid, and each lies beside it under its number. Every
    file says in its PNG metadata how it was made; the same seed gives the same picture again.

    \b
    darkroom generate "a small red circle above a large blue square"
    darkroom generate "a green star" -n 4 --steps 50 --guidance-scale 3 --out stars.png
    darkroom generate "a handwritten seven" --seed 12 --sampler dpmpp_2m --steps 10
    """
    out = out or SAMPLES / f"{_slug(prompt)}.png"
    if out.suffix.lower() != ".png":
        raise DarkroomError(f"--out = {out}: give a name that ends in .png")
    import torch

    from darkroom import Pipeline
    from darkroom.core import device
    from darkroom.core.progress import Progress
    from darkroom.core.tensors import image_grid, to_pil

    model = Pipeline.from_pretrained(pipeline, device=device.start())
    how = model.sampling(steps, guidance_scale, sampler)
    seeds = [seed + i for i in range(n)]
    batches = [slice(first, first + BATCH) for first in range(0, n, BATCH)]
    pictures: list[torch.Tensor] = []
    with Progress(len(batches) * how.num_inference_steps, "generate") as bar:
        for rows in batches:
            pictures += model.text_to_image(
                [prompt] * len(seeds[rows]),
                num_inference_steps=steps,
                guidance_scale=guidance_scale,
                sampler=sampler,
                seeds=seeds[rows],
                output="tensor",
                on_step=lambda *_: bar.update(),
            )
    facts = {
        "prompt": prompt,
        "steps": how.num_inference_steps,
        "guidance_scale": how.guidance_scale,
        "sampler": how.sampler,
        "model": model.model_hash,
        "Software": f"Darkroom {__version__}",
    }
    if n == 1:
        _save(out, to_pil(pictures[0]), {**facts, "seed": seed})
        return
    for i, (picture, own) in enumerate(zip(pictures, seeds, strict=True), 1):
        _save(out.with_stem(f"{out.stem}-{i}"), to_pil(picture), {**facts, "seed": own})
    grid = image_grid(torch.stack(pictures), columns=math.ceil(math.sqrt(n)))
    _save(out, to_pil(grid), {**facts, "seed": f"{seeds[0]} to {seeds[-1]}"})


@recipe.command("list")
def recipe_list() -> None:
    """List the recipes and what each is for."""
    from darkroom import recipes

    names = recipes.names()
    for one in names:
        print(f"{one:{max(map(len, names))}}  {recipes.about(one)}")


@recipe.command("show", no_args_is_help=True)
def recipe_show(name: Annotated[str, typer.Argument(help="As `darkroom recipe list` spells it.")]) -> None:
    """Print a recipe."""
    from darkroom import recipes

    print(recipes.file_of(name).read_text(encoding="utf-8"), end="")


@recipe.command("use", no_args_is_help=True)
def recipe_use(name: Annotated[str, typer.Argument(help="As `darkroom recipe list` spells it.")]) -> None:
    """Write a recipe to params.yaml, and say what stood there before.

    \b
    darkroom recipe use mnist && dvc repro     (make repro RECIPE=mnist does both)
    """
    from darkroom import recipes

    print(recipes.use(name))


@params.command("check")
def params_check(
    file: Annotated[Path | None, typer.Argument(help="[default: params.yaml]", show_default=False)] = None,
) -> None:
    """Print every fault of a params file, a line each: the key, the value, what is allowed. Exit 1 if there is one.

    \b
    darkroom params check
    darkroom params check recipes/mnist.yaml
    """
    from darkroom.params import PARAMS_FILE, problems

    found = problems(file or PARAMS_FILE)
    for line in found:
        print(line)
    if found:
        raise typer.Exit(1)
    print(f"{file or PARAMS_FILE}: sound")


@data.command("scan")
def data_scan(
    which: Annotated[
        str | None, typer.Argument(help="A recipe or a params file. [default: params.yaml]", show_default=False)
    ] = None,
) -> None:
    """Write the manifest of a source: names, sizes and hashes of its files, to be committed.

    Reads the folder prepare_data.source.root below DARKROOM_DATA (default data/raw) and writes the file that
    prepare_data.source.manifest names. From then on prepare_data refuses files that have changed.

    \b
    DARKROOM_DATA=~/pictures darkroom data scan
    DARKROOM_DATA=~/pictures darkroom data scan mnist
    """
    from darkroom.data.manifest import scan
    from darkroom.params import PARAMS_FILE, OutsideSource, load

    source = load(_params_file(which) if which else PARAMS_FILE).prepare_data.source
    if not isinstance(source, OutsideSource):
        raise DarkroomError(f"prepare_data.source.kind = {source.kind!r} reads no files: there is nothing to scan")
    if source.manifest is None:
        raise DarkroomError("prepare_data.source.manifest = null: name the file to write, data/manifests/NAME.json")
    found = scan(_files(source), source.manifest)
    if not found.files:
        raise DarkroomError(f"{source.root}: no files of the kind {source.kind} here; check prepare_data.source.root")
    changes = _changes(found)
    found.write()
    size = sum(entry.size for entry in found.files.values())
    print(f"{found.path}: {len(found.files)} files, {size / 2**20:.1f} MiB, {changes}; commit it")


@app.command()
def ui(port: Annotated[int | None, typer.Option(min=1, max=65535, help="[default: 5050]")] = None) -> None:
    """Serve the runs, pictures and models of this project in MLflow's user interface, on this machine only."""
    from darkroom.tracking.store import UI_PORT
    from darkroom.tracking.ui import serve

    serve(UI_PORT if port is None else port)


@app.command()
def version() -> None:
    """Print the version."""
    print(f"darkroom {__version__}")


cli_interop.register(app)


def _slug(prompt: str) -> str:
    """A prompt as a file name: its letters and digits, joined by hyphens."""
    return re.sub(r"\W+", "-", prompt.lower())[:MAX_SLUG].strip("-_") or "picture"


def _params_file(which: str) -> Path:
    from darkroom import recipes

    return Path(which) if Path(which).suffix in (".yaml", ".yml") else recipes.file_of(which)


def _files(source: "OutsideSource") -> "Files":
    """The files of a source, opened without a manifest."""
    from darkroom.data.sources.captioned_folder import CaptionedFolder
    from darkroom.data.sources.image_folder import ImageFolder
    from darkroom.data.sources.torchvision_sets import Torchvision
    from darkroom.data.sources.webdataset import WebDataset
    from darkroom.params import ImageFolderSource, TorchvisionSource, WebDatasetSource

    if isinstance(source, TorchvisionSource):
        return Torchvision(source.name, source.root, source.caption, source.download).files
    if isinstance(source, ImageFolderSource):
        return ImageFolder(source.root, source.caption).files
    return (WebDataset if isinstance(source, WebDatasetSource) else CaptionedFolder)(source.root).files


def _changes(found: "Manifest") -> str:
    """How a manifest differs from the one that stands in its place."""
    from darkroom.data.manifest import Manifest

    if not found.path.exists():
        return "new"
    before = Manifest.load(found.path).files
    counts = {
        "new": len(found.files.keys() - before.keys()),
        "changed": sum(before[name] != entry for name, entry in found.files.items() if name in before),
        "gone": len(before.keys() - found.files.keys()),
    }
    return ", ".join(f"{count} {what}" for what, count in counts.items() if count) or "unchanged"


def _save(path: Path, picture: "Image", facts: dict[str, object]) -> None:
    """Write a PNG with text metadata and say where."""
    from PIL.PngImagePlugin import PngInfo

    from darkroom.core.artifact import whole

    info = PngInfo()
    for key, value in facts.items():
        info.add_text(key, str(value))
    try:
        with whole(path) as beside:
            picture.save(beside, format="PNG", pnginfo=info)
    except OSError as error:
        raise DarkroomError(f"{path}: cannot be written ({error.strerror}); give another --out") from None
    print(path)


def main() -> None:
    """Run the command line: an error the user can mend is one line on stderr and exit status 1."""
    try:
        app()
    except DarkroomError as error:
        print(f"darkroom: {error}", file=sys.stderr)
        sys.exit(1)
    except KeyboardInterrupt:
        sys.exit(INTERRUPTED)
