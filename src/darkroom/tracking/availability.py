"""Whether a store can be used: asked before any work, and without importing mlflow.

Of a server, whether it answers, lets us in, is no older than the client, and reaches its artifacts; of a database,
whether it lets us in and has the installed MLflow's schema.
"""

import base64
import json
import os
import re
import sqlite3
import ssl
import urllib.error
import urllib.request
from contextlib import closing
from http import HTTPStatus
from importlib.util import find_spec
from pathlib import Path
from urllib.parse import quote

from darkroom.core.errors import DarkroomError
from darkroom.tracking.address import (
    FOLDER,
    PASSWORD,
    USERNAME,
    VARIABLE,
    credentials,
    database_file,
    is_remote_database,
    is_server,
    project_root,
    tracking_uri,
    without_password,
)
from darkroom.tracking.database import EXPERIMENT
from darkroom.tracking.schema import QUESTION, check_schema, installed_version
from darkroom.tracking.secrets import TOKEN, first_line, hide_secrets

ANSWERS_WITHIN = 30.0  # seconds, of which a server may take many that first opens its database
OFF = "or set DARKROOM_TRACKING=off"
BUSY = (HTTPStatus.REQUEST_TIMEOUT, HTTPStatus.TOO_MANY_REQUESTS)
DENIED = (HTTPStatus.UNAUTHORIZED, HTTPStatus.FORBIDDEN)
OTHER_LOGINS = (TOKEN, "MLFLOW_TRACKING_AUTH", "MLFLOW_TRACKING_AWS_SIGV4")  # which MLflow has besides a password
RELEASE = re.compile(r"(\d+)\.(\d+)[\w.]*")
SERVED = "mlflow-artifacts:"  # of artifacts that clients send to the server, which writes them
PROBE = ".darkroom"  # below an experiment's artifacts, where nothing is: listing it is one request to the bucket


def check_answers(address: str) -> None:
    """Make sure, in a fraction of a second, that there is a point in opening this store.

    Raises:
        DarkroomError: it does not answer or let us in, is of another version or schema, cannot reach its artifacts, or
            its folder cannot be made.
    """
    hide_secrets()
    if is_server(address):
        _check_server(address)
    elif is_remote_database(address):
        _check_database(address)
    else:
        if not tracking_uri():
            folder = project_root() / FOLDER
            try:
                folder.mkdir(parents=True, exist_ok=True)
            except OSError as error:
                remedy = f"start it, correct {VARIABLE}, {OFF}"
                raise DarkroomError(f"{folder}: the tracking store cannot be made ({error}); {remedy}") from None
        _check_file(database_file(address), address)


def _check_server(address: str) -> None:
    _ask(address, "/health")
    _check_version(address, *_ask(address, "/version"))
    status, said = _ask(address, f"/api/2.0/mlflow/experiments/get-by-name?experiment_name={quote(EXPERIMENT)}")
    if status in DENIED:
        _refuse(address, status)
    experiment = _experiment(said) if status == HTTPStatus.OK else {}
    location = experiment.get("artifact_location", SERVED)
    if not location.startswith(SERVED):
        return _check_bucket(location, address)
    probe = f"{experiment.get('experiment_id', '0')}/{PROBE}"
    status, said = _ask(address, f"/api/2.0/mlflow-artifacts/artifacts?path={quote(probe)}", any_status=True)
    if status >= HTTPStatus.INTERNAL_SERVER_ERROR and status != HTTPStatus.SERVICE_UNAVAILABLE:  # it serves none
        raise DarkroomError(
            f"the tracking server {without_password(address)} cannot reach its artifacts ({_reason(status, said)}); "
            f"see that its --artifacts-destination exists and it may write there, {OFF}"
        )
    return None


def _check_bucket(location: str, address: str) -> None:
    """Refuse a store whose artifacts go straight to a bucket where the client for buckets is not installed."""
    if location.startswith("s3:") and find_spec("boto3") is None:
        raise DarkroomError(
            f"the artifacts of {without_password(address)} go to {without_password(location)}, and boto3 is not "
            "installed; pip install 'darkroom[s3]'"
        )


def _check_version(address: str, status: int, said: str) -> None:
    """Refuse a server older than the client (by its first two numbers) or newer (by the first), where it says so."""
    there, here = RELEASE.fullmatch(said.strip()), RELEASE.fullmatch(installed_version())
    if status != HTTPStatus.OK or not there or not here:
        return
    theirs, ours = ([int(number) for number in found.groups()] for found in (there, here))
    if theirs < ours:
        raise DarkroomError(
            f"the tracking server {without_password(address)} runs MLflow {there[0]}, older than {here[0]} here; "
            f'there, stop it, pip install mlflow=={here[0]}, and mlflow db upgrade "$MLFLOW_BACKEND_STORE_URI", {OFF}'
        )
    if theirs[0] > ours[0]:
        raise DarkroomError(
            f"the tracking server {without_password(address)} runs MLflow {there[0]}, and {here[0]} is installed here; "
            f"install the Darkroom that goes with MLflow {theirs[0]}, {OFF}"
        )


def _ask(address: str, path: str, any_status: bool = False) -> tuple[int, str]:
    """HTTP's status and the text of what a server answers.

    Raises DarkroomError: it does not answer; unless `any_status`, it says that it cannot work, or refuses a password.
    """
    known = credentials()
    question = urllib.request.Request(f"{address}{path}")
    if known:
        question.add_header("Authorization", f"Basic {base64.b64encode(':'.join(known).encode()).decode()}")
    elif token := os.environ.get(TOKEN):
        question.add_header("Authorization", f"Bearer {token}")
    try:
        with urllib.request.urlopen(question, timeout=ANSWERS_WITHIN, context=_certificates()) as answer:
            return answer.status, answer.read().decode(errors="replace")
    except urllib.error.HTTPError as error:
        if not any_status and known and error.code in DENIED:
            _refuse(address, error.code)
        if not any_status and (error.code >= HTTPStatus.INTERNAL_SERVER_ERROR or error.code in BUSY):
            raise _away(address, error.reason) from None
        with closing(error):
            return error.code, error.read().decode(errors="replace")
    except (OSError, ValueError) as error:
        raise _away(address, str(getattr(error, "reason", error))) from None


def _certificates() -> ssl.SSLContext:
    """Whose certificates count, by the variables that MLflow and requests read."""
    if os.environ.get("MLFLOW_TRACKING_INSECURE_TLS", "").lower() in ("true", "1"):
        unchecked = ssl.create_default_context()
        unchecked.check_hostname, unchecked.verify_mode = False, ssl.CERT_NONE
        return unchecked
    bundles = ("MLFLOW_TRACKING_SERVER_CERT_PATH", "REQUESTS_CA_BUNDLE", "CURL_CA_BUNDLE")
    bundle = next((path for name in bundles if (path := os.environ.get(name))), "")
    try:
        return ssl.create_default_context(cafile=bundle or None)
    except OSError as error:
        raise DarkroomError(f"{bundle}: certificates cannot be read ({error}); correct the variable") from None


def _away(address: str, reason: str) -> DarkroomError:
    return DarkroomError(
        f"the tracking server {without_password(address)} does not answer ({first_line(ValueError(reason))}); "
        f"start it, correct {VARIABLE}, {OFF}"
    )


def _refuse(address: str, status: int) -> None:
    """Raises DarkroomError: the server does not let us in; not where MLflow has another way to log in."""
    if credentials():
        said = "refuses user and password" if status == HTTPStatus.UNAUTHORIZED else "gives this user no access"
        remedy = "correct them" if status == HTTPStatus.UNAUTHORIZED else "have its administrator grant EDIT"
    elif any(os.environ.get(name) for name in OTHER_LOGINS):
        return
    else:
        said, remedy = "asks for user and password", f"set {USERNAME} and {PASSWORD}"
    raise DarkroomError(f"the tracking server {without_password(address)} {said} (status {status}); {remedy}, {OFF}")


def _experiment(said: str) -> dict[str, str]:
    try:
        found: dict[str, str] = json.loads(said)["experiment"]
    except (ValueError, KeyError, TypeError):
        return {}
    return found


def _reason(status: int, said: str) -> str:
    """An error of MLflow's server in one line."""
    try:
        return first_line(ValueError(str(json.loads(said)["message"])))
    except (ValueError, KeyError, TypeError):
        return f"status {status}"


def _check_database(address: str) -> None:
    """Of a database on a server, opened here without a tracking server before it."""
    store = without_password(address)
    try:
        import sqlalchemy

        engine = sqlalchemy.create_engine(address, poolclass=sqlalchemy.NullPool)
        with engine.connect() as connection:
            tables = sqlalchemy.inspect(connection).get_table_names()
            if "alembic_version" in tables:
                check_schema(" ".join(str(row[0]) for row in connection.execute(sqlalchemy.text(QUESTION))), address)
            asked = sqlalchemy.text("SELECT artifact_location FROM experiments WHERE name = :name")
            found = connection.execute(asked, {"name": EXPERIMENT}).first() if "experiments" in tables else None
    except ModuleNotFoundError as error:
        raise DarkroomError(
            f"{store}: no driver of this database is installed ({error.name}); pip install 'darkroom[server]'"
        ) from None
    except sqlalchemy.exc.SQLAlchemyError as error:
        reason = first_line(getattr(error, "orig", None) or error)
        raise DarkroomError(
            f"the tracking store {store} does not let us in ({reason}); start it, correct {VARIABLE} or the password, "
            f"{OFF}"
        ) from None
    if found is None:
        raise DarkroomError(
            f"the tracking store {store} has no experiment {EXPERIMENT}, and a database does not say where artifacts "
            f"go; run mlflow experiments create --experiment-name {EXPERIMENT} --artifact-location s3://BUCKET/FOLDER"
        )
    _check_bucket(str(found[0]), address)


def _check_file(file: Path | None, address: str) -> None:
    """Of a database in a file that is there; one that is no database is left to those who read it."""
    if file is None or not file.is_file():
        return
    try:
        with closing(sqlite3.connect(f"{file.absolute().as_uri()}?mode=ro", uri=True)) as database:
            found = " ".join(str(row[0]) for row in database.execute(QUESTION))
    except sqlite3.Error:
        return
    check_schema(found, address)
