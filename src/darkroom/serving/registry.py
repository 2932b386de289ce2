"""The assembled pipeline in MLflow's model registry, as a model that `mlflow models serve` answers requests with."""

import json
import math
import os
import shutil
import sys
import tempfile
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from darkroom.config.paths import PIPELINE, PREPARED
from darkroom.core.artifact import PROVENANCE, model_hash, read_json
from darkroom.core.errors import DarkroomError
from darkroom.serving.gate import EVALUATION, AliasHolder, Thresholds, Verdict, decide, read_figures
from darkroom.serving.model_folder import CODE, Description, write_model
from darkroom.tracking.address import artifacts_folder, is_shared, location, without_password
from darkroom.tracking.availability import check_answers
from darkroom.tracking.links import fitted, leads, maker_of, makers_behind, table_of_makers
from darkroom.tracking.note import NOTE
from darkroom.tracking.outbox.pending import replay
from darkroom.tracking.process import is_running, process_tags
from darkroom.tracking.record_sync import deviations
from darkroom.tracking.records import TAG as RECORD
from darkroom.tracking.secrets import first_line
from darkroom.tracking.store import VALUE_LENGTH, Store, is_transient, web_address

MODEL, ALIAS = "darkroom", "candidate"
MADE_AT = PIPELINE.as_posix()  # where the run that assembled a pipeline noted its content
CARD = "README.md"  # of a pipeline: its model card
GATE, REASONS = "gate", "gate.reasons"  # tags of a version: how it came through the gate, and what was against it
PASSED, REFUSED, OVERRIDDEN = "passed", "refused", "overridden"
ABOUT = f"""\
Pictures drawn by a Darkroom pipeline: a prompt in, a PNG file out. Each version is one content of `{MADE_AT}`, and its
description the model card. `{ALIAS}` is the last one whose figures reached what the section `register` of params.yaml
demands, or that `darkroom register --promote` named all the same: the tag `{GATE}` of a version says `{PASSED}`,
`{REFUSED}` or `{OVERRIDDEN}`, and `{REASONS}` what was against it. Serve it from its project:

```
darkroom serve
```

or elsewhere with `mlflow models serve -m "models:/{MODEL}@{ALIAS}" --env-manager local`.

(`darkroom-pipeline` keeps the same folder for every execution of `evaluate`, as it keeps all stages' weights; it cannot
be served.)
"""


@dataclass(frozen=True)
class Registered:
    """A version of the model.

    new: whether it is. had, has: the versions that had the alias before, and have it now; None: none.
    verdict: of the gate, which a version that has the alias already need not pass.
    """

    version: str
    new: bool
    had: str | None
    has: str | None
    verdict: Verdict
    page: str


def register(
    folder: Path, description: Description, thresholds: Thresholds, promote: bool = False, lock: Path | None = None
) -> Registered:
    """Register the pipeline in `folder`: as a new version, unless there is one of the same content.

    It becomes the candidate where its figures reach the thresholds, or where it is to be promoted whatever they are.
    The version belongs to the run that assembled the pipeline; where no run is known, to one made for it.

    Args:
        lock: DVC's record of how the pipeline was made, kept with that run if it is of this pipeline.

    Raises DarkroomError: there is no such folder, or the store does not answer, open, or take it.
    """
    digest = model_hash(folder)
    check_answers(location())
    store = Store()
    replay(store)  # the run that assembled the pipeline may be among those that wait
    try:
        _clear_half_made(store)
        version = store.find_version(MODEL, digest)
        _check_as_recorded(store, version)
        new = version is None
        if version is None:
            store.client.update_registered_model(MODEL, ABOUT)
            version = _add_version(store, folder, digest, description, lock)
        elif RECORD not in store.client.get_logged_model(_copy(store, version)).tags:
            _write_again(store, version, folder, description)
        had = _alias_version(store)
        verdict = Verdict()
        if had != version:
            holder = _figures_of(store, had) if had and thresholds.not_below_candidate else None
            verdict = decide(read_figures(folder), thresholds, holder, _curves(store, folder))
            _note(store, version, description.card, verdict, promote)
            if verdict.passed or promote:
                store.client.set_registered_model_alias(MODEL, ALIAS, version)
        has = _alias_version(store)
        _keep_records(store, version)
    except (store.mlflow.exceptions.MlflowException, OSError) as error:
        raise DarkroomError(
            f"{folder}: could not be registered in {without_password(store.address)} ({first_line(error)}); "
            "try darkroom register again"
        ) from error
    page = f"{web_address(store.address)}/{store.model_link(MODEL, version)}"
    return Registered(version, new, had, has, verdict, page)


def take_out(store: Store, which: str, beside: Path) -> tuple[str, Path]:
    """The number of a version, and its model's folder, copied into `beside`, with the code that serves it as installed
    here.

    Args:
        which: its number, or an alias.

    Raises DarkroomError: there is no such version, or its pipeline is not what was registered.
    """
    try:
        if which.isdecimal():
            version = store.client.get_model_version(MODEL, which)
        else:
            version = store.client.get_model_version_by_alias(MODEL, which)
        with _address_in_environment(store.address):
            address = f"models:/{MODEL}/{version.version}"
            folder = Path(store.mlflow.artifacts.download_artifacts(artifact_uri=address, dst_path=str(beside)))
        python = store.mlflow.models.Model.load(str(folder)).flavors["python_function"]
        code, pipeline = (Path(python["model_code_path"]).name, folder / python["artifacts"]["pipeline"]["path"])
    except (store.mlflow.exceptions.MlflowException, OSError, KeyError, TypeError) as error:
        raise DarkroomError(
            f"version {which!r} of the model {MODEL} cannot be taken from {without_password(store.address)} "
            f"({first_line(error)}); run darkroom register, or give --version another one"
        ) from error
    if (found := model_hash(pipeline)) != (noted := version.tags.get("content")):
        raise DarkroomError(
            f"version {version.version} of the model {MODEL}: its files are {found}, but {noted} was registered; "
            "run darkroom audit"
        )
    shutil.copyfile(CODE, folder / code)
    return str(version.version), folder


def _alias_version(store: Store) -> str | None:
    version = store.client.get_registered_model(MODEL).aliases.get(ALIAS)
    return None if version is None else str(version)


def _check_as_recorded(store: Store, version: str | None) -> None:
    """Refuse to write on what is not as it was recorded: the new record would vouch for it."""
    things = [("model", MODEL)]
    if version is not None:
        things += [("version", f"{MODEL}/{version}"), ("copy", _copy(store, version))]
    for kind, key in things:
        wrong = deviations(store.address, kind, key)
        if any(not (kind == "model" and one.startswith("description")) for one in wrong):  # which is written anew
            raise _refused(store, kind, key, wrong)


def _refused(store: Store, kind: str, key: str, wrong: Sequence[str]) -> DarkroomError:
    return DarkroomError(
        f"the {kind} {key} in {without_password(store.address)} is not as it was recorded ({wrong[0]}); "
        "darkroom audit --repair, then darkroom register again"
    )


def _keep_records(store: Store, version: str) -> None:
    for kind, key in (("copy", _copy(store, version)), ("version", f"{MODEL}/{version}"), ("model", MODEL)):
        store.keep_record(kind, key, again=True)


def _copy(store: Store, version: str) -> str:
    """The id of the folder that MLflow keeps of a version."""
    return str(store.client.get_model_version(MODEL, version).source).removeprefix("models:/")


def _write_again(store: Store, version: str, folder: Path, description: Description) -> None:
    """Write the files of a version anew of which no record was kept: nobody knows what has become of them."""
    model = store.client.get_logged_model(_copy(store, version))
    artifacts = artifacts_folder(model.artifact_location)
    if artifacts is None:
        return
    shutil.rmtree(artifacts, ignore_errors=True)
    run = store.client.get_model_version(MODEL, version).run_id
    with tempfile.TemporaryDirectory() as beside:
        write_model(store, Path(beside) / "model", folder, run, model, description)
        store.client.log_model_artifacts(model.model_id, str(Path(beside) / "model"))


def _clear_half_made(store: Store) -> None:
    """Take away the folders that a `register` left which was killed, before a version could name them."""
    shared = is_shared(store.address)
    sources = {found.source for found in store.client.search_model_versions(f"name = '{MODEL}'")}
    for model in store.client.search_logged_models([store.experiment], f"name = '{MODEL}'"):
        alive = is_running(model.tags, shared)
        if f"models:/{model.model_id}" in sources or alive or (alive is None and shared):
            continue
        if artifacts := artifacts_folder(model.artifact_location):
            shutil.rmtree(
                artifacts.parent if artifacts.parent.name == model.model_id else artifacts, ignore_errors=True
            )
        store.client.delete_logged_model(model.model_id)


def _figures_of(store: Store, version: str) -> AliasHolder:
    """The figures that lie with a version. That a store does not answer now is an error, not an answer."""
    name, model, artifacts = f"version {version}", f"models:/{MODEL}/{version}", store.mlflow.artifacts
    try:
        with tempfile.TemporaryDirectory() as beside, _address_in_environment(store.address):
            if EVALUATION not in {file.path for file in artifacts.list_artifacts(artifact_uri=model)}:
                return AliasHolder(name, None)
            file = artifacts.download_artifacts(artifact_uri=f"{model}/{EVALUATION}", dst_path=beside)
            return AliasHolder(name, read_figures(Path(file).parent))
    except (store.mlflow.exceptions.MlflowException, OSError) as error:
        if is_transient(error) and not isinstance(error, FileNotFoundError):
            raise
        return AliasHolder(name, None, f"its files cannot be read ({first_line(error)})")


def _curves(store: Store, folder: Path) -> dict[str, float]:
    """The last values of all curves of the runs that made what the pipeline was made from, as far as runs are known."""
    try:
        inputs = dict(read_json(folder / PROVENANCE)["inputs"])
    except (DarkroomError, KeyError, TypeError, ValueError):
        return {}
    found: dict[str, float] = {}
    for path, digest in inputs.items():
        if maker := store.find_maker(path, digest):
            for name, value in store.client.get_run(maker[0]).data.metrics.items():
                endless = abs(value) >= sys.float_info.max  # which MLflow's databases keep for infinity
                found[f"{name} of {maker[1]}"] = math.copysign(math.inf, value) if endless else value
    return found


def _note(store: Store, version: str, card: str, verdict: Verdict, promote: bool) -> None:
    """Say on a version's page and in its tags how it came through the gate."""
    outcome = PASSED if verdict.passed else OVERRIDDEN if promote else REFUSED
    against = "; ".join(verdict.reasons)
    said = {
        PASSED: "",
        REFUSED: f"**Not promoted to `{ALIAS}`**: {against}.\n\n",
        OVERRIDDEN: f"**Promoted to `{ALIAS}` by `--promote`**, though {against}.\n\n",
    }
    store.client.set_model_version_tag(MODEL, version, GATE, outcome)
    store.client.set_model_version_tag(MODEL, version, REASONS, against[:VALUE_LENGTH])
    about = said[outcome] + _about(store, version, card, VALUE_LENGTH - len(said[outcome]))
    store.client.update_model_version(MODEL, version, about)
    store.client.set_logged_model_tags(_copy(store, version), {NOTE: about})


def _about(store: Store, version: str, card: str, room: int) -> str:
    """What the page of a version says: the way back to all that it was made from, then its card, as far as it fits."""
    maker = maker_of(store.client.get_run(store.client.get_model_version(MODEL, version).run_id))
    if MADE_AT not in maker.outputs:  # made elsewhere
        return fitted(card, room, "The rest of the card: README.md of the pipeline.")
    behind = makers_behind(store, maker.inputs)
    way = [leads(store, maker, behind), table_of_makers(store, [*behind, maker]), card]
    link = store.run_link(maker.run, f"/artifacts/{MADE_AT}/{CARD}")
    return fitted("\n\n".join(part for part in way if part), room, f"The rest of the card: [{CARD}]({link})")


def _add_version(store: Store, folder: Path, digest: str, description: Description, lock: Path | None) -> str:
    now = time.time_ns() // 1_000_000
    maker = store.find_maker(MADE_AT, digest)
    made_here = {f"in.{MADE_AT}": digest, "stage": "register", **process_tags()}
    run = maker[0] if maker else store.create_run("register", now, {}, made_here)
    if wrong := deviations(store.address, "run", run):
        raise _refused(store, "run", run, wrong)
    try:
        model = store.client.create_logged_model(
            store.experiment,
            name=MODEL,
            source_run_id=run,
            params={name: str(value) for name, value in description.defaults.items()},
            tags={"content": digest, **process_tags()},
        )
        with tempfile.TemporaryDirectory() as beside:
            write_model(store, Path(beside) / "model", folder, run, model, description)
            store.client.log_model_artifacts(model.model_id, str(Path(beside) / "model"))
        if lock is not None and lock.is_file() and digest in lock.read_text(encoding="utf-8"):
            store.log_file(run, lock)
        store.client.finalize_logged_model(model.model_id, "READY")
        _log_metrics(store, run, model.model_id, now, description.metrics, _measured_on(folder))
        with _address_in_environment(store.address):
            version = store.client.create_model_version(
                MODEL,
                f"models:/{model.model_id}",
                run_id=run,
                tags={"content": digest},
                model_id=model.model_id,
            ).version
        links = json.dumps([{"name": MODEL, "version": version}])  # by which the model's own page shows its version
        store.client.set_logged_model_tags(model.model_id, {"mlflow.modelVersions": links})
        for name in process_tags():  # it is whole: who worked at it matters no more
            store.client.delete_logged_model_tag(model.model_id, name)
        if maker:
            store.keep_record("run", run, again=True)
    except BaseException:
        if not maker:
            store.end_run(run, "FAILED")
        raise
    if not maker:
        store.end_run(run, "FINISHED")
    return str(version)


def _measured_on(folder: Path) -> tuple[str, str] | tuple[None, None]:
    """Path and hash of the data that the figures of a pipeline were measured on, where it says so."""
    try:
        return PREPARED.as_posix(), str(read_json(folder / EVALUATION)["judged_with"][PREPARED.as_posix()])
    except (DarkroomError, OSError, KeyError, TypeError, ValueError):
        return None, None


def _log_metrics(
    store: Store,
    run: str,
    model: str,
    now: int,
    metrics: Mapping[str, float],
    measured_on: tuple[str, str] | tuple[None, None],
) -> None:
    entities = store.mlflow.entities
    store.client.log_outputs(run, [entities.LoggedModelOutput(model, step=0)])
    values = [entities.Metric(name, value, now, 0, model, *measured_on, run) for name, value in metrics.items()]
    store.client.log_batch(run, values)


@contextmanager
def _address_in_environment(address: str) -> Iterator[None]:
    """To find out where a model lies, MLflow asks the store named there, whichever store its client was opened on."""
    before = os.environ.get("MLFLOW_TRACKING_URI")
    os.environ["MLFLOW_TRACKING_URI"] = address
    try:
        yield
    finally:
        del os.environ["MLFLOW_TRACKING_URI"]
        if before is not None:
            os.environ["MLFLOW_TRACKING_URI"] = before
