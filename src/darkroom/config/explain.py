"""What the keys of params.yaml mean, from their fields: for `darkroom params explain` and docs/parameters.md."""

import difflib
import json
import sys
import textwrap
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from pydantic.fields import FieldInfo

from darkroom.config.base import Section
from darkroom.config.fields import Key, Model, alternatives, class_of, documented, keys, takes
from darkroom.config.kinds import KIND
from darkroom.config.params import PARAMS_FILE, Params, read
from darkroom.config.shipped import RECIPES, default_recipe
from darkroom.config.stage_spec import PIPELINE, StageSpec, stage_specs
from darkroom.core.errors import DarkroomError

WIDTH = 100  # letters of a line of prose
MOST_NEAREST = 8  # keys that a wrong one is answered with
TITLE = "# Parameters"
ABOUT = (
    "What may stand in `params.yaml`, from the classes that read it (`make docs` writes this page). No key has a "
    "default: a params file is complete. `darkroom params explain KEY` says the same of one key, with its value, the "
    "stages that read it and what changes with it."
)


def explain(key: str | None) -> list[str]:
    """A key, a section or a kind (`train_unet.process.vp`), as lines; without one, the sections.

    Raises:
        DarkroomError: there is no such key; names the nearest ones.
    """
    if key is None:
        return [_entry(name, _summary(field)) for name, field in Params.model_fields.items()]
    found = [one for one in keys(Params) if one.path == key]
    if not found:
        path, _, kind = key.rpartition(".")
        for one in keys(Params):
            if one.path == path and kind in (classes := alternatives(one.field)):
                return [f"{path}, of kind {kind}", *_section(classes[kind]())]
        raise DarkroomError(f"{key}: no such key in {PARAMS_FILE}; {_nearest(key)}")
    lines = [key]
    for one in _distinct(found):
        if one.kinds:
            lines.append(f"  where {', '.join(f'{section}.{KIND} = {kind}' for section, kind in one.kinds)}:")
        lines += textwrap.wrap(one.meaning, WIDTH, initial_indent="  ", subsequent_indent="  ")
        lines.append(f"  takes: {takes(one.field)}")
    field, values = found[0].field, _values(key)
    lines += [f"  {file}: {value}" for file, value in values.items() if not isinstance(value, dict)]
    lines += [f"  {line}" for line in _readers(key)]
    return lines + _inside(field, next(reversed(values.values()), None))


def page() -> str:
    """The text of docs/parameters.md: every section and kind once, where it is used first."""
    return "\n".join([TITLE, "", ABOUT, *_page_sections(Params, (), {})]) + "\n"


def _page_sections(model: Model, path: Sequence[str], titles: dict[tuple[str, ...], str]) -> Iterator[str]:
    """The keys of a section as a list, then the sections in it.

    Args:
        titles: {the classes behind a section: the title it was described under}, which is added to.
    """
    described = []
    yield ""
    for name, field in model.model_fields.items():
        if name == KIND:
            continue
        classes = tuple(f"{load().__module__}.{load().__name__}" for load in alternatives(field).values())
        title = ".".join((*path, name))
        if classes and classes not in titles:
            titles[classes] = title
            described.append((name, field))
        link = f"; see [{titles[classes]}](#{titles[classes].replace('.', '')})" if classes else ""
        meaning = f": {text}" if (text := documented(model).get(name)) else ""
        yield f"- **{name}** ({takes(field)}{link}){meaning}"
    for name, field in described:
        title = ".".join((*path, name))
        yield from ("", f"{'#' * min(len(path) + 2, 4)} {title}")
        for kind, load in alternatives(field).items():
            about = _about(load())
            yield from ("", f"**kind: {kind}** — {about}" if kind else about)
            yield from _page_sections(load(), (*path, name), titles)


def _distinct(found: Sequence[Key]) -> Iterator[Key]:
    """Of the kinds that have a key, one for each meaning."""
    yield from {(one.meaning, takes(one.field)): one for one in reversed(found)}.values()


def _inside(field: FieldInfo, values: Any) -> list[str]:
    """The keys of a section, of the kind that it has; of the others, what each is."""
    classes = alternatives(field)
    lines = [_entry(f"{KIND}: {kind}", _about(load())) for kind, load in classes.items() if kind]
    model = class_of(field, values)
    return lines + (_section(model) if model else [])


def _section(model: Model) -> list[str]:
    of_kind = f" ({KIND}: {', '.join(alternatives(model))})" if KIND in model.model_fields else ""
    fields = {name: field for name, field in model.model_fields.items() if name != KIND}
    entries = (_entry(name, documented(model).get(name) or takes(field)) for name, field in fields.items())
    return ["", *textwrap.wrap(f"{_about(model)}{of_kind}", WIDTH), *entries]


def _entry(name: str, text: str) -> str:
    return f"  {name:24} {textwrap.shorten(text, WIDTH, placeholder=' …')}"


def _summary(field: FieldInfo) -> str:
    classes = alternatives(field)
    return _about(next(iter(classes.values()))()) if len(classes) == 1 else f"{KIND}: {' or '.join(classes)}"


def _about(model: type[Section]) -> str:
    """The class's docstring, its first paragraph in one line."""
    return " ".join((model.__doc__ or "").split("\n\n")[0].split())


def _values(key: str) -> dict[str, Any]:
    """{file: the value of a key} in the default recipe and params.yaml, where they can be read and have it."""
    found = {}
    recipe = default_recipe()
    for label, file in ((RECIPES / recipe.name, recipe), (PARAMS_FILE, PARAMS_FILE)):
        try:
            value: Any = read(file)
            for name in key.split("."):
                value = value[name]
        except (DarkroomError, LookupError, TypeError):
            continue
        found[str(label)] = value if isinstance(value, dict) else json.dumps(value)
    return found


def _readers(key: str) -> list[str]:
    """The stages that read a key, what they write, and the stages that follow from that."""
    if not PIPELINE.is_file():
        return []
    stages = stage_specs()
    readers = [name for name, stage in stages.items() if any(_within(key, read) for read in stage.params)]
    if not readers:
        return ["read by: no stage, so nothing is run again when it changes"]
    outputs = [str(path) for name in readers for path in stages[name].outputs]
    after = ", ".join(name for name in _downstream(readers, stages) if name not in readers)
    return [
        f"read by: {', '.join(readers)}",
        *textwrap.wrap(f"changes: {', '.join(outputs)}", WIDTH, subsequent_indent="  "),
        *([f"then run again, where those differ: {after}"] if after else []),
    ]


def _within(key: str, other: str) -> bool:
    """Whether one of two keys holds the other."""
    return f"{key}.".startswith(f"{other}.") or f"{other}.".startswith(f"{key}.")


def _downstream(first: Sequence[str], stages: dict[str, StageSpec]) -> list[str]:
    reached = list(first)
    for name, stage in stages.items():  # in dvc.yaml, a stage comes after those that it needs
        made = [path for earlier in reached for path in stages[earlier].outputs]
        if name not in reached and any(
            path in made or path.is_relative_to(out) for path in stage.inputs for out in made
        ):
            reached.append(name)
    return reached


def _nearest(key: str) -> str:
    known = list(dict.fromkeys(one.path for one in keys(Params)))
    last = key.rpartition(".")[2]
    close = [path for path in known if path.rpartition(".")[2] == last]
    close += [path for path in difflib.get_close_matches(key, known, n=3) if path not in close]
    if not close:
        names = difflib.get_close_matches(last, {path.rpartition(".")[2] for path in known}, n=3)
        close = [path for path in known if path.rpartition(".")[2] in names]
    more = " …" if len(close) > MOST_NEAREST else ""
    return f"did you mean {', '.join(close[:MOST_NEAREST])}{more}?" if close else "darkroom params explain lists them"


if __name__ == "__main__":
    Path(sys.argv[1]).write_text(page(), encoding="utf-8")
