"""The tabs that start from a picture: image to image, and inpainting with a brush."""

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

from PIL import Image

from darkroom.core.errors import DarkroomError
from darkroom.inference.defaults import INPAINT_STRENGTH, STRENGTH
from darkroom.inference.record_text import open_picture
from darkroom.studio.page.look import PAINT
from darkroom.studio.page.parts import Fields, Page, Results, asked, chosen_file, fields, results
from darkroom.studio.request import Start, mask_of, opened

CANVAS = 448  # pixels of the side that is painted on, at least


def edit_tab(page: Page, drawn: Results, paints: bool) -> Fields:
    """paints: with a brush. drawn: the pictures of the first tab, one of which may be taken."""
    gr, name = page.gr, "inpaint" if paints else "img2img"
    with gr.Row():
        with gr.Column(scale=2, min_width=300):
            take = gr.Button("Use the picture chosen in Draw", size="sm", elem_id=f"{name}-take")
            picture = gr.Image(
                type="filepath", image_mode=None, sources=["upload", "clipboard"], label="Picture to start from",
                height=200 if paints else 300, elem_classes="dr-start", elem_id=f"{name}-picture",
            )  # fmt: skip
            fit = gr.Checkbox(True, label=f"Crop and scale it to the {page.defaults.side} pixels that the model draws")
            editor = _editor(gr) if paints else None
            strength = gr.Slider(
                0, 1, value=INPAINT_STRENGTH if paints else STRENGTH, step=0.05, label="Strength",
                info="0 keeps what is there, 1 forgets it",
            )  # fmt: skip
        with gr.Column(scale=3, min_width=320):
            here = fields(page, name, "Draw the painted part anew" if paints else "Redraw")
            found = results(page, name)

    def redraw(model: str, path: str | None, fitted: bool, strong: float, painted: Any, *values: Any) -> list[Any]:
        start = Start(_picked(path), float(strong), fit=bool(fitted))
        if paints:
            start = replace(start, mask=_mask(page, model, start, painted))
        wanted = replace(asked(values), start=start)
        return found.values(gr, page.studio.draw(model, wanted, page.progress()))

    def to_paint_on(model: str, path: str | None, fitted: bool) -> Any:
        if path is None:
            return None
        return {
            "background": _enlarged(_start_picture(page, model, Path(path), fitted)),
            "layers": [],
            "composite": None,
        }

    take.click(
        page.answering(lambda files, index: str(chosen_file(files, index))), [drawn.drawn, drawn.chosen], picture
    )
    if editor is not None:
        for event in (picture.change, fit.change):
            event(page.answering(to_paint_on), [page.model, picture, fit], editor, show_progress="hidden")
    painted = editor if editor is not None else gr.State(None)
    here.button.click(
        page.answering(redraw),
        [page.model, picture, fit, strength, painted, *here.inputs],
        found.outputs,
        show_progress_on=found.gallery,
    )
    return here


def _editor(gr: Any) -> Any:
    return gr.ImageEditor(
        type="filepath", format="png", sources=(), transforms=(), layers=False, image_mode="RGBA",
        label="Paint over what is to be drawn anew", height=CANVAS + 90, canvas_size=(CANVAS, CANVAS),
        brush=gr.Brush(colors=[PAINT], color_mode="fixed", default_size=48), eraser=gr.Eraser(default_size=48),
        elem_id="painting",
    )  # fmt: skip


def _picked(path: str | None) -> Path:
    if path is None:
        raise DarkroomError("picture: none to start from; drop one there, or take one from Draw")
    return Path(path)


def _start_picture(page: Page, model: str, path: Path, fit: bool) -> Image.Image:
    side = page.studio.models.defaults(model).side
    return opened(path, side, page.studio.limits.of_model(side), fit)


def _enlarged(picture: Image.Image) -> Image.Image:
    """Whole pixels enlarged to be painted on."""
    times = max(1, CANVAS // max(picture.size))
    return picture.convert("RGBA").resize((picture.width * times, picture.height * times), Image.Resampling.NEAREST)


def _mask(page: Page, model: str, start: Start, painted: Mapping[str, Any] | None) -> Image.Image:
    size = _start_picture(page, model, start.picture, start.fit).size
    layers = [open_picture(Path(layer)) for layer in (painted or {}).get("layers", [])]
    return mask_of(layers, size)
