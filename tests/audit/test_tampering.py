"""Files, links, cache, lock, definition and git tampered with: named with exit status 1, and mended as it is printed.

Each case would be passed over in silence, or would leave a project that is not whole, if the audit, or the remedy that
it prints, were wrong for it: remedies are executed as they stand, and the next audit must find nothing. MLflow has its
own, test_tampering_mlflow.py.
"""

import os
import shutil
from pathlib import Path
from typing import Any

import pytest

from tests.support import toy
from tests.support.tampering import (
    DEFINED,
    ELSEWHERE,
    LOCK,
    METRICS,
    PIPELINE,
    PREPARED,
    VAE,
    WEIGHTS,
    Audit,
    Case,
    bind,
    both,
    committed,
    each,
    edited,
    everything,
    forged_output,
    in_cache,
    linked,
    linked_to_a_copy,
    lock,
    named,
    replaced,
    set_out,
    spoil,
    swap,
    written,
)

pytestmark = pytest.mark.usefixtures("no_waiting")

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
