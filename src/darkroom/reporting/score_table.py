"""The figures of an evaluation as a CSV file, which MLflow's pages show as a table."""

import csv
import io
from collections.abc import Mapping
from typing import Any

from darkroom.evaluation.report import beside, estimates
from darkroom.reporting.charts import number

HEAD = ("score", "of", "value", "95 % interval", "pictures", "to be read against")


def score_table(metrics: Mapping[str, Any]) -> str:
    """Every figure with its interval, and the values that it is to be read against.

    Names stand in two columns: MLflow cuts off what is longer than some 20 letters.

    Args:
        metrics: what evaluate wrote to metrics.json.
    """
    text = io.StringIO()
    table = csv.writer(text, lineterminator="\n")
    table.writerow(HEAD)
    for name, figure in estimates(metrics).items():
        against = "; ".join(f"{line.of} {number(line.value)}" for line in beside(metrics, name))
        of, _, score = name.rpartition(".")
        interval = f"{number(figure['low'])} to {number(figure['high'])}"
        table.writerow([score, of, number(figure["value"]), interval, figure["n"], against])
    return text.getvalue()
