"""The door to MLflow: where the runs are kept and how they are written. The only file that imports mlflow."""

import json
import logging
import os
import re
import shutil
import sys
import tempfile
import uuid
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple
from urllib.parse import urlencode

from filelock import FileLock

from darkroom.core.errors import DarkroomError
from darkroom.tracking.address import (
    FOLDER,
    artifacts_address,
    export_credentials,
    is_server,
    is_shared,
    project_root,
    tracking_uri,
    without_password,
)
from darkroom.tracking.availability import BUSY, DENIED
from darkroom.tracking.database import EXPERIMENT, follow_project, make
from darkroom.tracking.ports import web_port
from darkroom.tracking.record_sync import write_record
from darkroom.tracking.schema import SchemaError
from darkroom.tracking.secrets import first_line, hide_secrets, without_secrets
from darkroom.tracking.ui_columns import KIND, SHARE_KEY, TAG, shared_state

TRAINING_VIEW = "workflowType=machine_learning"  # without it MLflow's pages open on language models, and empty
BATCH = {"metrics": 1000, "params": 100, "tags": 100}  # what MLflow takes in one call
REPOSITORY = "mlflow.source.git.repoURL"  # tag of a run: where its repository is to be seen on the web
AFTERWARDS = "audit"  # tag of a run that an audit recorded: what it recorded
BUCKETS = ("boto3", "botocore")  # whose errors come from where artifacts go
NOT_IN_NAMES = re.compile(r"[^\w\-. :/]")
PREVIEW = (256, 256)  # pixels of the small pictures MLflow's pages show in a row
VALUE_LENGTH = 5000  # characters MLflow's databases keep of a parameter or tag


class UnavailableError(DarkroomError):
    """The store does not answer now; later it may."""


class Metric(NamedTuple):
    """A value at a step; `time` in milliseconds since 1970."""

    name: str
    value: float
    time: int
    step: int


class Store:
    """An open MLflow store with Darkroom's experiment in it; made on first use, by one process at a time."""

    def __init__(self) -> None:
        """Open it. Raises UnavailableError: its server does not answer. DarkroomError: it cannot be opened."""
        self.address = export_credentials()
        hide_secrets()
        os.environ.setdefault("MLFLOW_DISABLE_TELEMETRY", "true")
        os.environ.setdefault("MLFLOW_ENABLE_ARTIFACTS_PROGRESS_BAR", "false")
        os.environ.setdefault("MLFLOW_SUPPRESS_PRINTING_URL_TO_STDOUT", "true")
        os.environ.setdefault("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "1")
        os.environ.setdefault("MLFLOW_HTTP_REQUEST_TIMEOUT", "20")
        try:
            import mlflow
            from mlflow.store.tracking.sqlalchemy_store import SqlAlchemyStore
        except ImportError:
            raise DarkroomError("mlflow is not installed; install it, or set DARKROOM_TRACKING=off") from None
        for talkative in ("mlflow", "alembic"):
            logging.getLogger(talkative).setLevel(logging.WARNING)
        try:
            if tracking_uri():
                self._open(mlflow, None)
            else:
                folder = project_root() / FOLDER
                folder.mkdir(parents=True, exist_ok=True)
                with FileLock(folder / "lock"):
                    if not (folder / "mlflow.db").exists():
                        make(SqlAlchemyStore, folder / "mlflow.db")
                    follow_project(folder)
                    self._open(mlflow, artifacts_address(folder / "artifacts"))
        except SchemaError:
            raise
        except Exception as error:
            if is_shared(self.address) and is_transient(error):
                raise UnavailableError(self.unavailable(error)) from error
            remedy = (
                f"have its administrator grant EDIT on the experiment {EXPERIMENT}"
                if _status(error) in DENIED
                else "repair it or move it away"
            )
            raise DarkroomError(
                f"the tracking store {without_password(self.address)} cannot be opened ({first_line(error)}); "
                f"{remedy}, or set DARKROOM_TRACKING=off"
            ) from error

    def _open(self, mlflow: Any, artifacts: str | None) -> None:
        self.mlflow, self._entities = mlflow, mlflow.entities
        self.client: Any = mlflow.MlflowClient(tracking_uri=self.address, registry_uri=self.address)
        found = self.client.get_experiment_by_name(EXPERIMENT)
        self.experiment: str = (
            found.experiment_id
            if found
            else self.client.create_experiment(EXPERIMENT, artifact_location=artifacts, tags=KIND)
        )
        if found is None or found.tags.get(TAG) != shared_state():
            self.client.set_experiment_tag(self.experiment, TAG, shared_state())

    def unavailable(self, error: Exception) -> str:
        """What is said of an error that may pass."""
        return f"the tracking store {without_password(self.address)} takes nothing now ({first_line(_cause(error))})"

    def run_link(self, run: str, tab: str = "") -> str:
        """A link to a run, relative to the user interface."""
        return run_page(self.experiment, run, tab)

    def model_link(self, model: str, version: str) -> str:
        """A link to a version of a model, relative to the user interface."""
        return f"#/models/{model}/versions/{version}?{TRAINING_VIEW}"

    def runs_link(self) -> str:
        """A link to the table of runs with their scores, relative to the user interface."""
        return f"#/experiments/{self.experiment}/runs?{TRAINING_VIEW}&viewStateShareKey={SHARE_KEY}"

    def picture_link(self, run: str, name: str) -> str:
        """What shows a picture that a run keeps, relative to the user interface."""
        return f"get-artifact?{urlencode({'path': name, 'run_uuid': run}, safe='/')}"

    def files(self, run: str, folder: str | None = None) -> frozenset[str]:
        """The names of the files and folders that lie in a folder of what a run keeps, or at the top of it."""
        return frozenset(found.path for found in self.client.list_artifacts(run, folder))

    def create_run(self, name: str, began: int, params: Mapping[str, Any], tags: Mapping[str, str]) -> str:
        """Note a run that began at `began` (milliseconds since 1970) and return its id."""
        run: str = self.client.create_run(self.experiment, began, _shortened(tags), name).info.run_id
        self.log_params(run, params)
        return run

    def find_run(self, tag: str, value: str) -> str | None:
        found = self.client.search_runs([self.experiment], f"tags.`{tag}` = '{value}'", max_results=1)
        return found[0].info.run_id if found else None

    def log_params(self, run: str, params: Mapping[str, Any]) -> None:
        """Name the parameters of a run; each has one value for ever."""
        entries = [
            self._entities.Param(key, (value if isinstance(value, str) else json.dumps(value))[:VALUE_LENGTH])
            for key, value in params.items()
        ]
        for first in range(0, len(entries), BATCH["params"]):
            self.client.log_batch(run, params=entries[first : first + BATCH["params"]])

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
        entries = [self._entities.RunTag(key, value) for key, value in _shortened(tags).items()]
        for first in range(0, len(entries), BATCH["tags"]):
            self.client.log_batch(run, tags=entries[first : first + BATCH["tags"]])

    def log_metrics(self, run: str, metrics: Sequence[Metric]) -> None:
        """Add values to a run's curves; what no name may hold becomes "_", or MLflow would refuse the whole batch."""
        entries = [self._entities.Metric(NOT_IN_NAMES.sub("_", m.name), m.value, m.time, m.step) for m in metrics]
        for first in range(0, len(entries), BATCH["metrics"]):
            self.client.log_batch(run, metrics=entries[first : first + BATCH["metrics"]])

    def log_file(self, run: str, file: Path, folder: str = ".") -> None:
        self.client.log_artifact(run, str(file), None if folder == "." else folder)

    def log_picture_at(self, run: str, picture: Path, name: str, step: int, time: int) -> None:
        """Add a PNG file to the row of pictures that a run's page shows with a slider over the steps.

        MLflow's own `log_image` gives its files random names: sent again, a picture would stand in the row twice.
        """
        from PIL import Image, ImageOps

        title = f"{name.replace('/', '~')}+step+{step}+timestamp+{time}+{uuid.uuid5(uuid.NAMESPACE_OID, run)}"
        with tempfile.TemporaryDirectory() as beside, Image.open(picture) as opened:
            full, preview = Path(beside) / f"{title}.png", Path(beside) / f"{title}+compressed.webp"
            shutil.copyfile(picture, full)
            ImageOps.contain(opened, PREVIEW).save(preview)
            self.log_file(run, full, "images")
            self.log_file(run, preview, "images")
        self.set_tags(run, {"mlflow.loggedImages": "True"})

    def find_maker(self, path: str, digest: str) -> tuple[str, str] | None:
        """Id and name of the run that `latest_maker` finds."""
        maker = self.latest_maker(path, digest)
        return (maker.info.run_id, maker.info.run_name) if maker else None

    def latest_maker(self, path: str, digest: str) -> Any | None:
        """The latest finished run that wrote `path` with this content, MLflow's `Run`.

        One that an audit recorded afterwards wrote nothing itself: it counts only where there is no other.
        """
        found = self.client.search_runs(
            [self.experiment],
            f"tags.`out.{path}` = '{digest}' and attributes.status = 'FINISHED'",
            order_by=["attributes.start_time DESC"],
        )
        return min(found, key=lambda run: AFTERWARDS in run.data.tags, default=None)

    def profile_of_maker(self, path: str, digest: str) -> dict[str, str] | None:
        """The execution profile of the run that `find_maker` finds."""
        if not (maker := self.find_maker(path, digest)):
            return None
        profile: dict[str, str] | None = json.loads(self.client.get_run(maker[0]).data.tags.get("profile", "null"))
        return profile

    def register(self, run: str, model: str, path: str, digest: str, copied: bool, about: str = "") -> str:
        """The version of `model` with this content, made by `run` unless an earlier run made the same bytes.

        Where the weights were copied into the run, the version points there; else it refers to DVC's copy. about: what
        its page says, Markdown.
        """
        if found := self.find_version(model, digest):
            return found
        artifacts = self.client.get_run(run).info.artifact_uri
        source = f"{artifacts}/{path}" if copied else by_reference(path, digest)
        version = self.client.create_model_version(
            model, source, run_id=run, tags={"content": digest}, description=about or f"{path}, content `{digest}`"
        )
        self.keep_record("version", f"{model}/{version.version}")
        return str(version.version)

    def find_version(self, model: str, digest: str) -> str | None:
        """The version of `model` with this content; makes the model, still without versions, where there is none."""
        if not self.client.search_registered_models(f"name = '{model}'", max_results=1):
            self.client.create_registered_model(model)
            self.keep_record("model", model)
        found = self.client.search_model_versions(f"name = '{model}' and tags.content = '{digest}'", max_results=1)
        return str(found[0].version) if found else None

    def scoring_app(self, model: Path) -> tuple[Any, Any, list[str]]:
        """MLflow's ASGI application that answers requests with the model in a folder, the model itself, and the names
        of its parameters."""
        from mlflow.pyfunc import load_model, scoring_server

        logging.getLogger(scoring_server.__name__).setLevel(logging.ERROR)  # its remarks are on what clients send
        loaded = load_model(str(model))
        params = loaded.metadata.get_params_schema()
        app = scoring_server.init(loaded)
        return app, loaded.unwrap_python_model(), [one.name for one in params.params] if params else []

    def end_run(self, run: str, status: str, time: int | None = None) -> None:
        """Close a run as FINISHED, FAILED or KILLED, at `time` (milliseconds since 1970) or now; its record is kept."""
        self.client.set_terminated(run, status, time)
        self.keep_record("run", run)

    def keep_record(self, kind: str, key: str, again: bool = False) -> None:
        """See `record_sync.write_record`. That it cannot be written costs nobody a run: the audit will miss it."""
        try:
            write_record(self.client, self.address, kind, key, again)
        except OSError as error:
            warn(f"the record of {kind} {key} cannot be written ({error}); make .darkroom writable")
        except SchemaError as error:
            warn(f"no record of {kind} {key}: {error}")


def run_page(experiment: str, run: str, tab: str = "") -> str:
    """A link to a run, relative to the user interface."""
    return f"#/experiments/{experiment}/runs/{run}{tab}?{TRAINING_VIEW}"


def web_address(address: str) -> str:
    """Where the user interface of a store stands, or will once it runs."""
    return without_password(address).rstrip("/") if is_server(address) else f"http://127.0.0.1:{web_port()}"


def is_transient(error: Exception, was_open: bool = False) -> bool:
    """Whether trying again later has a point: no answer, no connection, a locked database, whatever a bucket says.

    Where the store was open before (`was_open`), also a refusal to let us in: a token ran out.
    """
    status = _status(error)
    if status is None:
        return isinstance(error, OSError) or type(error).__module__.partition(".")[0] in BUCKETS
    return status >= 500 or status in BUSY or (was_open and status in DENIED)


def _status(error: Exception) -> int | None:
    """HTTP's, as MLflow or requests give it."""
    status = getattr(getattr(error, "response", None), "status_code", getattr(error, "code", None))
    status = error.get_http_status_code() if hasattr(error, "get_http_status_code") else status
    return status if isinstance(status, int) else None


def by_reference(path: str, digest: str) -> str:
    """How a content that DVC keeps is named where no copy of it is."""
    return f"dvc://{path}?md5={digest}"


def _cause(error: BaseException) -> BaseException:
    """The operating system's own error beneath MLflow's, such as a refused connection; else the error itself."""
    found, beneath = error, error.__cause__ or error.__context__
    while beneath is not None:
        found = beneath if isinstance(beneath, OSError) else found
        beneath = beneath.__cause__ or beneath.__context__
    return found


def warn(message: str) -> None:
    """Say what the person who runs a stage should know, though the stage continues."""
    print(f"darkroom: tracking: {without_secrets(message)}", file=sys.stderr, flush=True)


def _shortened(tags: Mapping[str, str]) -> dict[str, str]:
    return {key: value[:VALUE_LENGTH] for key, value in tags.items()}
