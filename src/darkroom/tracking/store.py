"""The door to MLflow: where the runs are kept and how they are written. The only file that imports mlflow."""

import json
import logging
import os
import re
import sqlite3
import urllib.error
import urllib.request
from collections.abc import Mapping, Sequence
from contextlib import closing, suppress
from pathlib import Path
from typing import Any, NamedTuple

from filelock import FileLock

from darkroom.core.errors import DarkroomError

EXPERIMENT = "darkroom"
FOLDER = Path(".mlflow")
UI_PORT = 5050
TRAINING_VIEW = "workflowType=machine_learning"  # without it MLflow's pages open on language models, and empty
BATCH = {"metrics": 1000, "params": 100, "tags": 100}  # what MLflow takes in one call
ARTIFACT_PATHS = (  # where MLflow's database holds absolute paths of artifacts
    ("experiments", "artifact_location"),
    ("runs", "artifact_uri"),
    ("logged_models", "artifact_location"),
    ("model_versions", "source"),
    ("model_versions", "storage_location"),
)
NOT_IN_NAMES = re.compile(r"[^\w\-. :/]")
VALUE_LENGTH = 5000  # characters MLflow's databases keep of a parameter or tag


class Metric(NamedTuple):
    """A value at a step; `time` in milliseconds since 1970."""

    name: str
    value: float
    time: int
    step: int


def project_root() -> Path:
    """The project's folder: DVC's, also where a stage works in a throw-away copy of it (dvc exp run --queue)."""
    return Path(os.environ.get("DVC_ROOT") or Path.cwd()).resolve()


def location() -> str:
    """The address of the store: MLFLOW_TRACKING_URI, or the project's own database."""
    return os.environ.get("MLFLOW_TRACKING_URI") or f"sqlite:///{project_root() / FOLDER / 'mlflow.db'}"


def is_on() -> bool:
    """Whether anything is to be recorded: not where DARKROOM_TRACKING says off."""
    value = os.environ.get("DARKROOM_TRACKING", "on")
    if value not in ("on", "off"):
        raise DarkroomError(f"DARKROOM_TRACKING = {value!r}: give on or off")
    return value == "on"


def is_server(address: str) -> bool:
    """Whether the store is a server elsewhere, not a database or folder opened here."""
    return address.startswith(("http://", "https://"))


def check_answers(address: str) -> None:
    """Make sure, in milliseconds and without importing mlflow, that there is a point in opening this store.

    Raises:
        DarkroomError: the server does not answer, or the folder cannot be made.
    """
    remedy = "start it, mend MLFLOW_TRACKING_URI, or set DARKROOM_TRACKING=off"
    if is_server(address):
        try:
            with urllib.request.urlopen(f"{address.rstrip('/')}/health", timeout=10):
                return
        except urllib.error.HTTPError:
            return  # it answers; whether it lets us in, the first request will tell
        except (OSError, ValueError) as error:
            reason = getattr(error, "reason", error)
            raise DarkroomError(f"the tracking server {address} does not answer ({reason}); {remedy}") from None
    if "MLFLOW_TRACKING_URI" not in os.environ:
        folder = project_root() / FOLDER
        try:
            folder.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise DarkroomError(f"{folder}: the tracking store cannot be made ({error}); {remedy}") from None


class Store:
    """An open MLflow store with Darkroom's experiment in it; made on first use, by one process at a time."""

    def __init__(self) -> None:
        self.address = location()
        os.environ.setdefault("MLFLOW_DISABLE_TELEMETRY", "true")
        os.environ.setdefault("MLFLOW_ENABLE_ARTIFACTS_PROGRESS_BAR", "false")
        os.environ.setdefault("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "1")
        os.environ.setdefault("MLFLOW_HTTP_REQUEST_TIMEOUT", "20")
        try:
            import mlflow
        except ImportError:
            raise DarkroomError("mlflow is not installed; install it, or set DARKROOM_TRACKING=off") from None
        for talkative in ("mlflow", "alembic"):
            logging.getLogger(talkative).setLevel(logging.WARNING)
        try:
            if is_server(self.address) or "MLFLOW_TRACKING_URI" in os.environ:
                self._open(mlflow, None)
            else:
                folder = project_root() / FOLDER
                folder.mkdir(parents=True, exist_ok=True)
                with FileLock(folder / "lock"):
                    if not (folder / "mlflow.db").exists():
                        _make(mlflow, folder / "mlflow.db")
                    _follow_project(folder)
                    self._open(mlflow, str(folder / "artifacts"))
        except Exception as error:
            raise DarkroomError(
                f"the tracking store {self.address} cannot be opened ({first_line(error)}); "
                "mend or move it away, or set DARKROOM_TRACKING=off"
            ) from error

    def _open(self, mlflow: Any, artifacts: str | None) -> None:
        self.mlflow, self._entities = mlflow, mlflow.entities
        self.client: Any = mlflow.MlflowClient(tracking_uri=self.address, registry_uri=self.address)
        found = self.client.get_experiment_by_name(EXPERIMENT)
        self.experiment: str = (
            found.experiment_id
            if found
            else self.client.create_experiment(
                EXPERIMENT, artifact_location=artifacts, tags={"mlflow.experimentKind": "custom_model_development"}
            )
        )

    def is_away(self, error: Exception) -> bool:
        """Whether an error may pass, so that trying again has a point: no answer, no connection, a locked database."""
        status = getattr(error, "get_http_status_code", None)
        return status() >= 500 if status is not None else isinstance(error, OSError)

    def web_address(self) -> str:
        """Where the user interface stands, once it runs."""
        return self.address.rstrip("/") if is_server(self.address) else f"http://127.0.0.1:{UI_PORT}"

    def run_link(self, run: str, tab: str = "") -> str:
        """A link to a run, relative to the user interface."""
        return f"#/experiments/{self.experiment}/runs/{run}{tab}?{TRAINING_VIEW}"

    def model_link(self, model: str, version: str) -> str:
        """A link to a version of a model, relative to the user interface."""
        return f"#/models/{model}/versions/{version}?{TRAINING_VIEW}"

    def runs_link(self) -> str:
        """A link to the list of runs, relative to the user interface."""
        return f"#/experiments/{self.experiment}/runs?{TRAINING_VIEW}"

    def create_run(self, name: str, began: int, params: Mapping[str, Any], tags: Mapping[str, str]) -> str:
        """Note a run that began at `began` (milliseconds since 1970) and return its id."""
        run: str = self.client.create_run(self.experiment, began, _shortened(tags), name).info.run_id
        entries = [
            self._entities.Param(key, (value if isinstance(value, str) else json.dumps(value))[:VALUE_LENGTH])
            for key, value in params.items()
        ]
        for first in range(0, len(entries), BATCH["params"]):
            self.client.log_batch(run, params=entries[first : first + BATCH["params"]])
        return run

    def log_inputs(self, run: str, hashes: Mapping[str, str]) -> None:
        """Name the inputs of a run, so that its page shows them and runs can be found by them."""
        datasets = [
            self._entities.DatasetInput(
                self._entities.Dataset(
                    name=path, digest=digest, source_type="dvc", source=json.dumps({"uri": by_reference(path, digest)})
                ),
                [self._entities.InputTag("mlflow.data.context", "input")],
            )
            for path, digest in hashes.items()
        ]
        if datasets:
            self.client.log_inputs(run, datasets=datasets)

    def set_tags(self, run: str, tags: Mapping[str, str]) -> None:
        """Set tags of a run."""
        entries = [self._entities.RunTag(key, value) for key, value in _shortened(tags).items()]
        for first in range(0, len(entries), BATCH["tags"]):
            self.client.log_batch(run, tags=entries[first : first + BATCH["tags"]])

    def log_metrics(self, run: str, metrics: Sequence[Metric]) -> None:
        """Add values to a run's curves; what no name may hold becomes "_", or MLflow would refuse the whole batch."""
        entries = [self._entities.Metric(NOT_IN_NAMES.sub("_", m.name), m.value, m.time, m.step) for m in metrics]
        for first in range(0, len(entries), BATCH["metrics"]):
            self.client.log_batch(run, metrics=entries[first : first + BATCH["metrics"]])

    def log_file(self, run: str, file: Path, folder: str = ".") -> None:
        """Copy a file into a folder of a run's artifacts."""
        self.client.log_artifact(run, str(file), None if folder == "." else folder)

    def log_picture_at(self, run: str, picture: Any, name: str, step: int) -> None:
        """Add a PIL picture to the row of pictures that a run's page shows with a slider over the steps."""
        self.client.log_image(run, picture, key=name, step=step, synchronous=True)

    def find_maker(self, path: str, digest: str) -> tuple[str, str] | None:
        """Id and name of the latest finished run that wrote `path` with this content."""
        found = self.client.search_runs(
            [self.experiment],
            f"tags.`out.{path}` = '{digest}' and attributes.status = 'FINISHED'",
            max_results=1,
            order_by=["attributes.start_time DESC"],
        )
        return (found[0].info.run_id, found[0].info.run_name) if found else None

    def register(self, run: str, model: str, path: str, digest: str, copied: bool) -> str:
        """The version of `model` with this content, made by `run` unless an earlier run made the same bytes.

        Where the weights were copied into the run, the version points there; else it refers to DVC's copy.
        """
        if found := self.find_version(model, digest):
            return found
        artifacts = self.client.get_run(run).info.artifact_uri
        source = f"{artifacts}/{path}" if copied else by_reference(path, digest)
        version = self.client.create_model_version(
            model, source, run_id=run, tags={"content": digest}, description=f"{path}, content `{digest}`"
        )
        return str(version.version)

    def find_version(self, model: str, digest: str) -> str | None:
        """The version of `model` with this content; makes the model, still without versions, where there is none."""
        if not self.client.search_registered_models(f"name = '{model}'", max_results=1):
            self.client.create_registered_model(model)
        found = self.client.search_model_versions(f"name = '{model}' and tags.content = '{digest}'", max_results=1)
        return str(found[0].version) if found else None

    def end_run(self, run: str, status: str) -> None:
        """Close a run as FINISHED, FAILED or KILLED."""
        self.client.set_terminated(run, status)


def _make(mlflow: Any, database: Path) -> None:
    """Make MLflow's tables, which takes seconds; they appear when complete, for half made ones could not be used."""
    beside, whole = (database.with_name(f".{database.name}.{state}") for state in ("making", "made"))
    for left in database.parent.glob(f".{database.name}.*"):
        left.unlink()
    address = f"sqlite:///{beside}"
    mlflow.MlflowClient(tracking_uri=address, registry_uri=address).search_experiments(max_results=1)
    with closing(sqlite3.connect(beside)) as made, closing(sqlite3.connect(whole)) as copy:
        made.backup(copy)
    whole.replace(database)
    with suppress(PermissionError):  # on Windows, while MLflow still has it open
        beside.unlink()


def _follow_project(folder: Path) -> None:
    """Where the project was moved or copied, have its store name the artifacts at their new place.

    MLflow notes absolute paths: it would show old runs without artifacts, and write those of new runs to the old place.
    """
    if not (folder / "mlflow.db").exists():
        return
    new = str(folder / "artifacts")
    with closing(sqlite3.connect(folder / "mlflow.db")) as database, database:
        found = database.execute("SELECT artifact_location FROM experiments WHERE name = ?", (EXPERIMENT,)).fetchone()
        if found is None or found[0] == new:
            return
        old = found[0]
        for table, column in ARTIFACT_PATHS:
            database.execute(
                f"UPDATE {table} SET {column} = ? || substr({column}, ?) WHERE substr({column}, 1, ?) = ?",
                (new, len(old) + 1, len(old), old),
            )


def by_reference(path: str, digest: str) -> str:
    """How a content that DVC keeps is named where no copy of it is."""
    return f"dvc://{path}?md5={digest}"


def first_line(error: BaseException) -> str:
    """The first line of an error's message, or its kind."""
    return (str(error).strip().splitlines() or [type(error).__name__])[0]


def _shortened(tags: Mapping[str, str]) -> dict[str, str]:
    return {key: value[:VALUE_LENGTH] for key, value in tags.items()}
