"""prepare_data: pictures and captions of any source in one format. -> data/prepared, reports/prepare_data."""

import darkroom.runner.startup  # noqa: F401

# isort: split
from collections.abc import Mapping
from dataclasses import asdict

from darkroom.config.params import Params
from darkroom.config.paths import PREPARED, report_of
from darkroom.core.artifact import write_json
from darkroom.core.text import printable
from darkroom.data.near_duplicates import NearDuplicates, listing
from darkroom.data.prepare import prepare
from darkroom.data.prepared import Info, Prepared
from darkroom.data.repeats import Firsts
from darkroom.data.sources.base import Reader
from darkroom.planning import demands
from darkroom.runner.stage import Work, run_stage
from darkroom.view.contact_sheet import contact_sheet

REPORT = report_of("prepare_data")
MUCH = 0.1  # share of the pictures' area from which cropping is remarked on


def body(params: Params, work: Work) -> Mapping[str, float | str]:
    """Read the source, write the splits, show them."""
    p = params.prepare_data
    reader: Reader = p.source.open(p.seed, p.image_size)
    twins, firsts, remarks = NearDuplicates(), Firsts(), dict[str, str]()
    check = lambda data: remarks.update(demands.met(params, data))  # noqa: E731
    info = prepare(reader, PREPARED, p, twins.add, firsts, check, work.shards)
    near = listing(twins.found())
    contact_sheet(Prepared.open(PREPARED).split("train", in_memory=False), REPORT / "contact_sheet.png")
    write_json(REPORT / "near_duplicates.json", near)
    write_json(REPORT / "repeats.json", firsts.listing(p.repeats))
    figures = {
        **info.splits,
        **({"variants": info.variants} if info.variants > 1 else {}),
        **{f"pictures_{name}": count for name, count in asdict(info.pictures).items()},
        "near_duplicates": near["count"],
        "stray_captions": len(info.strays),
        **({"cropped_share": info.cropped_share} if info.cropped_share or info.buckets else {}),
        **{f"bucket_{of.height}x{of.width}": of.pictures for of in info.buckets},
    }
    write_json(REPORT / "metrics.json", figures)
    return {**figures, **_remarks(info), **remarks}


def _remarks(info: Info) -> dict[str, str]:
    """What a person should know of, in words."""
    remarks = {}
    if info.set_aside:
        names = ", ".join(f"{printable(name)} {count}" for name, count in info.set_aside.items())
        remarks["set aside"] = f"files that are not pictures of yours, by where they lie: {names}"
    if info.skipped or info.strays:
        remarks["named in"] = f"{PREPARED / 'dataset.json'}: pictures skipped, captions without a picture"
    if info.pictures.repeats_kept or info.pictures.repeats_within_splits or info.pictures.duplicates_across_splits:
        remarks["equal pictures"] = f"named in {REPORT / 'repeats.json'}"
    if info.cropped_share > MUCH and not info.buckets:
        remarks["cropped"] = (
            f"{info.cropped_share:.0%} of the pictures' area is cut off to make squares; prepare_data.buckets keeps it"
        )
    return remarks


if __name__ == "__main__":
    run_stage("prepare_data", body)
