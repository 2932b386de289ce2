"""What several tabs have: the fields that say how to draw, and what is done with the pictures."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, get_args

from darkroom.config.sampling import SAMPLERS, Spacing
from darkroom.core.errors import DarkroomError
from darkroom.studio.models import Defaults
from darkroom.studio.page import html
from darkroom.studio.request import PageRequest
from darkroom.studio.seeds import SEEDS
from darkroom.studio.work import DrawnFiles, OnProgress, Studio

REFUSED = "Refused"
NOTHING = "draw a picture first, then choose it"


@dataclass(frozen=True)
class Page:
    """What every tab is made with. gr: Gradio. model: the component in which a model is chosen."""

    gr: Any
    studio: Studio
    model: Any
    defaults: Defaults

    def answering(self, work: Callable[..., Any]) -> Callable[..., Any]:
        """`work`, whose errors that a person can fix stand on the page, in one line."""

        def answer(*values: Any) -> Any:
            try:
                return work(*values)
            except DarkroomError as error:
                said = html.plain(error)
                raise self.gr.Error(said, duration=None, title=REFUSED, print_exception=False) from None

        return answer

    def progress(self) -> OnProgress:
        """To be called with the steps that are done, and their number."""
        bar = self.gr.Progress()
        return lambda done, of: bar((done, of), unit="steps")


@dataclass(frozen=True)
class Fields:
    """The components that say how to draw; `inputs` are their values, in the order of `asked`.

    button: draws.
    """

    prompt: Any
    negative: Any
    seeds: Any
    steps: Any
    guidance: Any
    sampler: Any
    spacing: Any
    rescale: Any
    karras: Any
    button: Any

    @property
    def inputs(self) -> list[Any]:
        return [component for name, component in vars(self).items() if name != "button"]

    def by_model(self, gr: Any, found: Defaults) -> list[Any]:
        """`inputs` as they are for another model."""
        kept = [gr.skip() for _ in self.inputs]
        kept[0] = gr.update(value=found.prompt, info=found.knows)
        kept[3:6] = [found.steps, found.guidance_scale, found.sampler]
        return kept


def fields(page: Page, name: str, act: str, seeds: str = "0-3", lines: int = 2) -> Fields:
    """Those of the tab of a name, with the model's own values in them.

    Args:
        act: what the button says. lines: of the prompt.
    """
    gr, own_values = page.gr, page.defaults
    several = "Prompts, one a line" if lines > 2 else "Prompt"
    prompt = gr.Textbox(
        own_values.prompt, label=several, lines=lines, max_lines=8, info=own_values.knows, elem_id=f"{name}-prompt"
    )
    with gr.Row():
        numbers = gr.Textbox(seeds, label=f"Seeds, as {SEEDS}", min_width=120, elem_id=f"{name}-seeds")
        steps = gr.Number(own_values.steps, label="Steps", precision=0, minimum=1, min_width=80)
        guidance = gr.Number(
            own_values.guidance_scale, label="Guidance", minimum=0, maximum=100, step=0.5, min_width=80
        )
    sampler = gr.Dropdown(list(SAMPLERS.classes), value=own_values.sampler, label="Sampler", allow_custom_value=True)
    button = gr.Button(act, variant="primary", elem_id=name if name in ("draw", "compare", "film") else f"{name}-draw")
    with gr.Accordion("More", open=False):
        negative = gr.Textbox("", label="Negative prompt", info="What the picture should not show")
        spacing = gr.Dropdown(
            [("the model's own", ""), *((one, one) for one in get_args(Spacing))], value="", label="Where the steps lie"
        )
        rescale = gr.Slider(0, 1, value=0, step=0.05, label="Guidance rescale", info="Less overexposure; 0.7 is usual")
        karras = gr.Checkbox(False, label="Karras' spacing", info="Smaller steps at the end")
    return Fields(prompt, negative, numbers, steps, guidance, sampler, spacing, rescale, karras, button)


def asked(values: Sequence[Any], prompts: Sequence[str] | None = None) -> PageRequest:
    """What the values of `Fields.inputs` ask for. prompts: in place of the one field."""
    prompt, negative, seeds, steps, guidance, sampler, spacing, rescale, karras = values
    return PageRequest(
        prompts=[prompt or ""] if prompts is None else prompts,
        seeds=seeds or "",
        negative=negative or "",
        sampling={
            "num_inference_steps": None if steps is None else int(steps),
            "guidance_scale": None if guidance is None else float(guidance),
            "sampler": sampler,
            "spacing": spacing,
            "guidance_rescale": float(rescale) if rescale else None,
            "karras": True if karras else None,
        },
    )


@dataclass(frozen=True)
class Results:
    """Pictures that were drawn, and what can be done with the chosen one.

    drawn: state, the files. chosen: state, which of them.
    """

    gallery: Any
    drawn: Any
    chosen: Any
    remarks: Any
    download: Any
    said: Any
    lineage: Any

    @property
    def outputs(self) -> list[Any]:
        """What `values` fills."""
        return [self.gallery, self.drawn, self.chosen, self.remarks, self.download, self.said, self.lineage]

    def values(self, gr: Any, drawn: DrawnFiles) -> list[Any]:
        """Of `outputs`."""
        pairs = [(str(file), caption) for file, caption in zip(drawn.files, drawn.captions, strict=True)]
        count = f"{len(pairs)} drawn by {drawn.model} in {drawn.seconds:.1f} s. Each file says how it was made."
        remarks = html.note([count]) + html.note(drawn.remarks, "warn")
        files = [str(file) for file in drawn.files]
        return [gr.update(value=pairs, selected_index=None), files, 0, remarks, _download(gr, files, 0), "", ""]


def results(page: Page, name: str, columns: int = 4) -> Results:
    """What the tab of a name has drawn."""
    gr = page.gr
    gallery = gr.Gallery(
        label="Pictures", show_label=False, columns=columns, object_fit="contain", height=430,
        elem_classes="dr-gallery", elem_id=f"{name}-gallery", interactive=False, buttons=["download", "fullscreen"],
    )  # fmt: skip
    drawn, chosen = gr.State([]), gr.State(0)
    remarks = gr.HTML("", elem_classes="dr-note")
    with gr.Row():
        download = gr.DownloadButton(
            "Download", size="sm", interactive=False, min_width=120, elem_id=f"{name}-download"
        )
        again = gr.Button("Make it again", size="sm", min_width=120, elem_id=f"{name}-again")
        made = gr.Button("What made this", size="sm", min_width=120, elem_id=f"{name}-lineage")
    said = gr.HTML("", elem_classes="dr-note")
    lineage = gr.HTML("", elem_classes="dr-lineage")

    def choose(files: list[str], event: Any) -> list[Any]:
        return [event.index, _download(gr, files, event.index), "", ""]

    choose.__annotations__["event"] = gr.SelectData  # by which Gradio knows what it wants

    def make_again(files: list[str], index: int) -> str:
        made_again = page.studio.again(chosen_file(files, index), page.progress())
        name = made_again.file.name
        return html.note([f"{name}: {made_again.said}"], "good" if made_again.identical else "warn")

    gallery.select(choose, [drawn], [chosen, download, said, lineage], show_progress="hidden")
    again.click(page.answering(make_again), [drawn, chosen], said)
    made.click(
        page.answering(lambda files, i: html.lineage(page.studio.lineage(chosen_file(files, i)))),
        [drawn, chosen],
        lineage,
    )
    return Results(gallery, drawn, chosen, remarks, download, said, lineage)


def chosen_file(files: Sequence[str], index: int) -> Path:
    """The file of the chosen picture.

    Raises:
        DarkroomError: there is none.
    """
    if not files:
        raise DarkroomError(f"picture: none is there yet; {NOTHING}")
    return Path(files[min(index, len(files) - 1)])


def _download(gr: Any, files: Sequence[str], index: int) -> Any:
    file = chosen_file(files, index)
    seed = file.stem.rpartition("-seed-")[2].partition("-")[0]
    return gr.update(value=str(file), interactive=True, label=f"Download seed {seed}")
