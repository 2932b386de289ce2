"""The adapters that a picture was drawn with, and the data that they were trained from."""

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from darkroom.audit.findings import short
from darkroom.audit.lineage import Lineage, Step

Locate = Callable[[str, str], tuple[str, Lineage] | None]  # path, content -> where it is known from, what is behind it


@dataclass(frozen=True)
class TracedInput:
    """What an adapter was trained from. found: where it is known from; "": nowhere. behind: the steps that made it."""

    path: str
    digest: str
    found: str
    behind: Lineage


@dataclass(frozen=True)
class TracedAdapter:
    """An adapter as the picture's record has it."""

    file: str
    md5: str
    strength: float
    base: str
    inputs: tuple[TracedInput, ...]

    @property
    def name(self) -> str:
        """Its file and content."""
        return f"{self.file} ({short(self.md5)})"

    @property
    def known(self) -> bool:
        """Whether anything that it was trained from was made here."""
        return any(one.found for one in self.inputs)

    @property
    def data(self) -> dict[str, str]:
        """{prepared data: where from}, of all that it was trained from."""
        steps = {step.stage: step for one in self.inputs for step in one.behind.steps.values()}
        return dict(_sources(steps.values()))


def _sources(steps: Any) -> Iterator[tuple[str, str]]:
    for step in steps:
        params: Mapping[str, Any] = step.flat_params
        kind, root = (params.get(f"{step.stage}.source.{key}") for key in ("kind", "root"))
        if kind:
            made: Step = step
            prepared = ", ".join(
                f"{path} {short(digest)}" for path, digest in made.outputs.items() if "reports" not in path
            )
            yield prepared, f"{kind} {root}" if root else str(kind)


def trace_adapters(record: Mapping[str, Any], locate: Locate) -> list[TracedAdapter]:
    """The adapters of a picture's record, which may hold anything; what is no adapter is left out."""
    found = []
    listed = record.get("adapters")
    for values in listed if isinstance(listed, list) else []:
        if not isinstance(values, dict) or not isinstance(values.get("md5"), str):
            continue
        inputs = values.get("inputs")
        traced = [
            _traced(path, digest, locate)
            for path, digest in (inputs.items() if isinstance(inputs, dict) else ())
            if isinstance(digest, str)
        ]
        strength = values.get("strength")
        found.append(
            TracedAdapter(
                str(values.get("file", "")),
                values["md5"],
                float(strength) if isinstance(strength, int | float) else 0.0,
                str(values.get("base", "")),
                tuple(traced),
            )
        )
    return found


def _traced(path: str, digest: str, locate: Locate) -> TracedInput:
    known = locate(path, digest)
    return TracedInput(path, digest, "", Lineage({})) if known is None else TracedInput(path, digest, *known)


def as_json(adapter: TracedAdapter) -> dict[str, Any]:
    """All of it, with whole hashes."""
    return {
        "file": adapter.file,
        "md5": adapter.md5,
        "strength": adapter.strength,
        "base": adapter.base,
        "inputs": [
            {"path": one.path, "md5": one.digest, "found": one.found, "stages": list(one.behind.steps)}
            for one in adapter.inputs
        ],
        "data": adapter.data,
    }


def lines(adapter: TracedAdapter) -> list[str]:
    """What it is and what it was trained from."""
    trained = f", trained on the network {short(adapter.base)}" if adapter.base else ""
    about = [f"  adapter   {adapter.name}, strength {adapter.strength:g}{trained}"]
    for one in adapter.inputs:
        about.append(f"            from {one.path} {short(one.digest)}" + (f", {one.found}" if one.found else ""))
    return about + [f"            data {prepared}: {source}" for prepared, source in adapter.data.items()]
