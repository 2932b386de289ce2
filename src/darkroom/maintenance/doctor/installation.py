"""Python, the packages that Darkroom needs, and its extras."""

import os
import platform
import shlex
import shutil
import sys
from collections.abc import Iterator
from importlib import metadata
from pathlib import Path

from packaging.requirements import Requirement
from packaging.version import InvalidVersion

from darkroom.maintenance.doctor.result import Result, ok, problem, warning

PACKAGE = "darkroom"
PRINTED = ("darkroom", "torch", "dvc", "mlflow")  # whose versions are printed
INTERNAL = ("test",)  # extras for those who work on the code


def check_python() -> Iterator[Result]:
    """Which Python runs, and whether DVC would start the same one: a stage's command says `python`."""
    here = Path(sys.executable).parent
    found = shutil.which("python")
    about = f"{platform.python_version()} in {here}"
    if found is None or Path(found).parent.resolve() != here.resolve():
        first = f"`python` is {found}" if found else "there is no `python` on the PATH"
        yield warning(
            "python",
            f"{about}, but {first}: dvc repro typed in this shell would not run stages with this installation",
            "",
            f'export PATH={shlex.quote(str(here))}:"$PATH"',
        )
    else:
        yield ok("python", about)


def check_packages() -> Iterator[Result]:
    """That each package is there, in a version that Darkroom works with."""
    faults, wanted = [], []
    for requirement in _requirements():
        if requirement.marker and not requirement.marker.evaluate({"extra": ""}):
            continue
        if fault := _fault(requirement):
            faults.append(fault)
            wanted.append(f"{requirement.name}{requirement.specifier}")
    if faults:
        yield problem(
            "packages",
            f"{'; '.join(faults)}: commands that need {'it' if len(faults) == 1 else 'them'} would fail",
            "",
            f"{shlex.quote(sys.executable)} -m pip install {' '.join(map(shlex.quote, wanted))}",
        )
    versions = ((name, _version(name)) for name in PRINTED)
    yield ok("packages", ", ".join(f"{name} {version}" for name, version in versions if version))


def check_extras() -> Iterator[Result]:
    """Which extras are installed; a problem where the project asks for one that is not."""
    by_extra: dict[str, list[Requirement]] = {}
    every = [one for one in metadata.metadata(PACKAGE).get_all("Provides-Extra") or [] if one not in INTERNAL]
    for extra in every:
        only = (one for one in _requirements() if one.marker and one.marker.evaluate({"extra": extra}))
        by_extra[extra] = [one for one in only if one.marker and not one.marker.evaluate({"extra": ""})]
    there = [extra for extra, wanted in by_extra.items() if not any(map(_fault, wanted))]
    missing = [extra for extra in every if extra not in there]
    if "ray" in missing and (asked := os.environ.get("DARKROOM_RAY")):
        found = f"ray is not installed, and DARKROOM_RAY = {asked} asks for it: no stage would start"
        yield problem("extras", found, "", "pip install 'darkroom[ray]'")
    absent = f"; not installed: {', '.join(missing)} (pip install 'darkroom[NAME]')" if missing else ""
    yield ok("extras", f"{', '.join(there) or 'none'}{absent}")


def _requirements() -> list[Requirement]:
    return [Requirement(line) for line in metadata.requires(PACKAGE) or []]


def _fault(requirement: Requirement) -> str:
    """What is wrong with an installed package; "" where nothing is."""
    if (found := _version(requirement.name)) is None:
        return f"{requirement.name} is not installed"
    try:
        if requirement.specifier.contains(found, prereleases=True):
            return ""
    except InvalidVersion:
        pass
    return f"{requirement.name} {found} is installed, and {requirement.specifier} is needed"


def _version(package: str) -> str | None:
    try:
        return metadata.version(package)
    except metadata.PackageNotFoundError:
        return None
