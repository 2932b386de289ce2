"""The tab that draws the same in several ways, side by side."""

from dataclasses import dataclass
from typing import Any

from darkroom.config.sampling import SAMPLERS
from darkroom.studio.comparison import Comparison, compare, differences, ways_of
from darkroom.studio.page import html
from darkroom.studio.page.parts import Fields, Page, asked, fields
from darkroom.studio.seeds import numbers_in
from darkroom.studio.work import prompts_in

AXES = {
    "Models": "models",
    "Samplers": "sampler",
    "Guidance": "guidance_scale",
    "Steps": "num_inference_steps",
}
USUAL = {"guidance_scale": "1, 2, 4, 8", "num_inference_steps": "4, 8, 16, 32"}


@dataclass(frozen=True)
class Axis:
    """What differs between the columns: the components in which it is chosen, and its values."""

    chosen: Any
    models: Any
    samplers: Any
    numbers: Any

    @property
    def inputs(self) -> list[Any]:
        return list(vars(self).values())


def compare_tab(page: Page) -> tuple[Fields, Any]:
    """Its fields, and the component in which models are chosen."""
    gr = page.gr
    with gr.Row():
        with gr.Column(scale=2, min_width=300):
            axis = _axis(page)
            here = fields(page, "compare", "Compare", seeds="0, 1", lines=3)
        with gr.Column(scale=3, min_width=320):
            with gr.Row():
                apart = gr.Checkbox(True, label="Show the difference to the first column", elem_id="apart")
                amplified = gr.Slider(1, 16, value=4, step=1, label="Amplify it")
            remarks = gr.HTML("", elem_classes="dr-note")
            table = gr.HTML("", elem_id="comparison")
    state = gr.State(None)

    def draw(model: str, apart_too: bool, times: float, *values: Any) -> list[Any]:
        chosen, models, samplers, numbers, *of_fields = values
        key = AXES[chosen]
        in_way = {"models": models, "sampler": samplers}.get(key)
        if in_way is None:
            in_way = numbers_in(numbers or "", chosen.lower())
        wanted = asked(of_fields, prompts_in(of_fields[0] or ""))
        found = compare(page.studio, ways_of(key, in_way, model), wanted, page.progress())
        return [found, html.note(found.remarks, "warn"), _table(found, apart_too, times)]

    here.button.click(
        page.answering(draw),
        [page.model, apart, amplified, *axis.inputs, *here.inputs],
        [state, remarks, table],
    )
    for event in (apart.change, amplified.release):
        event(page.answering(_table), [state, apart, amplified], table, show_progress="hidden")
    return here, axis.models


def _axis(page: Page) -> Axis:
    gr, names = page.gr, page.studio.models.names()
    axis = gr.Radio(list(AXES), value="Models", label="What differs", elem_id="axis")
    models = gr.Dropdown(
        names,
        value=names[:2],
        multiselect=True,
        label="Models",
        info="The others are held against the first",
        elem_id="compared",
    )
    samplers = gr.Dropdown(
        list(SAMPLERS.classes), value=["ddim", "dpmpp_2m"], multiselect=True, label="Samplers", visible=False
    )
    numbers = gr.Textbox("", label="Values", info="Separated by commas", visible=False, elem_id="values")

    def show(chosen: str) -> list[Any]:
        key = AXES[chosen]
        usual = {"value": USUAL[key]} if key in USUAL else {}
        return [
            gr.update(visible=key == "models"),
            gr.update(visible=key == "sampler"),
            gr.update(visible=key in USUAL, **usual),
        ]

    axis.change(show, axis, [models, samplers, numbers], show_progress="hidden")
    return Axis(axis, models, samplers, numbers)


def _table(comparison: Comparison | None, apart_too: bool, times: float) -> str:
    if comparison is None:
        return ""
    return html.grid(comparison, differences(comparison, times) if apart_too else None)
