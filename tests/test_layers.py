"""The shape of the code, read from its imports: who may know whom, and that stages depend on the code they run."""

import ast
import re
import subprocess
import sys
from pathlib import Path

import pytest
import yaml

from tests.support.dependencies import PIPELINE, dependencies, rewritten
from tests.support.imports import (
    CODE,
    LIBRARY,
    ROOT,
    SAMPLERS,
    SOURCES,
    STAGES,
    imports,
    module_of,
    of_library,
    relative,
    room_of,
    tree,
)

# What each room of the library may import, besides itself; siblings are blind to each other.
FOUNDATION = {"core", "config"}
DIFFUSION_CORE = FOUNDATION | {"nn", "diffusion", "data"}
MAY_IMPORT = {
    "core": set(),
    "config": {"core"},
    "nn": FOUNDATION,
    "diffusion": FOUNDATION,
    "data": FOUNDATION,
    "view": DIFFUSION_CORE,
    "training": DIFFUSION_CORE | {"view"},
    "interop": DIFFUSION_CORE,
    "inference": DIFFUSION_CORE | {"view", "interop"},
    "evaluation": DIFFUSION_CORE | {"view", "interop", "inference"},
    "planning": DIFFUSION_CORE | {"training"},
    "tracking": FOUNDATION,
    "serving": FOUNDATION | {"data", "inference", "tracking"},
    "reporting": FOUNDATION | {"evaluation", "tracking"},
    "project": FOUNDATION,
    "audit": FOUNDATION | {"data", "inference", "project", "reporting", "serving", "tracking"},
    "runner": FOUNDATION | {"data", "training", "planning", "project", "reporting", "tracking"},
}
MAY_IMPORT["studio"] = set(MAY_IMPORT)
MAY_IMPORT["maintenance"] = FOUNDATION | {"data", "serving", "tracking", "audit", "runner"}
MAY_IMPORT["cli"] = set(MAY_IMPORT)
LOOSE = {"__init__"}  # modules at the root of the package
SERVED = LIBRARY / "serving" / "served.py"  # what MLflow runs where a model is served


@pytest.mark.parametrize("file", SOURCES, ids=relative)
def test_each_part_imports_only_the_parts_below_it(file: Path) -> None:
    here = room_of(module_of(file))
    if file.parent == LIBRARY:
        assert file.stem in LOOSE, f"{relative(file)}: belongs in a room"
        return
    above = {module for module in of_library(file) if room_of(module) not in {"", here} | MAY_IMPORT[here]}
    assert not above, f"{relative(file)} imports {sorted(above)}; {here} may import {sorted(MAY_IMPORT[here])}"


def test_the_readme_draws_the_layers_as_they_are() -> None:
    """Fails if a room is missing from the picture, or if an arrow is drawn that is not allowed, or the other way."""
    text = (ROOT / "README.md").read_text(encoding="utf-8")
    drawn = {
        (above, below)
        for above, targets in re.findall(r"^  (\w+) --> ([\w &]+)$", text, re.MULTILINE)
        for below in targets.split(" & ")
    }
    rooms = {above for above, _ in drawn} - {"stages"}
    assert rooms == set(MAY_IMPORT) - {"core"}
    assert not {(above, below) for above, below in drawn if above != "stages" and below not in MAY_IMPORT[above]}

    def reached(room: str) -> set[str]:
        below = {low for high, low in drawn if high == room}
        return below.union(*map(reached, below))

    assert not {room: missing for room in rooms if (missing := MAY_IMPORT[room] - reached(room))}


def test_one_file_imports_mlflow() -> None:
    """And the one that MLflow runs itself, where it serves a model; nothing else imports that."""
    assert [relative(f) for f in SOURCES if any(m.split(".")[0] == "mlflow" for m in imports(f))] == [
        relative(SERVED),
        "src/darkroom/tracking/store.py",
    ]
    assert not [relative(f) for f in SOURCES + STAGES if module_of(SERVED) in of_library(f)]


def test_one_file_imports_torchvision() -> None:
    imported = [relative(f) for f in SOURCES + STAGES if any(m.split(".")[0] == "torchvision" for m in imports(f))]
    assert imported in ([], ["src/darkroom/data/sources/torchvision_import.py"])


def test_only_the_room_of_views_draws_figures() -> None:
    """Catches a plot in a training or a measurement, with a style and a backend of its own."""
    drawing = [relative(f) for f in SOURCES + STAGES if any(m.split(".")[0] == "matplotlib" for m in imports(f))]
    assert drawing, "nothing draws: the law looks for the wrong library"
    assert all(file.startswith("src/darkroom/view/") for file in drawing), drawing


def test_one_file_reads_the_parameters() -> None:
    def names_it(file: Path) -> bool:
        constants = (n.value for n in ast.walk(tree(file)) if isinstance(n, ast.Constant))
        return "params.yaml" in constants

    assert [relative(f) for f in SOURCES + STAGES if names_it(f)] == ["src/darkroom/config/params.py"]


def test_importing_the_package_costs_nothing_but_the_standard_library() -> None:
    code = "import sys; before = set(sys.modules); import darkroom; print(*sorted(set(sys.modules) - before))"
    done = subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, text=True)
    loaded = {module.split(".")[0] for module in done.stdout.split()}
    assert loaded <= sys.stdlib_module_names | {"darkroom"}


@pytest.mark.parametrize("file", SOURCES + STAGES, ids=relative)
def test_files_stay_readable(file: Path) -> None:
    assert len(file.read_text(encoding="utf-8").splitlines()) <= 350


PIPELINE_STAGES = yaml.safe_load(PIPELINE.read_text())["stages"]


def test_every_script_is_a_stage() -> None:
    assert {f"python -P stages/{file.name}" for file in STAGES} == {stage["cmd"] for stage in PIPELINE_STAGES.values()}


def test_a_stage_depends_on_all_the_code_it_runs_and_on_no_other() -> None:
    """Fails if code changed that a stage runs and dvc would not rerun it, or would rerun one that does not."""
    text = PIPELINE.read_text(encoding="utf-8")
    assert rewritten(text) == text, "run: make deps"


def test_dependencies_are_found_whoever_wrote_them() -> None:
    """Fails if `make deps` leaves what was written by hand, or takes what is not code."""
    text = PIPELINE.read_text(encoding="utf-8")
    planted = text.replace("      - stages/train_vae.py\n", "      - src/darkroom/core/elsewhere.py\n", 1)
    assert planted != text
    assert rewritten(planted) == text


@pytest.mark.parametrize("script", STAGES, ids=relative)
def test_a_stage_can_be_ended_while_it_imports(script: Path) -> None:
    first = next(node for node in tree(script).body if isinstance(node, ast.Import | ast.ImportFrom))
    assert isinstance(first, ast.Import)
    assert [each.name for each in first.names] == ["darkroom.runner.startup"]


@pytest.mark.parametrize("stage", ["train_vae", "setup_text_encoder", "train_unet", "train_evaluator"])
def test_a_stage_that_trains_shares_its_training_and_saves_it(stage: str) -> None:
    """By `fit`, which takes processes and checkpoints from the stage's work."""
    calls = [node for node in ast.walk(tree(ROOT / "stages" / f"{stage}.py")) if isinstance(node, ast.Call)]
    by_name = {ast.unparse(call.func): call for call in calls}
    assert {one.arg: ast.unparse(one.value) for one in by_name["run_stage"].keywords}["trains"] == "True"
    assert "work" in map(ast.unparse, by_name["fit"].args)


def test_a_new_sampler_reruns_evaluation_alone() -> None:
    """Fails if a training imports samplers that no recipe names, or evaluation lists them one by one."""
    named = {sampler.name for sampler in CODE.samplers_of(ROOT / "stages" / "train_unet.py")}
    listed = {stage: dependencies(ROOT / "stages" / f"{stage}.py") for stage in ("train_unet", "evaluate")}
    below = {Path(path).name for path in listed["train_unet"] if path.startswith(relative(SAMPLERS))}
    assert named
    assert {name for name in below if not name.startswith("_")} == named
    assert any(relative(SAMPLERS).startswith(path) for path in listed["evaluate"])
    others = {stage.stem for stage in STAGES} - listed.keys()
    assert not any(
        "diffusion/samplers" in path for stage in others for path in dependencies(ROOT / f"stages/{stage}.py")
    )


# --- laws that the whole code has to reach; a strict mark fails where a law has come to hold and is not enabled

# True: the law holds, and is to stay so.
ENABLED = {"circles": True, "lines": True, "parameters": True, "words": True}
LINES, PARAMETERS = 60, 7  # of a function; of a public one, self and cls not counted
WORDS = frozenset(  # for which the field has others
    [
        "Place",
        "place",
        "places",
        "Witness",
        "Seen",
        "Testimony",
        "told",
        "rival",
        "Rival",
        "logbook",
        "Logbook",
        "journal",
        "Journal",
        "delivery",
        "Delivery",
        "sender",
        "Sender",
        "Examiner",
        "examiner",
        "whole",
        "named",
        "shown",
        "written",
        "meant",
        "OWN",
        "Setting",
        "setting",
        "meeting",
        "how",
        "walk",
        "begin",
        "own",
        "given",
        "parts",
        "share",
        "together",
        "remembered",
    ]
)


def law(name: str) -> pytest.MarkDecorator:
    """Marks the test of a law that does not hold yet."""
    return pytest.mark.xfail(not ENABLED[name], reason="not reached yet; enable it when it is", strict=True)


def functions(file: Path) -> list[ast.FunctionDef | ast.AsyncFunctionDef]:
    return [node for node in ast.walk(tree(file)) if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef)]


def parameters(function: ast.FunctionDef | ast.AsyncFunctionDef) -> list[str]:
    """All but self, cls, and the context that autograd hands to functions."""
    each = [*function.args.posonlyargs, *function.args.args, *function.args.kwonlyargs]
    return [one.arg for one in each if one.arg not in ("self", "cls", "ctx")]


def identifiers(file: Path) -> set[str]:
    """Every name that is defined, given or used, without leading underscores."""
    found: set[str] = set()
    for node in ast.walk(tree(file)):
        if isinstance(node, ast.Name):
            found.add(node.id)
        elif isinstance(node, ast.arg):
            found.add(node.arg)
        elif isinstance(node, ast.keyword):
            found.add(node.arg or "")
        elif isinstance(node, ast.Attribute) and node.attr != "parts":  # as pathlib has it
            found.add(node.attr)
        elif isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef):
            found.add(node.name)
        elif isinstance(node, ast.alias):
            found |= {node.name, node.asname or ""}
    return {name.lstrip("_") for name in found}


@law("circles")
def test_no_module_imports_itself_by_way_of_others() -> None:
    """Wherever in a file the import stands: fails if a circle is hidden in a function."""
    below = {module_of(file): of_library(file) - {module_of(file)} for file in SOURCES}
    while leaves := [module for module, targets in below.items() if not targets & below.keys()]:
        for module in leaves:
            del below[module]
    while tops := below.keys() - {target for targets in below.values() for target in targets}:
        for module in tops:
            del below[module]
    assert not below, f"import each other in a circle: {sorted(below)}"


@law("lines")
def test_no_function_is_longer_than_a_page() -> None:
    long = {
        f"{relative(file)}: {function.name}": lines
        for file in SOURCES + STAGES
        for function in functions(file)
        if (lines := (function.end_lineno or 0) - function.lineno + 1) > LINES
    }
    assert not long


@law("parameters")
def test_no_public_function_takes_more_than_anybody_remembers() -> None:
    """Kernels, compiled by Triton, are called by ours alone; their names begin with an underscore."""
    many = {
        f"{relative(file)}: {function.name}": len(parameters(function))
        for file in SOURCES + STAGES
        for function in functions(file)
        if len(parameters(function)) > PARAMETERS and (function.name == "__init__" or not function.name.startswith("_"))
    }
    assert not many


@law("words")
def test_names_are_the_fields() -> None:
    found = {relative(file): sorted(names) for file in SOURCES + STAGES if (names := identifiers(file) & WORDS)}
    assert not found
