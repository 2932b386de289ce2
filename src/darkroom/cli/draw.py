"""Commands that draw pictures."""

import math
import re
import sys
import unicodedata
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from darkroom.cli.names import check_names
from darkroom.cli.options import Options, place, with_options
from darkroom.config.paths import PIPELINE
from darkroom.core.errors import DarkroomError
from darkroom.core.text import printable_text
from darkroom.inference.defaults import BATCH_SIZE, INPAINT_STRENGTH, STRENGTH

if TYPE_CHECKING:
    from torch import Tensor

    from darkroom.inference.film import Film
    from darkroom.inference.pipeline import Pipeline
    from darkroom.inference.record import Record

SAMPLES = Path("samples")
MAX_SLUG, MAX_SLUG_BYTES = 60, 200  # letters of a prompt, and bytes of them, that a file name takes
ROW = 8  # pictures of a prompt that stand in one line of a grid
SMALLER = "draw a smaller picture"
VISIBLE = 128  # pixels that a side of a picture has in a grid, at least, unless asked otherwise

Prompt = Annotated[
    str | None,
    typer.Argument(help="What the picture is to show, in the words of the training captions.", show_default=False),
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

    One picture goes to --out. Of several, --out shows all in a grid, a row for each prompt with the prompt below it,
    and each lies beside it under its number, in the size it was drawn in. Every file says in its PNG metadata how it
    was made: `darkroom regenerate` makes it again.

    \b
    darkroom generate "EXAMPLE"
    darkroom generate "EXAMPLE" -n 4 --steps 50 --guidance-scale 3 --out four.png
    darkroom generate "a handwritten seven" --seed 12 --sampler dpmpp_2m --steps 10
    darkroom generate --prompts captions.txt --no-grid --gif drawing.gif
    """
    _draw(prompt, options, height=height, width=width)


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
    _draw(prompt, options, strength=strength, image=image)


@with_options
def inpaint(
    options: Options,
    image: Start,
    mask: Annotated[Path, typer.Argument(help="Picture of the same size, white where new pixels are wanted.")],
    prompt: Prompt = None,
    strength: Annotated[float, typer.Option(help="0 keeps what is there, 1 forgets it.")] = INPAINT_STRENGTH,
) -> None:
    """Redraw the masked part of a picture; the rest stays as it is, to the pixel. The prompt tells the whole picture.

    \b
    darkroom inpaint scene.png mask.png "EXAMPLE"
    darkroom inpaint scene.png mask.png "EXAMPLE" -n 4 --sampler ddpm --steps 50
    """
    _draw(prompt, options, strength=strength, image=image, mask=mask)


def regenerate(
    picture: Annotated[Path, typer.Argument(help="PNG written by generate, img2img or inpaint.", show_default=False)],
    out: Annotated[
        Path | None, typer.Option(help="PNG file to write. [default: beside PICTURE, -again added to its name]")
    ] = None,
    pipeline: Annotated[Path, typer.Option(help="Folder of the pipeline that drew it.")] = PIPELINE,
) -> None:
    """Make a picture again, from what it says of itself, with the batch it came from.

    With the same device, threads, instruction set and library versions the file comes out the same to the byte.
    Otherwise it is said what differs, and by how much the pictures do.

    \b
    darkroom regenerate samples/a-small-red-circle.png
    """
    from darkroom.core.progress import Progress
    from darkroom.inference.record import Record, profile
    from darkroom.inference.written import differences

    record = Record.read(picture)
    out = place("--out", out or picture.with_stem(f"{picture.stem}-again"), ".png")
    model = _model(pipeline, record.precision)
    if model.model_hash != record.model:
        raise DarkroomError(
            f"{picture}: was drawn by the pipeline {record.model}, but {pipeline} is {model.model_hash}; "
            "name the folder that drew it with --pipeline"
        )
    now = profile(model)
    for line in differences(record.profile, now):
        print(f"darkroom: another execution profile: {printable_text(line)}", file=sys.stderr)
    try:
        record.check_work(model)
        record.sampling.levels(model.schedule, model.info.prediction_type)
    except DarkroomError as error:
        raise DarkroomError(f"{picture}: {error}") from None
    with Progress(record.steps(model), "regenerate") as bar:
        again = record.again(model, lambda *_: bar.update())
    replace(record, profile=now).save(out, again)
    print(f"{printable_text(out)}: {printable_text(_compared(picture, out, again))}")


def _compared(picture: Path, out: Path, again: "Tensor") -> str:
    """How like the picture the file `out` of the pixels `again`, uint8 (C, H, W), is."""
    import torch

    from darkroom.inference.editing import as_pictures
    from darkroom.inference.written import open_picture

    if out.read_bytes() == picture.read_bytes():
        return "the same file, to the byte"
    opened = open_picture(picture)
    if (size := (opened.height, opened.width)) != again.shape[1:]:
        drawn = f"{again.shape[2]} x {again.shape[1]}"
        return f"{drawn} pixels, but {picture} has {size[1]} x {size[0]}: it was changed since it was drawn"
    before = as_pictures(opened, len(again))[0]
    apart = int((torch.maximum(before, again) - torch.minimum(before, again)).max())
    return f"differs, by {apart} grey levels at most" if apart else "the same pixels"


def _draw(
    prompt: str | None,
    o: Options,
    *,
    height: int | None = None,
    width: int | None = None,
    strength: float | None = None,
    image: Path | None = None,
    mask: Path | None = None,
) -> None:
    """Draw, save and say what was written; arguments as the user gave them, strength with a picture alone."""
    prompts, negative = _prompts(prompt, o.prompts), o.negative_prompt
    negative = None if negative is None else _checked(negative, "negative_prompt")
    out = place("--out", o.out or SAMPLES / f"{_slug(prompts[0])}.png", ".png", made=o.out is None)
    check_names("--out", _numbered(out, len(prompts) * o.n))
    gif = None if o.gif is None else place("--gif", o.gif, ".gif")
    if gif is not None and strength == 0:
        raise DarkroomError(f"--gif = {gif}: of --strength 0, which takes no step, there is no film; leave one out")
    from darkroom.core.artifact import content_hash
    from darkroom.core.limits import PIXELS, check_sampling, counted
    from darkroom.core.tensors import to_pil
    from darkroom.core.text import printable
    from darkroom.inference.editing import as_pictures, check_strength, mask_levels
    from darkroom.inference.options import check_size, together
    from darkroom.inference.record import Record, profile
    from darkroom.inference.written import open_picture

    if strength is not None:
        check_strength(strength)
    inputs = {name: (path, open_picture(path, PIXELS)) for name, path in (("image", image), ("mask", mask)) if path}
    if height and width:
        PIXELS.check(f"height = {counted(height)}, width = {counted(width)}: height x width", height * width, SMALLER)
    check_sampling({"num_inference_steps": o.steps}, "", "take fewer")
    model = _model(o.pipeline)
    asked: dict[str, Any] = {
        "num_inference_steps": o.steps,
        "guidance_scale": o.guidance_scale,
        "guidance_rescale": o.guidance_rescale,
        "sampler": o.sampler,
        "spacing": o.spacing,
        "karras": o.karras,
        "eta": o.eta,
        "variance": o.variance,
        "snr": o.snr,
        "tolerance": o.tolerance,
    }
    given = {key: value for key, value in asked.items() if value is not None}
    how = model.sampling(sampling=model.info.sampling.changed(**given))
    wanted = [one for one in prompts for _ in range(o.n)]
    start = inputs["image"][1].size[::-1] if "image" in inputs else None
    size = start or (height or model.info.image_size, width or model.info.image_size)
    check_size(size, model.unet.fixed_side, model.vae.downscale)
    record = Record(
        prompts=wanted,
        seeds=[o.seed + i for i in range(len(wanted))],
        sampling=how,
        batch_size=min(BATCH_SIZE, together(size, model.vae.downscale)),
        model=model.model_hash,
        precision=model.precision,
        profile=profile(model),
        negative_prompt=negative,
        height=height,
        width=width,
        strength=strength,
        columns=_columns(len(prompts), o.n),
        each=o.n,
        scale=o.scale or 1,
        sources={name: {"name": printable(path.name), "md5": content_hash(path)} for name, (path, _) in inputs.items()},
        image=to_pil(as_pictures(inputs["image"][1], model.info.channels)[0]) if "image" in inputs else None,
        mask=to_pil(mask_levels(inputs["mask"][1])) if "mask" in inputs else None,
    )
    one = replace(record, prompts=wanted[: record.batch_size], seeds=record.seeds[: record.batch_size], index=0)
    for whole in [one, record] if len(wanted) > 1 and o.grid else [one]:
        whole.check_work(model)
        whole.check_fits()
    record.check_work(model, whole=False)
    for remark in model.remarks.new([*prompts, *([negative] if negative else [])], size):
        print(f"darkroom: {printable_text(remark)}", file=sys.stderr)
    _develop(model, record, out, o, gif)


def _develop(model: "Pipeline", record: "Record", out: Path, o: Options, gif: Path | None) -> None:
    """Draw batch by batch, saving each picture as soon as it is there; then the grid, and the film of the first."""
    import torch
    from torch import Tensor

    from darkroom.core.progress import Progress
    from darkroom.inference.options import Tally

    tally = Tally()
    batches, many, paths = record.batches(), len(record.prompts) > 1, _numbered(out, len(record.prompts))
    pictures: list[Tensor] = []
    film = None if gif is None else _film(model, batches[0])
    with Progress(record.steps(model), "draw") as bar:

        def watch(step: int, x: Tensor, x0: Tensor) -> None:
            bar.update()
            if film is not None and not pictures:
                film.watch(step, x, x0)

        written = []
        for batch in batches:
            for i, picture in enumerate(batch.draw(model, watch, tally)):
                pictures.append(picture)
                path = paths[len(pictures) - 1]
                alone = replace(batch, index=i, each=None)
                alone.save(path, alone.shown({i: picture}))
                written.append(path)
    if many and o.grid:
        together = replace(record, scale=o.scale or _visible(pictures[0].shape[1:]))
        together.save(out, together.shown(torch.stack(pictures)))
        written.append(out)
    if film is not None and gif is not None:
        film.save(gif)
        written.append(gif)
    if record.sampling.sampler == "ode":
        print(f"darkroom: ode: {tally.evaluations} evaluations of the network", file=sys.stderr)
    print(*map(printable_text, written), sep="\n")


def _film(model: "Pipeline", batch: "Record") -> "Film":
    from darkroom.inference.film import DENOISED, Film

    strength = 1.0 if batch.strength is None else batch.strength
    return Film(model, batch.prompts[:DENOISED], batch.sampling, strength)


def _model(folder: Path, precision: str | None = None) -> "Pipeline":
    from darkroom import Pipeline
    from darkroom.core import device

    return Pipeline.from_pretrained(folder, device=device.start(), precision=precision)  # type: ignore[arg-type]


def _prompts(prompt: str | None, file: Path | None) -> list[str]:
    """The prompts, given one way or the other."""
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
    """A text that a file or a shell handed over, as it is drawn."""
    from darkroom.inference.words import check_prompt, without_marks

    return check_prompt(without_marks(text), what)


def _columns(prompts: int, n: int) -> int:
    """Pictures beside each other in a grid: of one prompt or one picture each, as many as make it square."""
    return min(n, ROW) if prompts > 1 and n > 1 else math.ceil(math.sqrt(prompts * n))


def _visible(size: Sequence[int]) -> int:
    """How many times pictures of a size (height, width) in pixels are enlarged in a grid."""
    return max(1, -(-VISIBLE // max(size)))


def _slug(prompt: str) -> str:
    """A prompt as a file name: its letters and digits, joined by hyphens; the same in NFC and NFD."""
    letters = re.sub(r"\W+", "-", unicodedata.normalize("NFC", prompt).lower())[:MAX_SLUG]
    return letters.encode(errors="ignore")[:MAX_SLUG_BYTES].decode(errors="ignore").strip("-_") or "picture"


def _numbered(out: Path, n: int) -> list[Path]:
    """Where n pictures go: one to `out`, several beside it under their numbers."""
    return [out] if n == 1 else [out.with_stem(f"{out.stem}-{number}") for number in range(1, n + 1)]
