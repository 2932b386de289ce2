"""What is done to the files of the toy project, for an audit to name it."""

import shutil
import socket
from collections.abc import Callable
from pathlib import Path
from typing import Any

import yaml

from darkroom.core.artifact import content_hash, file_hash
from tests.support import toy

Audit = Callable[..., dict[str, Any]]
VAE, PREPARED, PIPELINE = Path("artifacts/vae"), Path("data/prepared"), Path("artifacts/pipeline")
WEIGHTS, METRICS = VAE / "weights.txt", Path("reports/train_vae/metrics.json")
LOCK, DEFINED, ELSEWHERE = Path("dvc.lock"), Path("dvc.yaml"), Path("../elsewhere")
Act = Callable[[], object]  # what somebody does to the project


def each(*acts: Act) -> Act:
    """One after the other."""
    return lambda: [act() for act in acts]


def replaced(path: Path, make: Callable[[Path], object]) -> Act:
    """What was there is moved out of the project, and something else put in its place."""

    def tamper() -> None:
        ELSEWHERE.mkdir()
        shutil.move(path, ELSEWHERE / path.name)
        make(path)

    return tamper


def linked(path: Path) -> Act:
    return replaced(path, lambda there: there.symlink_to((ELSEWHERE / there.name).resolve()))


def linked_to_a_copy(there: Path) -> None:
    shutil.copytree(ELSEWHERE / "vae", "copy")
    there.symlink_to("../copy")


def written(path: Path, text: str) -> Act:
    return lambda: toy.write_files({str(path): text})


def edited(path: Path, before: str, now: str) -> Act:
    def tamper() -> None:
        text = path.read_text()
        assert before in text
        path.write_text(text.replace(before, now))

    return tamper


def bind(path: Path) -> None:
    with socket.socket(socket.AF_UNIX) as one:
        one.bind(str(path))


def swap(one: Path, other: Path) -> None:
    text = one.read_text()
    one.write_text(other.read_text())
    other.write_text(text)


def in_cache(path: Path) -> Path:
    digest = content_hash(path)
    return Path(".dvc/cache/files/md5", digest[:2], digest[2:])


def spoil(place: Path, text: str = "spoilt") -> None:
    place.chmod(0o644)
    place.write_text(text)
    place.chmod(0o444)


def lock(change: Callable[[dict[str, Any]], object]) -> Act:
    """dvc.lock changed as an editor would."""

    def tamper() -> None:
        values = yaml.safe_load(LOCK.read_text())
        change(values["stages"])
        LOCK.write_text(yaml.safe_dump(values, sort_keys=False))

    return tamper


def both(before: str, now: str) -> Act:
    """dvc.yaml changed, and dvc.lock to match, as `dvc commit` does it."""

    def tamper() -> None:
        edited(DEFINED, before, now)()
        toy.shell("dvc commit -f train_vae")

    return tamper


def committed(tamper: Act) -> Act:
    def twice() -> None:
        tamper()
        toy.commit()

    return twice


def set_out(stage: dict[str, Any], **values: Any) -> None:
    stage["outs"][0].update(values)


def forged_output() -> None:
    """Weights, their object in the cache and dvc.lock, all agreeing."""
    WEIGHTS.write_text("better weights")
    toy.shell("dvc commit -f train_vae")


# name: (what is done, the kind, what is named in the finding)
Case = tuple[Act, str, str]


def named(found: dict[str, Any], kind: str, what: str) -> bool:
    told = [one for one in found["findings"] if one["breaks"] and one["kind"] == (kind or one["kind"])]
    return any(what in f"{one['where']}: {one['what']}" for one in told)


def everything(folder: Path) -> dict[str, str]:
    files = (file for file in sorted(folder.rglob("*")) if file.is_file() and not file.is_symlink())
    return {str(file): file_hash(file) for file in files}
