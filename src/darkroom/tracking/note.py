"""One execution of a stage: its account, and the note on its page in the user interface."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

NOTE = "mlflow.note.content"  # the tag whose text the run's page shows
PICTURES = 16  # of one name over the steps that `Observed` keeps at most


@dataclass
class Account:
    """One execution of a stage. Contents are DVC's hashes, by path relative to the project."""

    stage: str
    params: Mapping[str, Any]
    inputs: Mapping[str, str]
    code: Mapping[str, str]
    profile: Mapping[str, str]
    commit: str  # empty where it is not known
    dirty: bool | None  # None: not known
    outputs: dict[str, str] = field(default_factory=dict)
    figures: dict[str, float | str] = field(default_factory=dict)
    made_by: dict[str, str] = field(default_factory=dict)  # input -> id of the run that wrote it
    why_unknown: str = ""  # why commit or dirty are not known
    repository: str = ""  # its page on the web


@dataclass
class Observed:
    """What a stage told while it worked, tracked or not, for its report.

    metrics: points (step, value) by the curve's name. files: bytes by name, "samples/step_000100.png" or "words.json".
    """

    metrics: dict[str, list[tuple[int, float]]] = field(default_factory=dict)
    files: dict[str, bytes] = field(default_factory=dict)

    def add(self, step: int, values: Mapping[str, float]) -> None:
        for name, value in values.items():
            self.metrics.setdefault(name, []).append((step, float(value)))

    def keep(self, name: str, content: bytes) -> None:
        """Keep a file; of more than PICTURES in one folder every second goes, and the first and the last stay."""
        self.files.pop(name, None)
        self.files[name] = content
        folder = name.rpartition("/")[0]
        row = [one for one in self.files if folder and one.rpartition("/")[0] == folder]
        if len(row) > PICTURES:
            for one in row[1:-1:2]:
                del self.files[one]


def figure(value: float | str) -> str:
    """A key figure as people read it: four significant digits, texts and whole numbers as they are."""
    return f"{value:.4g}" if isinstance(value, float) else str(value)


def markdown(
    account: Account,
    origins: Mapping[str, str],
    locations: Mapping[str, str],
    pages: Mapping[str, str],
    leads: str = "",
) -> str:
    """The note, whose first line is what the page shows before it is unfolded.

    `origins[path]` names the maker of an input, where one is known; `locations[path]` says where to find an output;
    `pages[path]` is a link to the files behind a hash, where a run holds them. leads: see `links.leads`.
    """
    made_from = ", ".join(dict.fromkeys(origins.get(path, f"`{path}`") for path in account.inputs))  # each maker once
    sections = [
        (f"Made from {made_from}. " if made_from else "")
        + "Wrote "
        + ", ".join(f"`{p}`" for p in account.outputs)
        + ".",
        leads,
        _list(
            "Inputs",
            [
                f"`{path}` {f'by {origins[path]}' if path in origins else '(from no run)'} · "
                f"{_hash(digest, pages.get(path))}"
                for path, digest in account.inputs.items()
            ],
        ),
        _list(
            "Outputs",
            [
                f"`{path}` {locations[path]} · {_hash(digest, pages.get(path))}"
                for path, digest in account.outputs.items()
            ],
        ),
        _list("Ran on", [", ".join(f"{key.replace('_', ' ')} {value}" for key, value in account.profile.items())]),
        _list("Key figures", [f"{name}: {figure(value)}" for name, value in account.figures.items()]),
    ]
    return "\n\n".join(part for part in sections if part) + "\n"


def broken_off(reason: str) -> str:
    return f"### Broken off\n\n{reason}\n"


def _hash(digest: str, link: str | None) -> str:
    return f"[`{digest}`]({link})" if link else f"`{digest}`"


def _list(title: str, items: Sequence[str]) -> str:
    return f"**{title}**\n\n" + "\n".join(f"- {item}" for item in items) if items else ""
