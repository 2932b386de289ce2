"""Commands that draw pictures."""

import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from darkroom.cli.names import check_names
from darkroom.cli.options import Options, checked_path, with_options
from darkroom.core.errors import DarkroomError
from darkroom.core.text import plural, printable_text
from darkroom.inference.defaults import INPAINT_STRENGTH, STRENGTH
from darkroom.inference.file_names import slug

if TYPE_CHECKING:
    from PIL import Image

    from darkroom.config.base import Precision
    from darkroom.inference.pipeline import Pipeline
    from darkroom.inference.record import Record
    from darkroom.interop.lora import LoRA

SAMPLES = Path("samples")
ROW = 8  # pictures of a prompt that stand in one line of a grid
VISIBLE = 128  # pixels that a side of a picture has in a grid, at least, unless asked otherwise

Prompt = Annotated[
    str | None,
    typer.Argument(help="What to draw, in the words of the training captions.", show_default=False),
]
Start = Annotated[Path, typer.Argument(help="Picture to start from, of any size.", show_default=False)]


@with_options
def generate(
    options: Options,
    prompt: Prompt = None,
    height: Annotated[int | None, typer.Option(min=1, help="Pixels. [default: as in training]")] = None,
    width: Annotated[int | None, typer.Option(min=1, help="Pixels. [default: as in training]")] = None,
) -> None:
    """Draw pictures of a prompt with the trained pipeline.

    A single picture is written to --out. Several are written beside it, numbered and in the size they were drawn in,
    and --out is a grid of them all: a row for each prompt, with the prompt below. The PNG metadata of every file says
    how it was made: `darkroom regenerate` makes it again.

    \b
    darkroom generate "EXAMPLE"
    darkroom generate "EXAMPLE" -n 4 --steps 50 --guidance-scale 3 --out four.png
    darkroom generate "a handwritten seven" --seed 12 --sampler dpmpp_2m --steps 10
    darkroom generate --prompts captions.txt --no-grid --gif drawing.gif
    """
    _draw(prompt, options, Inputs(height=height, width=width))


@with_options
def img2img(
    options: Options,
    image: Start,
    prompt: Prompt = None,
    strength: Annotated[float, typer.Option(help="0 keeps the picture, 1 forgets it.")] = STRENGTH,
) -> None:
    """Redraw a picture so that it shows a prompt.

    \b
    darkroom img2img scene.png "EXAMPLE"
    darkroom img2img scene.png "EXAMPLE" --strength 0.8 -n 4 --out four.png
    """
    _draw(prompt, options, Inputs(strength=strength, files={"image": image}))


@with_options
def inpaint(
    options: Options,
    image: Start,
    mask: Annotated[Path, typer.Argument(help="Picture of the same size, white where new pixels are wanted.")],
    prompt: Prompt = None,
    strength: Annotated[float, typer.Option(help="0 keeps what is there, 1 forgets it.")] = INPAINT_STRENGTH,
) -> None:
    """Redraw the masked part of a picture; the rest stays as it is, to the pixel.

    The prompt describes the entire picture, not only its new part.

    \b
    darkroom inpaint scene.png mask.png "EXAMPLE"
    darkroom inpaint scene.png mask.png "EXAMPLE" -n 4 --sampler ddpm --steps 50
    """
    _draw(prompt, options, Inputs(strength=strength, files={"image": image, "mask": mask}))


@dataclass(frozen=True)
class Inputs:
    """What is drawn from besides prompts; files: "image" and "mask". strength: where there is an image."""

    height: int | None = None
    width: int | None = None
    strength: float | None = None
    files: Mapping[str, Path] = field(default_factory=dict)


def _draw(prompt: str | None, o: Options, inputs: Inputs) -> None:
    """Check everything, draw, and print what was written."""
    prompts, negative = _prompts(prompt, o.prompts), o.negative_prompt
    negative = None if negative is None else _checked(negative, "negative_prompt")
    out = checked_path("--out", o.out or SAMPLES / f"{slug(prompts[0])}.png", ".png", made=o.out is None)
    check_names("--out", _numbered(out, len(prompts) * o.n))
    gif = None if o.gif is None else checked_path("--gif", o.gif, ".gif")
    if gif is not None and inputs.strength == 0:
        raise DarkroomError(f"--gif = {gif}: --strength 0 takes no step, so there is no film; leave one of them out")
    from darkroom.core.limits import PIXELS, check_sampling, counted
    from darkroom.inference.editing import check_strength
    from darkroom.inference.record_text import open_picture

    if inputs.strength is not None:
        check_strength(inputs.strength)
    pictures = {name: open_picture(path, PIXELS) for name, path in inputs.files.items()}
    if inputs.height and inputs.width:
        size = f"height = {counted(inputs.height)}, width = {counted(inputs.width)}: height x width"
        PIXELS.check(size, inputs.height * inputs.width, "draw a smaller picture")
    check_sampling({"num_inference_steps": o.steps}, "", "take fewer")
    model = load_pipeline(o.pipeline, lora=_adapters(o.lora or []))
    record = _record(model, o, inputs, prompts, negative, pictures)
    batch = slice(record.batch_size)
    first = replace(record, prompts=record.prompts[batch], seeds=record.seeds[batch], index=0)
    for file in [first, record] if len(record.prompts) > 1 and o.grid else [first]:
        file.check_work(model)
        file.check_fits()
    record.check_work(model, one_file=False)
    for remark in model.remarks.new([*prompts, *([negative] if negative else [])], record.size(model)):
        print(f"darkroom: {printable_text(remark)}", file=sys.stderr)
    _draw_and_save(model, record, out, o, gif)


def _record(
    model: "Pipeline",
    o: Options,
    inputs: Inputs,
    prompts: list[str],
    negative: str | None,
    pictures: "Mapping[str, Image.Image]",
) -> "Record":
    """What is to be drawn, checked against the model; pictures: those of the inputs."""
    from darkroom.core.artifact import content_hash
    from darkroom.core.text import printable
    from darkroom.inference.request import DrawingRequest, record_of

    wanted = DrawingRequest(
        prompts=[one for one in prompts for _ in range(o.n)],
        seeds=[o.seed + i for i in range(len(prompts) * o.n)],
        sampling=o.changes,
        negative=negative,
        height=inputs.height,
        width=inputs.width,
        strength=inputs.strength,
        pictures=pictures,
        sources={k: {"name": printable(path.name), "md5": content_hash(path)} for k, path in inputs.files.items()},
        columns=min(o.n, ROW) if len(prompts) > 1 and o.n > 1 else None,
        each=o.n,
        scale=o.scale or 1,
    )
    return record_of(model, wanted)


def _draw_and_save(model: "Pipeline", record: "Record", out: Path, o: Options, gif: Path | None) -> None:
    """Draw batch by batch, saving each picture as soon as it is there; then the grid, and the film of the first."""
    import torch
    from torch import Tensor

    from darkroom.core.progress import Progress
    from darkroom.view.film import DENOISED

    batches, paths = record.batches(), _numbered(out, len(record.prompts))
    pictures: list[Tensor] = []
    files: list[Path] = []
    evaluations, film = 0, None
    if gif is not None:
        strength = 1.0 if record.strength is None else record.strength
        film = model.film(batches[0].prompts[:DENOISED], record.sampling, strength)
    with Progress(record.steps(model), "draw") as bar:

        def watch(step: int, x: Tensor, x0: Tensor) -> None:
            bar.update()
            if film is not None and not pictures:
                film.watch(step, x, x0)

        for batch in batches:
            output = batch.draw(model, watch)
            evaluations += output.network_evaluations
            for i, picture in enumerate(output.tensor):
                files.append(paths[len(pictures)])
                pictures.append(picture)
                single = replace(batch, index=i, each=None)
                single.save(files[-1], single.file_pixels({i: picture}))
    if len(pictures) > 1 and o.grid:
        visible = max(1, -(-VISIBLE // max(pictures[0].shape[1:])))
        grid = replace(record, scale=o.scale or visible)
        grid.save(out, grid.file_pixels(torch.stack(pictures)))
        files.append(out)
    if film is not None and gif is not None:
        film.save(gif)
        files.append(gif)
    if record.sampling.sampler.kind == "ode":
        print(f"darkroom: ode: {plural(evaluations, 'evaluation')} of the network", file=sys.stderr)
    print(*map(printable_text, files), sep="\n")


def load_pipeline(folder: Path, precision: "Precision | None" = None, lora: "Sequence[LoRA]" = ()) -> "Pipeline":
    """The pipeline in `folder`, with adapters."""
    from darkroom import Pipeline
    from darkroom.core import device

    return Pipeline.from_pretrained(folder, device=device.start(), precision=precision, lora=lora)


def _adapters(texts: Sequence[str]) -> "list[LoRA]":
    from darkroom import LoRA

    return [LoRA.parse(text) for text in texts]


def _prompts(prompt: str | None, file: Path | None) -> list[str]:
    """The prompts, of the argument or of the file."""
    if (prompt is None) == (file is None):
        raise DarkroomError("prompt: give either PROMPT or --prompts FILE")
    if file is None:
        return [_checked(prompt or "", "prompt")]
    from darkroom.core.text import read_text

    try:
        lines = read_text(file).split("\n")
    except DarkroomError as error:
        raise DarkroomError(f"--prompts = {error}") from None
    found = [text for i, line in enumerate(lines, 1) if (text := _checked(line, f"--prompts = {file}: line {i}"))]
    if not found:
        raise DarkroomError(f"--prompts = {file}: holds no prompt; write one a line")
    return found


def _checked(text: str, what: str) -> str:
    """A text of a file or a shell, as the pipeline takes it."""
    from darkroom.inference.words import check_prompt, without_marks

    return check_prompt(without_marks(text), what)


def _numbered(out: Path, n: int) -> list[Path]:
    """Where n pictures go: one to `out`, several beside it under their numbers."""
    return [out] if n == 1 else [out.with_stem(f"{out.stem}-{number}") for number in range(1, n + 1)]
