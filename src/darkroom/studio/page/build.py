"""The page, put together."""

from typing import Any

from darkroom.studio.checkpoints import situation
from darkroom.studio.page import html
from darkroom.studio.page.compare import compare_tab
from darkroom.studio.page.draw import draw_tab
from darkroom.studio.page.edit import edit_tab
from darkroom.studio.page.film import film_tab
from darkroom.studio.page.parts import Fields, Page
from darkroom.studio.work import Studio

TITLE = "Darkroom studio"


def build(gr: Any, studio: Studio) -> Any:
    """The page as Gradio's `Blocks`. gr: Gradio."""
    names = studio.models.names()
    defaults = studio.models.defaults(names[0])
    with gr.Blocks(title=TITLE, analytics_enabled=False, fill_width=True) as blocks:
        gr.HTML(html.HEAD)
        with gr.Row():
            model = gr.Dropdown(names, value=names[0], label="Model", scale=4, elem_id="model")
            refresh = gr.Button("Refresh", scale=0, min_width=110, elem_id="refresh")
        state = gr.HTML(html.note([situation()]), elem_classes="dr-note", elem_id="situation")
        page = Page(gr, studio, model, defaults)
        with gr.Tabs():
            with gr.Tab("Draw"):
                drawing, drawn, size = draw_tab(page)
            with gr.Tab("Image to image"):
                redrawing = edit_tab(page, drawn, paints=False)
            with gr.Tab("Inpaint"):
                painting = edit_tab(page, drawn, paints=True)
            with gr.Tab("Compare"):
                comparing, models = compare_tab(page)
            with gr.Tab("Film"):
                filming = film_tab(page, drawn)
        _follow(page, [drawing, redrawing, painting, comparing, filming], size)

        def look_again(chosen: str, compared: list[str]) -> list[Any]:
            found = studio.models.names()
            here = [chosen] if chosen not in found else []
            kept = [one for one in compared if one not in found]
            return [gr.update(choices=here + found), gr.update(choices=kept + found), html.note([situation()])]

        refresh.click(page.answering(look_again), [model, models], [model, models, state], show_progress="hidden")
    return blocks


def _follow(page: Page, tabs: list[Fields], size: list[Any]) -> None:
    """Have the fields follow the model that is chosen."""
    gr = page.gr

    def follow(name: str) -> list[Any]:
        found = page.studio.models.defaults(name)
        sides = [gr.update(value=found.side, visible=found.sized) for _ in size]
        return [*(value for tab in tabs for value in tab.by_model(gr, found)), *sides]

    outputs = [*(one for tab in tabs for one in tab.inputs), *size]
    page.model.change(page.answering(follow), page.model, outputs, show_progress="hidden")
