"""One run in MLflow per execution of a stage: what it read, what it did, what it wrote."""

import hashlib
import io
import json
import os
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from PIL import Image

from darkroom.core.artifact import content_hash
from darkroom.core.errors import DarkroomError
from darkroom.core.interruption import Interrupted
from darkroom.tracking.address import current_store, is_on, location, project_root
from darkroom.tracking.availability import check_answers
from darkroom.tracking.note import NOTE, Account, Observed, broken_off
from darkroom.tracking.outbox.events import Begin, End, Event, File, Metrics, Parameters, Picture, Tags
from darkroom.tracking.outbox.uploader import Uploader
from darkroom.tracking.outputs import copy_limit, describe_outputs
from darkroom.tracking.process import process_tags
from darkroom.tracking.repository import State, repository_page, state
from darkroom.tracking.secrets import first_line
from darkroom.tracking.store import REPOSITORY, warn

COPY = "copy"  # tag of a run that worked in a throw-away copy of the project, as queued experiments do
CLOSED_WITHIN = 4.0  # seconds, of a stage that was told to end; what is not sent by then waits in the outbox


class Run:
    """What a stage tracks while it works. Every call returns at once, or raises DarkroomError if no run could begin."""

    def __init__(self, account: Account, tracked: bool) -> None:
        self.account = account
        self.observed = Observed()
        self._curves: set[str] = set()
        self._copy_mib = copy_limit()
        self._uploader = Uploader(self._start_event()) if tracked else None

    @property
    def id(self) -> str | None:
        """MLflow's, once it knows of the run."""
        return self._uploader.run if self._uploader else None

    @property
    def address(self) -> str | None:
        """Of its page in the user interface, once there is one."""
        return self._uploader.page if self._uploader else None

    def metrics(self, step: int, values: Mapping[str, float]) -> None:
        """Add a point to each named curve; `step` counts what the stage's curves count."""
        self._curves |= values.keys()
        self.observed.add(step, values)
        self._put(Metrics(step, _now(), {name: float(value) for name, value in values.items()}))

    def picture(self, picture: Image.Image | Path, name: str, step: int | None = None) -> None:
        """Keep a picture as NAME.png; with a step, as NAME/step_000100.png and in a row over the steps."""
        if isinstance(picture, Path):
            with Image.open(picture) as opened:
                picture = opened.convert("RGB")
        drawn = io.BytesIO()
        picture.save(drawn, format="PNG", compress_level=1)  # several times as fast
        if step is None:
            self._keep(f"{name}.png", drawn.getvalue(), lambda file: File(f"{name}.png", file))
        else:
            kept = f"{name}/step_{step:06d}.png"
            self._keep(kept, drawn.getvalue(), lambda file: Picture(name, step, _now(), file))

    def text(self, text: str, name: str) -> None:
        """Keep a text as the artifact `name`, such as "notes/vocabulary.md"."""
        self._keep(name, text.encode(), lambda file: File(name, file))

    def file(self, path: Path, name: str) -> None:
        """Have a copy of a file as the artifact `name`."""
        self._send(name, path.read_bytes(), lambda file: File(name, file))

    def tag(self, name: str, value: str) -> None:
        self._put(Tags({name: value}))

    def parameters(self, values: Mapping[str, Any]) -> None:
        """Name parameters that were not given at the beginning, {"train_unet.stop_at": 400}; once, they have one value.

        Never raises: it is said on the way out, maybe of an error.
        """
        self.account.params = {**self.account.params, **values}
        with suppress(DarkroomError):
            self._put(Parameters(values))

    def summary(self, figures: Mapping[str, float | str]) -> None:
        """The key figures of the finished stage, for its note; numbers become metrics where no curve has their name."""
        self.account.figures.update(figures)

    def _put(self, event: Event) -> None:
        if self._uploader is not None:
            self._uploader.put(event)

    def _keep(self, name: str, content: bytes, make_event: Callable[[str], Event]) -> None:
        """Keep a file for the report, and send it."""
        self.observed.keep(name, content)
        self._send(name, content, make_event)

    def _send(self, name: str, content: bytes, make_event: Callable[[str], Event]) -> None:
        """Put the event that names a file with this content, called as the last part of `name`."""
        if self._uploader is None:
            return
        file = self._uploader.keep(Path(name).name, lambda path: path.write_bytes(content))
        if file is not None:
            self._uploader.put(make_event(file))

    def wrote(self, outputs: Sequence[Path]) -> None:
        """Note the content of the outputs, which exist by now."""
        self.account.outputs = {path.as_posix(): content_hash(path) for path in outputs}

    def _start_event(self) -> Begin:
        account = self.account
        return Begin(
            account.stage,
            _now(),
            current_store(),
            account.params,
            {
                "stage": account.stage,
                "mlflow.source.name": f"stages/{account.stage}.py",
                **({"mlflow.source.git.commit": account.commit} if account.commit else {}),
                **({REPOSITORY: account.repository} if account.repository else {}),
                "git.dirty": "unknown" if account.dirty is None else str(account.dirty).lower(),
                **({"git.unknown": account.why_unknown} if account.why_unknown else {}),
                **{f"in.{path}": digest for path, digest in account.inputs.items()},
                "code": code_hash(account.code),
                "profile": json.dumps(account.profile),
                **process_tags(),
                **({COPY: "true"} if Path.cwd() != project_root() else {}),
                **{f"dvc.{key[4:].lower()}": os.environ[key] for key in os.environ if key.startswith("DVC_EXP_")},
            },
            account.inputs,
        )

    def finish(self, outputs: Sequence[Path]) -> None:
        """Close the run as FINISHED, with the outputs, which exist by now; waits until all is sent.

        Where the store is away, it soon leaves that to a later stage, with a warning.
        """
        if self._uploader is None:
            return
        if not self.account.outputs:
            self.wrote(outputs)
        figures = {name: value for name, value in self.account.figures.items() if name not in self._curves}
        self.metrics(0, {name: value for name, value in figures.items() if not isinstance(value, str)})
        self._put(describe_outputs(self.account, self._copy_mib))
        self._put(End("FINISHED", _now()))
        self._uploader.finish()

    def break_off(self, status: str, reason: str, within: float | None = None) -> None:
        """Close the run as FAILED or KILLED; never raises, for there is an error on its way already.

        within: seconds after which it is left as it is.
        """
        if self._uploader is None:
            return
        with suppress(DarkroomError):
            self.tag(NOTE, broken_off(reason))
            self._put(End(status, _now()))
            self._uploader.finish(within)


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
    nothing behind. Raises DarkroomError: an input is missing, the store does not answer, or it cannot be opened.
    """
    tracked = is_on()
    if tracked:
        check_answers(location())
    files = state() if tracked else State("", None)
    if files.silent:
        warn(f"{files.why}. Until then runs name no commit, or do not say whether files differ from it")
    account = Account(
        stage,
        flat(params),
        inputs,
        code,
        profile,
        files.commit,
        files.dirty,
        why_unknown=files.why,
        repository=repository_page() if files.commit else "",
    )
    run = Run(account, tracked)
    try:
        yield run
        run.finish(outputs)
    except KeyboardInterrupt as end:
        saved = end.saved if isinstance(end, Interrupted) else ""
        run.break_off("KILLED", f"Interrupted; {saved}." if saved else "Interrupted.", CLOSED_WITHIN)
        raise
    except BaseException as error:
        run.break_off("FAILED", first_line(error))
        raise


def code_hash(files: Mapping[str, str]) -> str:
    """One hash for the code that a stage ran, of {path: md5}; the tag `code` of its run."""
    return hashlib.md5(json.dumps(files, sort_keys=True).encode()).hexdigest()


def _now() -> int:
    return time.time_ns() // 1_000_000


def flat(params: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    """{"a": {"b": 1}} as {"a.b": 1}."""
    found: dict[str, Any] = {}
    for key, value in params.items():
        found |= flat(value, f"{prefix}{key}.") if isinstance(value, Mapping) else {f"{prefix}{key}": value}
    return found
