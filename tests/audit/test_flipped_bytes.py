"""A random byte of a random file that a project keeps, changed: an audit names the file, or what it is a part of."""

import random
from pathlib import Path

import pytest

from darkroom.audit.auditor import Auditor

ROOTS = ("artifacts", "data", "reports", ".mlflow/artifacts")


def flips(count: int) -> list[str]:
    """What was not named of so many files of which a random byte was changed, each by itself."""
    rng = random.Random(16)
    files = [file for root in ROOTS for file in sorted(Path(root).rglob("*")) if file.is_file() and file.stat().st_size]
    silent = []
    for _ in range(count):
        file = rng.choice(files)
        before = file.read_bytes()
        place = rng.randrange(len(before))
        file.write_bytes(before[:place] + bytes([before[place] ^ (1 << rng.randrange(8))]) + before[place + 1 :])
        told = [one for one in Auditor(None).audit().findings if one.breaks]
        if not any(names(file, f"{one.where} {one.what}") for one in told):
            silent.append(f"{file} at {place}")
        file.write_bytes(before)
    return silent


def names(file: Path, said: str) -> bool:
    """Whether a finding names a file, or an output or a run that it is a part of."""
    parts = {file, *file.parents} - {Path(), Path("data"), Path("artifacts"), Path("reports"), Path(".mlflow")}
    return any(str(one) in said for one in parts) or any(part[:8] in said for part in file.parts if len(part) == 32)


@pytest.mark.usefixtures("tracked")
def test_a_random_byte_of_a_random_file_is_named() -> None:
    assert flips(40) == []


@pytest.mark.slow
@pytest.mark.usefixtures("tracked")
def test_500_random_bytes_are_named() -> None:
    silent = flips(500)
    assert len(silent) <= 15, silent
