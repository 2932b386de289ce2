"""One run in MLflow per execution of a stage: what it read, what it did, what it wrote."""

import hashlib
import json
import os
import subprocess
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import asdict
from pathlib import Path
from typing import Any

from PIL import Image

from darkroom.core.artifact import content_hash, files_of
from darkroom.core.errors import DarkroomError
from darkroom.tracking.note import Account, markdown, readable_size
from darkroom.tracking.sender import Event, Sender
from darkroom.tracking.store import Metric, Store, check_answers, first_line, is_on, location

COPY_MIB = 64.0  # larger files are named in the run, not copied into it; DARKROOM_TRACKING_COPY_MIB changes it
DATA_COPY_MIB = 1.0
DATA_COPIED = (".json", ".png")  # of data sets: their descriptions and contact sheets
CLOSED_WITHIN = 4.0  # seconds, of a stage that was told to end; a store that is still being made has no run to close
MODELS = Path("artifacts")  # each output in it is a model, registered as darkroom-NAME


class Run:
    """What a stage tells while it works. Every call returns at once, or raises DarkroomError if no run could begin."""

    def __init__(self, account: Account, tracked: bool) -> None:
        self.account = account
        self.id: str | None = None  # MLflow's, once the run has begun
        self.address: str | None = None  # of its page in the user interface
        self._began = _now()
        self._curves: set[str] = set()
        self._copy_mib = _copy_limit()
        self._sender = Sender(self._begin) if tracked else None

    def metrics(self, step: int, values: Mapping[str, float]) -> None:
        """Add a point to each named curve; `step` counts what the stage's curves count."""
        now = _now()
        self._curves |= values.keys()
        self._tell([Metric(name, float(value), now, step) for name, value in values.items()])

    def picture(self, picture: Image.Image | Path, name: str, step: int | None = None) -> None:
        """Keep a picture as NAME.png; with a step, as NAME/step_000100.png and in a row over the steps."""
        if isinstance(picture, Path):
            with Image.open(picture) as opened:
                picture = opened.convert("RGB")
        shown = picture.copy()
        file = f"{name}.png" if step is None else f"{name}/step_{step:06d}.png"
        self._tell(lambda store, run: _log_made(store, run, file, lambda path: shown.save(path, format="PNG")))
        if step is not None:
            self._tell(lambda store, run: store.log_picture_at(run, shown, name, step))

    def text(self, text: str, name: str) -> None:
        """Keep a text as the artifact `name`, such as "notes/vocabulary.md"."""
        self._tell(lambda store, run: _log_text(store, run, name, text))

    def summary(self, figures: Mapping[str, float | str]) -> None:
        """The key figures of the finished stage, for its note; numbers become metrics where no curve has their name."""
        self.account.figures.update(figures)

    def _tell(self, event: Event | list[Metric]) -> None:
        if self._sender is not None:
            self._sender.put(event)

    def _begin(self, store: Store) -> str:
        account = self.account
        run = store.create_run(
            account.stage,
            self._began,
            account.params,
            {
                "stage": account.stage,
                "mlflow.source.name": f"stages/{account.stage}.py",
                **({"mlflow.source.git.commit": account.commit} if account.commit else {}),
                "git.dirty": str(account.dirty).lower(),
                **{f"in.{path}": digest for path, digest in account.inputs.items()},
                "code": hashlib.md5(json.dumps(account.code, sort_keys=True).encode()).hexdigest(),
                "profile": json.dumps(account.profile),
                **{f"dvc.{key[4:].lower()}": os.environ[key] for key in os.environ if key.startswith("DVC_EXP_")},
            },
        )
        store.log_inputs(run, account.inputs)
        self.id, self.address = run, f"{store.web_address()}/{store.run_link(run)}"
        return run

    def finish(self, outputs: Sequence[Path]) -> None:
        """Close the run as FINISHED, with the outputs, which exist by now; waits until all is sent.

        Raises:
            DarkroomError: an output is missing, or no run could begin.
        """
        if self._sender is None:
            return
        self.account.outputs = {path.as_posix(): content_hash(path) for path in outputs}
        figures = {name: value for name, value in self.account.figures.items() if name not in self._curves}
        self.metrics(0, {name: value for name, value in figures.items() if not isinstance(value, str)})
        self._tell(self._log_outputs)
        self._tell(lambda store, run: store.end_run(run, "FINISHED"))
        self._sender.finish()

    def break_off(self, status: str, reason: str, within: float | None = None) -> None:
        """Close the run as FAILED or KILLED; never raises, for there is an error on its way already.

        within: seconds after which it is left as it is.
        """
        if self._sender is None:
            return
        with suppress(DarkroomError):
            self._tell(lambda store, run: store.set_tags(run, {"mlflow.note.content": f"### Broken off\n\n{reason}\n"}))
            self._tell(lambda store, run: store.end_run(run, status))
            self._sender.finish(within)

    def _log_outputs(self, store: Store, run: str) -> None:
        account = self.account
        store.set_tags(run, {f"out.{path}": digest for path, digest in account.outputs.items()})
        places: dict[str, str] = {}
        for path, digest in account.outputs.items():
            files = files_of(Path(path))
            copied = [file for file in files if self._is_copied(file)]
            for file in copied:
                store.log_file(run, file, file.parent.as_posix())
            places[path] = readable_size(sum(file.stat().st_size for file in files))
            if copied:
                places[path] = f"([{places[path]}]({store.run_link(run, f'/artifacts/{path}')}))"
            if Path(path).parent == MODELS:
                model = f"darkroom-{Path(path).name.replace('_', '-')}"
                version = store.register(run, model, path, digest, copied=len(copied) == len(files))
                places[path] += f", [{model} version {version}]({store.model_link(model, version)})"
        origins = {}
        for path, digest in account.inputs.items():
            if maker := store.find_maker(path, digest):
                account.made_by[path] = maker[0]
                origins[path] = f"[{maker[1]}]({store.run_link(maker[0])})"
        _log_text(store, run, "manifest.json", json.dumps(asdict(account), indent=2, sort_keys=True) + "\n")
        store.set_tags(run, {"mlflow.note.content": markdown(account, origins, places)})

    def _is_copied(self, file: Path) -> bool:
        mib = file.stat().st_size / 2**20
        if file.parts[0] == "data":
            return file.suffix in DATA_COPIED and mib <= DATA_COPY_MIB
        return mib <= self._copy_mib


@contextmanager
def stage_run(
    stage: str,
    params: Mapping[str, Any],
    inputs: Mapping[str, str],
    code: Mapping[str, str],
    outputs: Sequence[Path],
    profile: Mapping[str, str],
) -> Iterator[Run]:
    """Track one execution of `stage` around the block that does its work.

    inputs, code: path relative to the project -> content hash. outputs: paths, relative likewise.

    The run ends FINISHED when the block does, KILLED when it was interrupted, else FAILED. DARKROOM_TRACKING=off leaves
    nothing behind.

    Raises:
        DarkroomError: an input is missing, the store does not answer, or it cannot be opened.
    """
    tracked = is_on()
    if tracked:
        check_answers(location())
    commit, dirty = _commit() if tracked else ("", False)
    account = Account(
        stage,
        _flat(params),
        inputs,
        code,
        profile,
        commit,
        dirty,
    )
    run = Run(account, tracked)
    try:
        yield run
        run.finish(outputs)
    except KeyboardInterrupt:
        run.break_off("KILLED", "Interrupted.", within=CLOSED_WITHIN)
        raise
    except BaseException as error:
        run.break_off("FAILED", first_line(error))
        raise


def _now() -> int:
    return time.time_ns() // 1_000_000


def _commit() -> tuple[str, bool]:
    """The commit of the project's files and whether they differ from it, leaving out what dvc repro itself writes."""

    def git(*arguments: str) -> str | None:
        try:
            done = subprocess.run(["git", *arguments], capture_output=True, text=True, check=False)
        except OSError:
            return None
        return done.stdout.strip() if done.returncode == 0 else None

    if git("ls-files", "--error-unmatch", "dvc.yaml") is None:  # also inside a repository that is not this project's
        return "", False
    changes = git("status", "--porcelain", "--untracked-files=no", "--", ".", ":!dvc.lock", ":!reports")
    return git("rev-parse", "HEAD") or "", bool(changes)


def _flat(params: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    """{"a": {"b": 1}} as {"a.b": 1}."""
    flat: dict[str, Any] = {}
    for key, value in params.items():
        flat |= _flat(value, f"{prefix}{key}.") if isinstance(value, Mapping) else {f"{prefix}{key}": value}
    return flat


def _copy_limit() -> float:
    value = os.environ.get("DARKROOM_TRACKING_COPY_MIB", str(COPY_MIB))
    try:
        return float(value)
    except ValueError:
        raise DarkroomError(f"DARKROOM_TRACKING_COPY_MIB = {value!r}: give a number of MiB") from None


def _log_text(store: Store, run: str, name: str, text: str) -> None:
    _log_made(store, run, name, lambda file: file.write_text(text, encoding="utf-8"))


def _log_made(store: Store, run: str, name: str, make: Callable[[Path], Any]) -> None:
    """Have `make` write a file and keep it as the artifact `name`."""
    place = Path(name)
    with tempfile.TemporaryDirectory() as beside:
        make(Path(beside) / place.name)
        store.log_file(run, Path(beside) / place.name, place.parent.as_posix())
