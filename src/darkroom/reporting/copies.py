"""The part of a report that tells whether drawn pictures are copies of training pictures."""

from collections.abc import Iterator, Mapping
from typing import Any

from darkroom.evaluation.report import withheld
from darkroom.reporting.blocks import Block, Cell, Pictures, Statement, Table, Text, picture
from darkroom.reporting.charts import number, percent
from darkroom.reporting.facts import WITH_RUN, Files
from darkroom.reporting.stage_sections import words_of

NEAREST, NEIGHBOURS = f"{WITH_RUN}/nearest.json", f"{WITH_RUN}/neighbours.png"  # see stages/evaluate.py
CLOSENESS = "closer_to_training_than_test"


def copies(metrics: Mapping[str, Any], files: Files) -> Iterator[Statement]:
    """Whether training pictures are copied, and how near the nearest one is."""
    near, closeness = files.json(NEAREST), metrics["fidelity"].get(CLOSENESS)
    near = near if isinstance(near, dict) else {}
    said = []
    if closeness:
        c_t = near.get("c_t")
        copies = closeness["low"] > 0.5 or bool(c_t and c_t["high"] < 0)
        said.append(
            f"Copies of training pictures: {'there are signs of them' if copies else 'no sign of them'}. Drawn "
            "pictures lie nearer to the training pictures than new real ones do in "
            f"{percent(closeness['value'])} of comparisons (50 % where nothing is copied, more where it is)"
        )
    if near.get("pictures"):
        likeliest = near["pictures"][0]
        said.append(
            f"The likeliest copy lies {likeliest['distance']:.2f} from the training picture nearest to it, "
            f"{likeliest['nearest'][0]['name']}; from that one to the next training picture it is "
            f"{likeliest['apart']:.2f}"
        )
    if said:
        yield Statement(f"{'. '.join(said)}.", "neighbours" if near else "figures")
    elif reason := near.get("reason"):
        known = any(reason in why for why in withheld(metrics)) or reason == metrics["evaluator"].get("reason")
        why = "for the reason that other figures are withheld for" if known else str(reason)
        yield Statement(f"Nearest training pictures were not sought: {why}.", "neighbours")


def neighbours(files: Files) -> Iterator[Block]:
    """Are drawn pictures copies? The likeliest ones beside the training pictures that they are nearest to."""
    near = files.json(NEAREST)
    if not isinstance(near, dict):
        return
    if reason := near.get("reason"):
        yield Text(f"Nearest training pictures were not sought: {reason}.")
        return
    yield Text(
        "The drawn pictures that are likeliest to be copies, each beside the training pictures nearest to it in the "
        "features of the judges. A copy would lie much closer to one than that lies to another training picture."
    )
    if visible := picture(files.read(NEIGHBOURS), words_of(NEIGHBOURS)):
        yield Pictures([visible])
    if near.get("pictures"):
        yield Table(
            ["drawn for", "nearest training picture", "how far", "from that to another", "the next ones"],
            [
                [
                    Cell(one["asked"]),
                    Cell(one["nearest"][0]["caption"], below=one["nearest"][0]["name"]),
                    Cell(f"{one['distance']:.2f}", "number"),
                    Cell(f"{one['apart']:.2f}", "number"),
                    Cell(", ".join(other["name"] for other in one["nearest"][1:]), "code"),
                ]
                for one in near["pictures"]
            ],
            caption="The same pictures in the same order, with the names that the data has for them.",
        )
    rows = []
    for name, words in (
        ("authentic", "pictures farther from the training picture nearest to them than that one is from another"),
        ("c_t", "far below 0: nearer to training pictures than new real ones are, copies; 0 or above: none"),
    ):
        if figure := near.get(name):
            rows.append(
                [
                    Cell(words, below=name),
                    Cell(number(figure["value"]), "number"),
                    Cell(f"{number(figure['low'])} to {number(figure['high'])}", "number"),
                    Cell(number(near.get("real", {}).get(name, float("nan"))), "number"),
                ]
            )
    if rows:
        yield Table(["figure", "value", "95 % interval", "real held-out pictures"], rows)
