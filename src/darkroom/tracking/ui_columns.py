"""Which columns MLflow's table of runs shows when it is opened by a link of ours: the scores, no hashes.

MLflow has no interface for this: its pages keep the state of a table that is shared as a tag of the experiment, in
JSON, and find it by the key in the link (`viewStateShareKey`, MLflow 3.17). A page that does not know the tag, or a
column of it, shows what it shows by default.
"""

import json

SHARE_KEY = "darkroom-scores"
KIND = {"mlflow.experimentKind": "custom_model_development"}  # by which the pages show what training needs
TAG = f"mlflow.sharedViewState.{SHARE_KEY}"
SCORES = (  # of evaluate first, then those of single parts; only those that some run has are shown
    "alignment.test.exact_match",
    "alignment.test.class_accuracy",
    "alignment.test.caption_retrieval",
    "fidelity.fid",
    "vae.psnr",
    "held_out_loss",
    "alignment.test.attribute_accuracy",
)

DURATION = ("attributes.`Duration`", "duration")  # as it is selected, and as it is placed
LETTER, MARGIN = 7, 30  # pixels of a column's heading


def experiment_tags() -> dict[str, str]:
    return {**KIND, TAG: shared_state()}


def shared_state() -> str:
    scores = [*map(_column, SCORES)]
    widths = {DURATION[1]: 90, **{_column(name): MARGIN + LETTER * len(name) for name in SCORES}}
    return json.dumps(
        {"selectedColumns": [DURATION[0], *scores], "columnOrder": [DURATION[1], *scores], "columnWidths": widths}
    )


def _column(metric: str) -> str:
    return f"metrics.`{metric}`"
