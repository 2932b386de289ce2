"""The one door to torchvision, which is slow to import and wanted only for a data set or for VGG."""

import importlib
from typing import Any

import torch


def torchvision(module: str) -> Any:
    """Import a torchvision submodule, such as "datasets" or "models".

    Where torch and torchvision come from different builds (a CPU torch beside torchvision's default build), the
    compiled operators cannot load and torchvision stops at its first mention of `nms`. Nothing used here needs them, so
    their signatures are declared instead, which is all the import asks for.
    """
    try:
        return importlib.import_module(f"torchvision.{module}")
    except RuntimeError as error:
        if "torchvision::" not in str(error):
            raise
    library = torch.library.Library("torchvision", "FRAGMENT")  # type: ignore[no-untyped-call]
    for operator in ("nms", "qnms"):
        library.define(f"{operator}(Tensor dets, Tensor scores, float iou_threshold) -> Tensor")  # type: ignore[no-untyped-call]
    _declared.append(library)
    return importlib.import_module(f"torchvision.{module}")


_declared: list[torch.library.Library] = []  # the declaration lives as long as its Library object
