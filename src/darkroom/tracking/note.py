"""What is told of one execution of a stage: its account, and the note on its page in the user interface."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any


@dataclass
class Account:
    """One execution of a stage. Contents are DVC's hashes, by path relative to the project."""

    stage: str
    params: Mapping[str, Any]
    inputs: Mapping[str, str]
    code: Mapping[str, str]
    profile: Mapping[str, str]
    commit: str  # empty outside a git repository
    dirty: bool
    outputs: dict[str, str] = field(default_factory=dict)
    figures: dict[str, float | str] = field(default_factory=dict)
    made_by: dict[str, str] = field(default_factory=dict)  # input -> id of the run that wrote it


def readable_size(n_bytes: float) -> str:
    """512 B, 3.1 MiB, …"""
    for unit in ("B", "KiB", "MiB"):
        if n_bytes < 1024:
            return f"{n_bytes:.3g} {unit}"
        n_bytes /= 1024
    return f"{n_bytes:.4g} GiB"


def figure(value: float | str) -> str:
    """A key figure as people read it: four significant digits, texts and whole numbers as they are."""
    return f"{value:.4g}" if isinstance(value, float) else str(value)


def markdown(account: Account, origins: Mapping[str, str], places: Mapping[str, Sequence[str]]) -> str:
    """The note: key figures; inputs, each with `origins[path]`, where it came from; outputs, each with its `places`."""
    parts = []
    if account.figures:
        figures = [(name, figure(value)) for name, value in account.figures.items()]
        parts.append(_table("Key figures", ("figure", "value"), figures))
    if account.inputs:
        inputs = [(f"`{path}`", origins.get(path, ""), f"`{digest}`") for path, digest in account.inputs.items()]
        parts.append(_table("Made from", ("input", "made by", "content (DVC's md5)"), inputs))
    outputs = [(f"`{path}`", " · ".join(places.get(path, ())), f"`{d}`") for path, d in account.outputs.items()]
    parts.append(_table("Made", ("output", "where", "content (DVC's md5)"), outputs))
    parts.append(_table("Ran on", ("what", "value"), list(account.profile.items())))
    changed = " with uncommitted changes" if account.dirty else ""
    parts.append(f"Code: commit `{account.commit}`{changed}." if account.commit else "Code: not in a git repository.")
    return "\n\n".join(parts) + "\n"


def _table(title: str, header: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    lines = [header, ["---"] * len(header), *rows]
    return f"### {title}\n\n" + "\n".join("| " + " | ".join(line) + " |" for line in lines)
