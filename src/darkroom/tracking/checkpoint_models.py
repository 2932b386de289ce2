"""Checkpoints in MLflow's Models tab: which data, which score, which checkpoint.

MLflow's name for it is a logged model. There is one for each content of weights that a stage handed on: it belongs to
the run that first wrote it, its figures to it and to the data set on which they were measured. The files stay with
the run, or in DVC's cache.
"""

import json
import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from darkroom.tracking.note import NOTE
from darkroom.tracking.store import NOT_IN_NAMES, Store

CONTENT, PATH = "content", "path"  # tags of a logged model
SOURCE = "mlflow.source."  # tags of a run, and of a logged model: which script wrote it, at which commit
STEP = "best_step"  # the figure that says which step of a training its weights are of


@dataclass(frozen=True)
class Checkpoint:
    """Weights that a run wrote.

    model, version: what they are in the registry. path, content: where they were written, and DVC's hash of that.
    figures: what was measured of them. measured_on: path and hash of the data set that they were measured on; None:
    not known. about: Markdown.
    """

    model: str
    version: str
    path: str
    content: str
    figures: Mapping[str, float | str]
    measured_on: tuple[str, str] | None
    about: str


def log_checkpoint(store: Store, run: str, checkpoint: Checkpoint) -> str:
    """The id of the logged model of this content: new, unless an earlier run made the same bytes. The run names it
    among its outputs. May be repeated: nothing is there twice."""
    client, entities = store.client, store.mlflow.entities
    condition = f"name = '{checkpoint.model}' AND tags.{CONTENT} = '{checkpoint.content}'"
    known = next(iter(client.search_logged_models([store.experiment], condition)), None)
    writer = client.get_run(run)
    code = {key: value for key, value in writer.data.tags.items() if key.startswith(SOURCE)}
    model = known or client.create_logged_model(
        store.experiment,
        name=checkpoint.model,
        source_run_id=run,
        tags={CONTENT: checkpoint.content, PATH: checkpoint.path, NOTE: checkpoint.about, **code},
    )
    points = list(_points(store, run, checkpoint.figures))
    outputs = writer.outputs.model_outputs if writer.outputs else ()
    if model.model_id not in {output.model_id for output in outputs}:
        step = int(checkpoint.figures.get(STEP, max((point.step for point in points), default=0)))
        client.log_outputs(run, [entities.LoggedModelOutput(model.model_id, step=step)])
    if model.source_run_id != run:
        return str(model.model_id)
    name, digest = checkpoint.measured_on or (None, None)
    measured = [
        entities.Metric(one.key, one.value, one.timestamp, one.step, model.model_id, name, digest, run)
        for one in points
    ]
    if measured:
        client.log_batch(run, measured)
    links = json.dumps([{"name": checkpoint.model, "version": checkpoint.version}])
    client.set_logged_model_tags(model.model_id, {"mlflow.modelVersions": links})
    client.finalize_logged_model(model.model_id, "READY")
    store.keep_record("copy", model.model_id, again=True)
    return str(model.model_id)


def _points(store: Store, run: str, figures: Mapping[str, float | str]) -> Iterator[Any]:
    """The points of the run's curves that the figures are: logged again, for the model too, they do not stand twice.

    MLflow keeps a figure that is not a number as 0 for a model: such ones are left out.
    """
    for name, value in figures.items():
        if isinstance(value, str) or not math.isfinite(value):
            continue
        history = store.client.get_metric_history(run, NOT_IN_NAMES.sub("_", name))
        same = [point for point in history if math.isclose(point.value, value, rel_tol=1e-9)]
        yield from same[-1:]
