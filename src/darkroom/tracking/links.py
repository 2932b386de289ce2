"""The way back from a page of MLflow's: links to scores, parameters, data and commit, and to the runs of all it is of.

MLflow follows the links in its descriptions and shows the pictures, both relative to the server of the page.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Any

from darkroom.config.params import PARAMS_FILE
from darkroom.config.paths import MANIFESTS, PREPARED, REPORTS
from darkroom.tracking.repository import NO_REPOSITORY, commit_page
from darkroom.tracking.store import REPOSITORY, Store

LINEAGE = "report/lineage.svg"  # artifact of a run: what was made from what, drawn
SCORES = "report/scores.csv"  # artifact of a run that measured a model: its figures as a table
PAGES = ("report/model.html", "report/report.html")  # artifacts of a run: its report, that of the model first
DESCRIPTION = PREPARED / "dataset.json"
SHORT = 8  # digits of a hash
GAP = "&emsp;"  # between columns, where MLflow leaves none


@dataclass(frozen=True)
class Maker:
    """A run that made something.

    inputs, outputs: {path: DVC's hash}. commit: "" where it is not known, and `why` why. dirty: whether files differed
    from it; None: not known. repository: its page on the web, or "".
    """

    run: str
    name: str
    inputs: Mapping[str, str]
    outputs: Mapping[str, str]
    commit: str = ""
    dirty: bool | None = None
    why: str = ""
    repository: str = ""


def maker_of(run: Any) -> Maker:
    """What MLflow's `Run` says of itself."""
    tags = run.data.tags

    def under(prefix: str) -> dict[str, str]:
        return {key[len(prefix) :]: value for key, value in tags.items() if key.startswith(prefix)}

    return Maker(
        run.info.run_id,
        run.info.run_name,
        under("in."),
        under("out."),
        tags.get("mlflow.source.git.commit", ""),
        {"true": True, "false": False}.get(tags.get("git.dirty", "")),
        tags.get("git.unknown", ""),
        tags.get(REPOSITORY, ""),
    )


def makers_behind(store: Store, inputs: Mapping[str, str]) -> list[Maker]:
    """The runs that made these inputs and all that is behind them, each after those that it builds on."""
    found: dict[str, Maker] = {}
    visited: set[tuple[str, str]] = set()

    def visit(needed: Mapping[str, str]) -> None:
        for path, digest in sorted(needed.items()):
            if (path, digest) in visited:
                continue
            visited.add((path, digest))
            run = store.latest_maker(path, digest)
            if run is not None and run.info.run_id not in found:
                maker = maker_of(run)
                visit(maker.inputs)
                found[maker.run] = maker

    visit(inputs)
    return list(found.values())


def leads(store: Store, maker: Maker, behind: Sequence[Maker]) -> str:
    """A line of links from what a run made, and the picture of its lineage where the run keeps one.

    Args:
        behind: see `makers_behind`.
    """
    files = store.files(maker.run)
    reported = store.files(maker.run, PurePosixPath(LINEAGE).parent.as_posix()) if "report" in files else frozenset()
    scores = f"/artifacts/{SCORES}" if SCORES in reported else "/model-metrics"
    found = [f"[scores]({store.run_link(maker.run, scores)})"]
    found += [f"[report]({_file(store, maker, name)})" for name in PAGES if name in reported][:1]
    if PARAMS_FILE.name in files:
        found.append(f"[{PARAMS_FILE.name}]({_file(store, maker, PARAMS_FILE.name)})")
    found += _data(store, [maker, *behind])
    line = " · ".join([*found, _commit(maker)])
    return f"{line}\n\n![lineage]({store.picture_link(maker.run, LINEAGE)})" if LINEAGE in reported else line


def table_of_makers(store: Store, makers: Sequence[Maker]) -> str:
    """What a model is made of, and the run of each part: rows in the order in which they were made."""
    rows = [
        f"| `{path}`{GAP} | [{maker.name}]({store.run_link(maker.run)}){GAP} | `{digest[:SHORT]}` |"
        for maker in makers
        for path, digest in maker.outputs.items()
        if not PurePosixPath(path).is_relative_to(REPORTS.as_posix())
    ]
    return "\n".join(["| part | made by | content |", "| --- | --- | --- |", *rows]) if rows else ""


def fitted(text: str, length: int, rest: str) -> str:
    """A text of at most `length` characters: where lines are left out at its end, `rest` says where they stand."""
    if len(text) <= length:
        return text
    lines, room = list[str](), length - len(rest) - len("\n\n\n")
    for line in text.splitlines():
        room -= len(line) + 1
        if room < 0:
            break
        lines.append(line)
    return "\n".join(lines).rstrip() + f"\n\n{rest}\n"


def _data(store: Store, makers: Sequence[Maker]) -> Iterator[str]:
    """What describes the data: the manifest of the files that they were read from, if there are any, and the set."""
    path = PREPARED.as_posix()
    maker = next((one for one in makers if path in one.outputs), None)
    if maker is None:
        return
    yield from (f"[data manifest]({_file(store, maker, name)})" for name in sorted(_listed(store, maker, MANIFESTS)))
    if DESCRIPTION.as_posix() in _listed(store, maker, PREPARED):
        yield f"[data set]({_file(store, maker, DESCRIPTION.as_posix())})"
    else:
        yield f"[data set]({store.run_link(maker.run)})"


def _listed(store: Store, maker: Maker, folder: Path) -> frozenset[str]:
    return store.files(maker.run, folder.as_posix())


def _file(store: Store, maker: Maker, name: str) -> str:
    """The page that shows a file that a run keeps."""
    return store.run_link(maker.run, f"/artifacts/{name}")


def _commit(maker: Maker) -> str:
    if not maker.commit:
        return f"of no known commit: {maker.why or NO_REPOSITORY}"
    page = commit_page(maker.repository, maker.commit)
    commit = f"commit [`{maker.commit[:SHORT]}`]({page})" if page else f"commit `{maker.commit}`"
    return (
        commit
        + {True: ", with uncommitted changes", None: "", False: ""}[maker.dirty]
        + (f": {maker.why}" if maker.why else "")
    )
