"""Files, links, cache, lock, definition and git tampered with: named with exit status 1, and mended as it is printed.

Each case would be passed over in silence, or would leave a project that is not whole, if the audit, or the remedy that
it prints, were wrong for it: remedies are executed as they stand, and the next audit must find nothing. MLflow has its
own, test_tampering_mlflow.py.
"""

import json
import os
import re
import shutil
import signal
import socket
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml

from darkroom.config.stage_spec import stage_specs
from darkroom.core.artifact import content_hash, file_hash
from darkroom.tracking.executed_code import DEFINITION, FRAME, OUTSIDE
from tests.support import toy

Audit = Callable[..., dict[str, Any]]
VAE, PREPARED, PIPELINE = Path("artifacts/vae"), Path("data/prepared"), Path("artifacts/pipeline")
WEIGHTS, METRICS = VAE / "weights.txt", Path("reports/train_vae/metrics.json")
LOCK, DEFINED, ELSEWHERE = Path("dvc.lock"), Path("dvc.yaml"), Path("../elsewhere")
ROUNDS = 4  # of audit and remedy: what stands behind another thing is seen once that is away
LONGEST = 60  # seconds that a case may take: a pipe that is read would keep it for ever


@pytest.fixture(autouse=True)
def _no_waiting() -> Iterator[None]:
    """What hangs fails."""
    signal.signal(signal.SIGALRM, lambda *_: pytest.fail("hangs"))
    signal.alarm(LONGEST)
    yield
    signal.alarm(0)


@pytest.fixture
def mend(audit: Audit, run: Callable[..., int]) -> Callable[..., dict[str, Any]]:
    """Execute the remedy of the first finding, and audit again, until there is none."""

    def call(found: dict[str, Any], tracked: bool) -> dict[str, Any]:
        for _ in range(ROUNDS):
            if not found["findings"]:
                break
            first = found["findings"][0]
            for command in re.split(r", or |, once ", first["remedy"]):
                if not command.startswith(("dvc ", "git ", "rm ", "find ", "cp ", "darkroom ")):
                    continue
                if command.startswith("darkroom audit --repair"):
                    run("audit", "--repair")
                else:
                    toy.shell(command)
                if tracked and command.startswith("dvc repro"):  # its script would have told of its run
                    toy.record_run("train_vae", **yaml.safe_load(Path("params.yaml").read_text())["train_vae"])
                found = audit()
                if first not in found["findings"]:
                    break
        return found

    return call


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
FILES: dict[str, Case] = {
    "a byte flipped": (written(WEIGHTS, "after 2 steps"), "tampered", "weights.txt"),
    "a file more": (written(VAE / "config.json", "{}"), "tampered", "config.json (new)"),
    "a hidden file more": (written(VAE / ".evil", ""), "tampered", ".evil (new)"),
    "a file less": (lambda: (PREPARED / "train/a.txt").unlink(), "tampered", "train/a.txt (gone)"),
    "a file renamed": (lambda: WEIGHTS.rename(VAE / "w.txt"), "tampered", "w.txt (new)"),
    "two files swapped": (
        lambda: swap(PREPARED / "train/a.txt", PREPARED / "train/b.txt"),
        "tampered",
        "train/a.txt, train/b.txt",
    ),
    "a file emptied": (written(WEIGHTS, ""), "tampered", "weights.txt"),
    "a line end more": (written(PREPARED / "dataset.json", "dataset.json\n"), "tampered", "dataset.json"),
    "another artifact": (lambda: shutil.copytree(PIPELINE, VAE, dirs_exist_ok=True), "tampered", "artifacts/vae"),
    "an artifact less": (lambda: shutil.rmtree(VAE), "missing", "artifacts/vae"),
    "all artifacts less": (lambda: shutil.rmtree("artifacts"), "missing", "artifacts/vae"),
    "a figure": (written(METRICS, '{"psnr": 40}\n'), "tampered report", str(METRICS)),
    "a report less": (lambda: METRICS.unlink(), "missing", str(METRICS)),
    "a manifest": (edited(Path("data/manifests/toy.json"), "92eb", "92ec"), "out of date", "data/manifests"),
    "a manifest less": (lambda: Path("data/manifests/toy.json").unlink(), "out of date", "data/manifests"),
    "code": (written(Path("src/toy/net.py"), "A = 2\n"), "out of date", "src/toy"),
    "a module less": (lambda: Path("src/toy/b.py").unlink(), "out of date", "src/toy"),
    "a script": (edited(Path("stages/train_vae.py"), "30", "40"), "out of date", "stages/train_vae.py"),
    "a parameter": (edited(Path("params.yaml"), "steps: 3", "steps: 4"), "out of date", "train_vae.steps is 4"),
}
KINDS: dict[str, Case] = {
    "an artifact that is a link": (linked(VAE), "foreign kind", "artifacts/vae"),
    "a link to a folder of the project": (
        replaced(VAE, linked_to_a_copy),
        "foreign kind",
        "is a link to ../copy",
    ),
    "a file that is a link": (linked(WEIGHTS), "foreign kind", "weights.txt is a link to"),
    "a folder within that is a link": (linked(PREPARED / "train"), "foreign kind", "train is a link to"),
    "all artifacts behind a link": (linked(Path("artifacts")), "foreign kind", "artifacts/vae, artifacts/pipeline"),
    "a link that leads nowhere": (lambda: (VAE / "more").symlink_to("/nowhere"), "foreign kind", "more is a link"),
    "a pipe for a file": (replaced(WEIGHTS, os.mkfifo), "foreign kind", "weights.txt is a named pipe"),
    "a pipe for an artifact": (replaced(VAE, os.mkfifo), "foreign kind", "is a named pipe"),
    "a pipe more": (lambda: os.mkfifo(VAE / "more"), "foreign kind", "more is a named pipe"),
    "a pipe with a name that nobody can type": (lambda: os.mkfifo(VAE / "\x1b[2J"), "foreign kind", "a named pipe"),
    "a socket for a file": (replaced(WEIGHTS, bind), "foreign kind", "weights.txt is a socket"),
    "a folder for a file": (replaced(WEIGHTS, Path.mkdir), "foreign kind", "weights.txt is a folder"),
    "a file for a folder": (replaced(PREPARED / "train", Path.touch), "foreign kind", "train is a file"),
    "a file for an artifact": (replaced(VAE, Path.touch), "foreign kind", "is a file"),
    "a pipe for a report": (replaced(METRICS, os.mkfifo), "foreign kind", str(METRICS)),
    "a report without end": (
        replaced(METRICS, lambda there: there.symlink_to("/dev/zero")),
        "foreign kind",
        "/dev/zero",
    ),
    "a folder for a report": (replaced(METRICS, Path.mkdir), "foreign kind", "is a folder"),
    "reports behind a link": (linked(Path("reports")), "foreign kind", "reports"),
    "a pipe for dvc.lock": (replaced(LOCK, os.mkfifo), "foreign kind", "dvc.lock"),
    "dvc.lock behind a link": (linked(LOCK), "foreign kind", "dvc.lock"),
    "a pipe for params.yaml": (replaced(Path("params.yaml"), os.mkfifo), "foreign kind", "params.yaml"),
    "dvc.yaml behind a link": (linked(DEFINED), "foreign kind", "dvc.yaml"),
    "manifests behind a link": (linked(Path("data/manifests")), "foreign kind", "data/manifests"),
    "code behind a link": (linked(Path("src/toy/net.py")), "foreign kind", "net.py is a link"),
    "what .dvcignore hides": (written(VAE / ".weights.partial", "x"), "hidden", ".weights.partial"),
    "a .dvcignore that hides more": (edited(Path(".dvcignore"), "__pycache__", "*.txt"), "hidden", "weights.txt"),
}
CACHE: dict[str, Case] = {
    "an object": (lambda: spoil(in_cache(WEIGHTS)), "corrupt cache", "artifacts/vae/weights.txt"),
    "an object emptied": (lambda: spoil(in_cache(WEIGHTS), ""), "corrupt cache", "artifacts/vae/weights.txt"),
    "a list of a folder": (lambda: spoil(in_cache(VAE), "[]"), "corrupt cache", "artifacts/vae"),
    "a pipe for an object": (
        lambda: replaced(in_cache(WEIGHTS), os.mkfifo)(),
        "corrupt cache",
        "is a named pipe, which is artifacts/vae/weights.txt",
    ),
    "a link for an object": (lambda: linked(in_cache(WEIGHTS))(), "corrupt cache", "is a link"),
    "a folder for an object": (lambda: replaced(in_cache(WEIGHTS), Path.mkdir)(), "corrupt cache", "is a folder"),
    "a link for a folder of objects": (lambda: linked(in_cache(WEIGHTS).parent)(), "corrupt cache", "is a link"),
    "an object and the file": (
        each(lambda: spoil(in_cache(WEIGHTS)), lambda: WEIGHTS.write_text("forged")),
        "corrupt cache",
        "artifacts/vae/weights.txt",
    ),
    "no cache, and a file": (
        each(lambda: shutil.rmtree(".dvc/cache"), lambda: WEIGHTS.write_text("forged")),
        "tampered",
        "artifacts/vae",
    ),
}
LOCKS: dict[str, Case] = {
    "an output's hash": (lock(lambda s: set_out(s["train_vae"], md5=f"{'0' * 32}.dir")), "tampered", "artifacts/vae"),
    "a report's hash": (
        lock(lambda s: s["train_vae"]["outs"][1].update(md5="0" * 32)),
        "tampered report",
        str(METRICS),
    ),
    "an input's hash": (
        lock(lambda s: s["train_vae"]["deps"][0].update(md5=f"{'0' * 32}.dir")),
        "stale chain",
        "data/prepared",
    ),
    "a hash of code": (
        lock(lambda s: s["train_vae"]["deps"][2].update(md5="0" * 32)),
        "out of date",
        "stages/train_vae",
    ),
    "a parameter": (
        lock(lambda s: s["train_vae"]["params"]["params.yaml"]["train_vae"].update(steps=9)),
        "out of date",
        "train_vae.steps is 3, was 9",
    ),
    "a command": (lock(lambda s: s["train_vae"].update(cmd="true")), "out of date", "train_vae ran 'true'"),
    "a stage less": (lock(lambda s: s.pop("train_vae")), "out of date", "never ran"),
    "an output less": (lock(lambda s: s["train_vae"]["outs"].pop()), "out of date", "writes other things"),
    "an input less": (lock(lambda s: s["evaluate"]["deps"].pop(0)), "out of date", "reads other things"),
}
DEFINITIONS: dict[str, Case] = {
    "a command": (
        edited(DEFINED, "python -P stages/train_vae.py", "python -O stages/train_vae.py"),
        "out of date",
        "now 'python -O",
    ),
    "a dependency less": (edited(DEFINED, ", src/toy]", "]"), "out of date", "reads other things"),
    "an output less": (
        edited(DEFINED, "    metrics:\n      - reports/train_vae/metrics.json: {cache: false}\n", ""),
        "out of date",
        "writes other things",
    ),
    "a module that hides the library's": (
        written(Path("stages/json.py"), "raise SystemExit"),
        "foreign code",
        "stages/json.py: no stage names it among its dependencies, and Python may import it in place of its own",
    ),
    "a module that hides the library's, in src": (written(Path("src/json.py"), ""), "foreign code", "src/json.py"),
    "a package that hides another": (written(Path("stages/torch/__init__.py"), ""), "foreign code", "stages/torch"),
    "bytecode without a source": (written(Path("stages/yaml.pyc"), ""), "foreign code", "stages/yaml.pyc"),
    "a link to a module": (lambda: Path("stages/os.py").symlink_to("/tmp/os.py"), "foreign code", "stages/os.py"),
}
UNTRACKED = {
    f"{group}: {name}": case
    for group, cases in (
        ("files", FILES),
        ("kinds", KINDS),
        ("cache", CACHE),
        ("dvc.lock", LOCKS),
        ("dvc.yaml", DEFINITIONS),
    )
    for name, case in cases.items()
}
TRACKED: dict[str, Case] = {
    "an output, the cache and dvc.lock": (forged_output, "contradicted", "artifacts/vae"),
    "the same, committed": (committed(forged_output), "contradicted", "artifacts/vae"),
    "a figure, committed with dvc.lock": (
        committed(each(lambda: METRICS.write_text('{"psnr": 40}\n'), lambda: toy.shell("dvc commit -f train_vae"))),
        "contradicted",
        str(METRICS),
    ),
    "a parameter in both files": (
        each(
            edited(Path("params.yaml"), "learning_rate: 0.001", "learning_rate: 0.002"),
            lambda: toy.shell("dvc commit -f train_vae"),
        ),
        "contradicted",
        "train_vae.learning_rate",
    ),
    "a command in both files": (
        both("python -P stages/train_vae.py", "python -P stages/train_vae.py --fast"),
        "contradicted",
        "ran 'python -P stages/train_vae.py', not 'python -P stages/train_vae.py --fast'",
    ),
    "a command in both files, committed": (
        committed(both("python -P stages/train_vae.py", "python -P stages/train_vae.py --fast")),
        "contradicted",
        "--fast",
    ),
    "code less in both files": (both(", src/toy]", "]"), "contradicted", "src/toy"),
    "an input less in both files": (
        both("deps: [data/prepared, stages/train", "deps: [stages/train"),
        "",
        "data/prepared",
    ),
    "a stage that never runs again": (
        edited(DEFINED, "    params: [train_vae]", "    params: [train_vae]\n    frozen: true"),
        "contradicted",
        "had other frozen",
    ),
    "another folder to work in": (
        both("    params: [train_vae]", "    params: [train_vae]\n    wdir: ."),
        "contradicted",
        "had other wdir",
    ),
}


def named(found: dict[str, Any], kind: str, what: str) -> bool:
    told = [one for one in found["findings"] if one["breaks"] and one["kind"] == (kind or one["kind"])]
    return any(what in f"{one['where']}: {one['what']}" for one in told)


@pytest.mark.usefixtures("project")
@pytest.mark.parametrize("case", UNTRACKED.values(), ids=UNTRACKED)
def test_what_is_tampered_with_is_named_and_mended(audit: Audit, mend: Any, case: Case) -> None:
    tamper, kind, what = case
    tamper()
    before = everything(ELSEWHERE)
    found = audit()
    assert named(found, kind, what), found["findings"]
    assert mend(found, tracked=False)["findings"] == []
    assert everything(ELSEWHERE) == before  # nothing was written through a link


@pytest.mark.usefixtures("tracked")
@pytest.mark.parametrize("case", TRACKED.values(), ids=TRACKED)
def test_what_agrees_on_the_disk_is_held_against_the_run(audit: Audit, mend: Any, case: Case) -> None:
    tamper, kind, what = case
    tamper()
    found = audit()
    assert named(found, kind, what), found["findings"]
    mended = mend(found, tracked=True)
    assert mended["whole"], mended["findings"]


def everything(folder: Path) -> dict[str, str]:
    files = (file for file in sorted(folder.rglob("*")) if file.is_file() and not file.is_symlink())
    return {str(file): file_hash(file) for file in files}


@pytest.mark.usefixtures("project")
def test_a_dvc_yaml_that_is_no_file_is_one_line_with_its_remedy(
    audit: Audit, run: Callable[..., int], capsys: pytest.CaptureFixture[str]
) -> None:
    """It was read, and an audit waited for a writer for ever."""
    replaced(DEFINED, os.mkfifo)()
    assert run("audit") == 1
    said = capsys.readouterr().err
    assert said.startswith("darkroom: dvc.yaml: is not a file; ")
    toy.shell(said.partition("; ")[2].strip())
    assert audit()["findings"] == []


@pytest.mark.usefixtures("project")
@pytest.mark.parametrize("text", ["", "<<<<<<< HEAD\n", "stages: 7\n", "stages: {train_vae: {}}\n", "\x80"])
def test_a_lock_that_is_none_is_one_line_with_its_remedy(
    audit: Audit, run: Callable[..., int], capsys: pytest.CaptureFixture[str], text: str
) -> None:
    LOCK.write_text(text, encoding="latin-1")
    assert run("audit") == 1
    toy.shell(capsys.readouterr().err.rpartition("; ")[2].partition(", or ")[0])
    assert audit()["findings"] == []


@pytest.mark.usefixtures("project")
@pytest.mark.parametrize("kind", ["symlink", "hardlink"])
def test_links_that_dvc_made_are_known(audit: Audit, kind: str) -> None:
    """And only those: as many others are named above."""
    toy.shell(f"dvc config cache.type {kind} && dvc checkout --relink")
    assert WEIGHTS.is_symlink() == (kind == "symlink")
    assert audit()["findings"] == []
    target = ELSEWHERE / "weights.txt"
    ELSEWHERE.mkdir()
    shutil.copy(WEIGHTS, target)
    WEIGHTS.unlink()
    WEIGHTS.symlink_to(target.resolve())
    found = audit()
    assert named(found, "foreign kind", "weights.txt is a link to")
    toy.shell(found["findings"][0]["remedy"])
    assert audit()["findings"] == []


@pytest.mark.usefixtures("project")
def test_a_link_that_git_keeps_is_no_foreign_kind_where_no_stage_writes(audit: Audit) -> None:
    linked(Path("data/manifests"))()
    toy.commit()
    assert audit()["findings"] == []


@pytest.mark.usefixtures("project")
@pytest.mark.parametrize(
    ("folder", "name"),
    [
        *(
            (VAE, name)
            for name in (".DS_Store", "Thumbs.db", "Icon\r", "._weights.txt", "__pycache__/x.pyc", "@eaDir/x")
        ),
        *((Path(path), ".DS_Store") for path in ("data/prepared/train", "data/manifests", "src/toy")),
        (Path("src/toy"), "__pycache__/x.pyc"),
    ],
    ids=ascii,
)
def test_what_systems_leave_is_a_remark_and_removed(audit: Audit, folder: Path, name: str) -> None:
    """It was called tampering, or code that has changed, for which stages would be trained again."""
    toy.write_files({str(folder / name): "x"})
    found = audit()
    if folder == Path("src/toy") and "pycache" in name:
        assert found["findings"] == []  # everyday, and nothing that DVC hashes
        return
    assert found["whole"]
    assert [finding["kind"] for finding in found["findings"]] == ["system files"]
    toy.shell(found["findings"][0]["remedy"])
    assert audit()["findings"] == []
    assert not (folder / name).exists()


@pytest.mark.usefixtures("tracked")
def test_code_that_a_run_imported_from_elsewhere_is_named(audit: Audit, mend: Any) -> None:
    """As through PYTHONPATH, or a sitecustomize in it."""
    told = {
        DEFINITION: stage_specs()["train_vae"].definition,
        FRAME: "{}",
        OUTSIDE: json.dumps(["sitecustomize: /elsewhere/sitecustomize.py"]),
    }
    toy.record_run("train_vae", ran=told)
    found = audit()
    assert named(found, "foreign code", "/elsewhere/sitecustomize.py")
    mended = mend(found, tracked=True)
    assert mended["whole"], mended["findings"]


@pytest.mark.usefixtures("tracked")
def test_what_starts_stages_is_witnessed_by_their_runs(audit: Audit) -> None:
    """It is no dependency, and code added to it would really run: named where it is not committed, else a remark."""
    toy.write_files({"frame.py": "A = 1\n"})
    toy.commit()
    frame = json.dumps({"frame.py": file_hash(Path("frame.py"))[:12]})
    told = {DEFINITION: stage_specs()["train_vae"].definition, FRAME: frame, OUTSIDE: "[]"}
    toy.record_run("train_vae", ran=told)
    assert audit()["findings"] == []
    Path("frame.py").write_text("A = 1\nimport evil\n")
    found = audit()
    assert named(found, "out of date", "frame.py")
    toy.shell(found["findings"][0]["remedy"])
    assert audit()["findings"] == []
    Path("frame.py").write_text("A = 2\n")
    toy.commit()
    found = audit()
    assert found["whole"]
    assert [finding["kind"] for finding in found["findings"]] == ["other frame"]


@pytest.mark.usefixtures("tracked")
def test_a_run_that_tells_nothing_of_its_start_is_a_remark(audit: Audit) -> None:
    """Runs of before; what is compared since was not silently agreed to."""
    toy.record_run("train_vae", ran={})
    found = audit()
    assert found["whole"]
    assert [finding["kind"] for finding in found["findings"]] == ["no definition"]
