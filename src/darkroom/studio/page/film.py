"""The tab of films: how a picture comes about, and how the process makes noise of one."""

from pathlib import Path
from typing import Any

from darkroom.studio.films import Filmed, denoising, noising
from darkroom.studio.page import html
from darkroom.studio.page.parts import Fields, Page, Results, asked, chosen_file, fields


def film_tab(page: Page, drawn: Results) -> Fields:
    """Its fields; drawn: the pictures of the first tab, one of which may be taken."""
    gr = page.gr
    with gr.Row():
        with gr.Column(scale=1, min_width=300):
            gr.HTML("<b>From noise to a picture</b>")
            here = fields(page, "film", "Film it", seeds="0")
        with gr.Column(scale=1, min_width=320):
            step = gr.Slider(0, page.defaults.steps, value=0, step=1, label="Step", elem_id="step")
            shown_step = gr.HTML("")
            remarks = gr.HTML("", elem_classes="dr-note")
            with gr.Row():
                picture_file = gr.DownloadButton(
                    "Download the picture", size="sm", interactive=False, min_width=120, elem_id="film-download"
                )
                gif = gr.DownloadButton("Download the GIF", size="sm", interactive=False, min_width=120)
    with gr.Row():
        with gr.Column(scale=1, min_width=300):
            gr.HTML("<b>From a picture to noise</b>")
            take = gr.Button("Use the picture chosen in Draw", size="sm", elem_id="noise-take")
            picture = gr.Image(
                type="filepath", image_mode=None, sources=["upload", "clipboard"], label="Picture", height=220,
                elem_classes="dr-start",
            )  # fmt: skip
        with gr.Column(scale=1, min_width=320):
            time = gr.Slider(0, 1, value=0, step=1, label="Time of the process", elem_id="time")
            shown_time = gr.HTML("")
    steps, times = gr.State(None), gr.State(None)

    def film(model: str, *values: Any) -> list[Any]:
        found = denoising(page.studio, model, asked(values), page.progress())
        last = len(found.frames) - 1
        files = [gr.update(value=str(file), interactive=True) for file in (found.picture, found.gif)]
        slider = gr.update(maximum=last, value=last)
        return [found, slider, html.frame(found.frames[last]), html.note(found.remarks, "warn"), *files]

    def add_noise(model: str, path: str | None) -> list[Any]:
        if path is None:
            return [None, gr.skip(), ""]
        found = noising(page.studio, model, Path(path))
        last = len(found.frames) - 1
        return [found, gr.update(maximum=last, value=last // 4), html.frame(found.frames[last // 4])]

    def at(found: Filmed | None, index: float) -> str:
        return "" if found is None else html.frame(found.frames[min(int(index), len(found.frames) - 1)])

    here.button.click(
        page.answering(film), [page.model, *here.inputs], [steps, step, shown_step, remarks, picture_file, gif]
    )
    take.click(page.answering(lambda files, i: str(chosen_file(files, i))), [drawn.drawn, drawn.chosen], picture)
    picture.change(page.answering(add_noise), [page.model, picture], [times, time, shown_time])
    for slider, state, target in ((step, steps, shown_step), (time, times, shown_time)):
        slider.input(at, [state, slider], target, show_progress="hidden", trigger_mode="always_last")
    return here
