"""The tab that draws pictures of a prompt."""

from dataclasses import replace
from typing import Any

from darkroom.studio.page.parts import Fields, Page, Results, asked, fields, results


def draw_tab(page: Page) -> tuple[Fields, Results, list[Any]]:
    """Its fields, its results, and the components for a size."""
    gr = page.gr
    with gr.Row():
        with gr.Column(scale=2, min_width=300):
            here = fields(page, "draw", "Draw")
            with gr.Row():
                width = gr.Number(page.defaults.side, label="Width", precision=0, minimum=1, min_width=80)
                height = gr.Number(page.defaults.side, label="Height", precision=0, minimum=1, min_width=80)
        with gr.Column(scale=3, min_width=320):
            found = results(page, "draw")

    def draw(model: str, wide: float | None, high: float | None, *values: Any) -> list[Any]:
        wanted = replace(asked(values), width=int(wide) if wide else None, height=int(high) if high else None)
        return found.values(gr, page.studio.draw(model, wanted, page.progress()))

    inputs = [page.model, width, height, *here.inputs]
    here.button.click(page.answering(draw), inputs, found.outputs, show_progress_on=found.gallery)
    here.prompt.submit(page.answering(draw), inputs, found.outputs, show_progress_on=found.gallery)
    return here, found, [width, height]
