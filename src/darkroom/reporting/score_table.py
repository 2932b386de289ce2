"""The figures of an evaluation as a CSV file, which MLflow's pages show as a table."""

import csv
import io
from collections.abc import Mapping
from typing import Any

from darkroom.evaluation.report import beside, estimates
from darkroom.reporting.charts import number

HEAD = ("score", "value", "low", "high", "pictures", "to be read against")


def score_table(metrics: Mapping[str, Any]) -> str:
    """Every figure with its 95 % interval, and the values that it is to be read against.

    Args:
        metrics: what evaluate wrote to metrics.json.
    """
    text = io.StringIO()
    table = csv.writer(text, lineterminator="\n")
    table.writerow(HEAD)
    for name, figure in estimates(metrics).items():
        against = "; ".join(f"{line.of} {number(line.value)}" for line in beside(metrics, name))
        table.writerow([name, *(number(figure[key]) for key in ("value", "low", "high")), figure["n"], against])
    return text.getvalue()
