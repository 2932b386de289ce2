"""Commands about the project: recipes, parameters, data, runs."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from darkroom import __version__
from darkroom.cli.completion import keys, recipes, trained_stages
from darkroom.core.errors import DarkroomError
from darkroom.core.text import plural, printable_text

if TYPE_CHECKING:
    from darkroom.config.params import Params
    from darkroom.data.manifest import Manifest
    from darkroom.planning.demands import Demand

PREPARED = Path("data/prepared")
recipe = typer.Typer(help="Sets of parameters under names: list, show, use, fit.", no_args_is_help=True)
params = typer.Typer(help="The parameters in params.yaml: check, explain, upgrade, budget.", no_args_is_help=True)
data = typer.Typer(help="Data from outside the project: scan.", no_args_is_help=True)


@recipe.command("list")
def recipe_list() -> None:
    """List the recipes and what each is for."""
    from darkroom.config import recipes

    names = recipes.names()
    for one in names:
        print(f"{one:{max(map(len, names))}}  {recipes.about(one)}")


@recipe.command("show", no_args_is_help=True)
def recipe_show(
    name: Annotated[str, typer.Argument(help="As `darkroom recipe list` spells it.", autocompletion=recipes)],
    other: Annotated[
        str | None, typer.Argument(help="A recipe to compare it with.", show_default=False, autocompletion=recipes)
    ] = None,
    diff: Annotated[bool, typer.Option("--diff", help="Only the keys in which it differs from params.yaml.")] = False,
) -> None:
    """Print the complete params file of a recipe, or how it differs from params.yaml or from another recipe.

    \b
    darkroom recipe show mnist
    darkroom recipe show mnist --diff
    darkroom recipe show mnist scenes
    """
    from darkroom.config import recipes

    if diff or other:
        print(*map(printable_text, recipes.difference(name, other)), sep="\n")
    else:
        print(recipes.complete(name), end="")


@recipe.command("use", no_args_is_help=True)
def recipe_use(
    name: Annotated[str, typer.Argument(help="As `darkroom recipe list` spells it.", autocompletion=recipes)],
) -> None:
    """Write a recipe to params.yaml, and say what stood there before.

    \b
    darkroom recipe use mnist && dvc repro     (make repro RECIPE=mnist does both)
    """
    from darkroom.config import recipes

    print(recipes.use(name))


@recipe.command("fit", no_args_is_help=True)
def recipe_fit(
    name: Annotated[str, typer.Argument(help="captioned")],
    root: Annotated[
        str | None,
        typer.Option(help="The pictures, below DARKROOM_DATA. [default: that of params.yaml]", show_default=False),
    ] = None,
    minutes: Annotated[float, typer.Option(min=1, max=1_000_000, help="For all stages, on two cores.")] = 20,
) -> None:
    """Count the pictures, read their captions, and write the recipe with fitting sizes and steps to params.yaml.

    The same pictures and minutes give the same file. Says what it chose, why, and what stood there before.

    \b
    darkroom recipe fit captioned
    darkroom recipe fit captioned --root birds --minutes 60
    """
    from darkroom.planning.fitting import fit

    for line in fit(name, root, minutes):
        print(printable_text(line))


@params.command("check")
def params_check(
    file: Annotated[Path | None, typer.Argument(help="[default: params.yaml]", show_default=False)] = None,
    memory: Annotated[bool, typer.Option("--memory", help="Estimate the memory that each stage needs.")] = False,
) -> None:
    """Print every fault of a params file, a line each: the key, the value, what is allowed. Exit 1 if there is one.

    In a project it also looks whether stages can keep their outputs where they belong.

    Where data/prepared is there, what the later stages ask of the data is held against it too: a fault where a stage
    could not work, a remark where it takes as much as there is.

    \b
    darkroom params check
    darkroom params check recipes/mnist.yaml
    DARKROOM_DEVICE=cuda darkroom params check --memory
    """
    from darkroom.config.params import PARAMS_FILE, load, problems, read
    from darkroom.config.stage_spec import PIPELINE, check_not_linked, stage_specs

    path = file or PARAMS_FILE
    found = problems(path)
    demands = [] if found else _demands(load(path))
    remarks = [f"{path}: {one}" for one in demands if not one.fault]
    found += [f"{path}: {one}" for one in demands if one.fault]
    for line in found + remarks:
        print(printable_text(line))
    if found:
        from darkroom.config.upgrade import is_older

        if is_older(read(path)):
            print(f"{path}: is of an older form; darkroom params upgrade {path} brings it to today's keys")
        raise typer.Exit(1)
    if file is None and PIPELINE.is_file():
        check_not_linked(output for stage in stage_specs().values() for output in stage.outputs)
    print(f"{path}: sound" + (f", {len(remarks)} remark{'s' * (len(remarks) > 1)}" if remarks else ""))
    if memory:
        _print_memory(load(path))


def _demands(loaded: "Params") -> "list[Demand]":
    """What later stages ask of the prepared data and do not find; torch is imported only where there are data."""
    if not PREPARED.is_dir():
        return []
    from darkroom.planning.demands import of_what_is_prepared

    return of_what_is_prepared(loaded)


def _print_memory(loaded: "Params") -> None:
    """A line for each stage, and what lowers it."""
    from darkroom.core.device import runtime
    from darkroom.core.progress import readable_size
    from darkroom.planning.memory import ERROR, Estimate, device_of
    from darkroom.runner.out_of_memory import remedies

    device = device_of(runtime().device)
    columns = ("weights", "gradients", "optimizer", "averages", "activations", "total")
    found = Estimate(loaded, device).stages()
    print(f"\nmemory on {device.type} at the peak of a step, in all to within {ERROR} %, besides what Python and")
    print("the libraries take (0.5 GiB, on CUDA 0.5 to 1 GiB more):\n")
    print(f"{'':18}" + "".join(f"{column:>12}" for column in columns))
    for stage, footprint in found.items():
        print(f"{stage:18}" + "".join(f"{readable_size(getattr(footprint, column)):>12}" for column in columns))
    print("\nless is needed with:")
    for stage in found:
        print(f"  {stage}: {'; '.join(remedies(stage, loaded))}")


@params.command("explain")
def params_explain(
    key: Annotated[
        str | None,
        typer.Argument(
            help="A key, a section or a kind. [default: lists the sections]", show_default=False, autocompletion=keys
        ),
    ] = None,
) -> None:
    """Say what a key of params.yaml means and takes, its values, which stages read it and what changes with it.

    \b
    darkroom params explain train_unet.steps
    darkroom params explain train_unet.process
    darkroom params explain train_unet.process.vp
    """
    from darkroom.config.explain import explain

    print(*map(printable_text, explain(key)), sep="\n")


@params.command("upgrade")
def params_upgrade(
    file: Annotated[Path | None, typer.Argument(help="[default: params.yaml]", show_default=False)] = None,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Show what would change and write nothing.")] = False,
) -> None:
    """Bring an older params file to today's keys, with the values that keep its meaning.

    Comments stay with their keys. Says what was done, and what is left to fix by hand; a file of today's form stays as
    it is.

    \b
    darkroom params upgrade --dry-run
    darkroom params upgrade old.yaml
    """
    import difflib

    from darkroom.config.params import PARAMS_FILE, problems
    from darkroom.config.rewrite import upgrade

    path = file or PARAMS_FILE
    before, after, done = upgrade(path, dry_run)
    lines = difflib.unified_diff(before.splitlines(), after.splitlines(), str(path), str(path), n=1, lineterm="")
    print(*lines, sep="\n")
    for line in done:
        print(printable_text(f"{path}: {line}"))
    if dry_run or not done:
        print(f"{path}: {'not written' if done else 'is of the present form'}")
    elif left := problems(path):
        print(f"{path}: is written; {len(left)} left to fix: darkroom params check {path}")


@params.command("budget", no_args_is_help=True)
def params_budget(
    stage: Annotated[
        str, typer.Argument(help="A stage that trains.", show_default=False, autocompletion=trained_stages)
    ],
    minutes: Annotated[float, typer.Argument(min=0.01, help="That its training may take.", show_default=False)],
) -> None:
    """Time 20 steps of a stage's training and write to params.yaml how many fit into so many minutes.

    Its own data and networks are used, as the stages before it made them; nothing of it is kept. Run it before the
    training starts and while nothing else works: from then on `steps` is a parameter, and no stage looks at a clock.

    
    darkroom params budget train_unet 20
    """
    from darkroom.core.progress import about, duration
    from darkroom.runner.budget import budget

    done = budget(stage, minutes)
    timing, sure = done.timing, max(done.timing.spread, 0.01)
    print(f"params.yaml: {stage}.steps: {done.steps}; it was {done.before}")
    for key, (old, new) in done.changes.items():
        print(f"  {key}: {'null' if new is None else new}; it was {old}, above the steps")
    print(f"  a step takes {timing.step:.3g} s (median of {len(timing.steps)}, which differ by {100 * sure:.0f} %)")
    print(f"  held-out measurement and previews, every {done.every} steps: {duration(timing.between)}")
    print(
        f"  in all {about(done.seconds)}, from {duration(done.seconds * (1 - sure))} "
        f"to {duration(done.seconds * (1 + sure))} if the machine stays as free as now"
    )


@data.command("scan")
def data_scan(
    which: Annotated[
        str | None,
        typer.Argument(
            help="A recipe or a params file. [default: params.yaml]", show_default=False, autocompletion=recipes
        ),
    ] = None,
) -> None:
    """Write the manifest of a source: names, sizes and hashes of its files, to be committed.

    Reads the folder prepare_data.source.root below DARKROOM_DATA (default data/raw) and writes the file that
    prepare_data.source.manifest names (auto: data/manifests/ROOT.json). From then on
    prepare_data refuses files that have changed.

    \b
    DARKROOM_DATA=~/pictures darkroom data scan
    DARKROOM_DATA=~/pictures darkroom data scan mnist
    """
    from darkroom.config.params import PARAMS_FILE, load
    from darkroom.data.manifest import scan
    from darkroom.data.sources.base import OutsideSource

    source = load(_params_file(which) if which else PARAMS_FILE).prepare_data.source
    if not isinstance(source, OutsideSource):
        raise DarkroomError(f"prepare_data.source.kind = {source.kind!r} reads no files: there is nothing to scan")
    file = source.manifest_file
    if file is None:
        raise DarkroomError(
            "prepare_data.source.manifest = null: name the file to write, data/manifests/NAME.json, or give auto"
        )
    found = scan(source.reader(None).files, file)
    if not found.files:
        raise DarkroomError(f"{source.root}: no files of the kind {source.kind} here; check prepare_data.source.root")
    changes = _changes(found)
    found.write()
    size = sum(entry.size for entry in found.files.values())
    print(f"{found.path}: {plural(len(found.files), 'file')}, {size / 2**20:.1f} MiB, {changes}; commit it")


def ui(port: Annotated[int | None, typer.Option(min=1, max=65535, help="[default: 5050]")] = None) -> None:
    """Serve the runs, pictures and models of this project in MLflow's user interface, on this machine only."""
    from darkroom.tracking.ports import UI_PORT
    from darkroom.tracking.ui import serve

    serve(UI_PORT if port is None else port)


def version() -> None:
    """Print the version."""
    print(f"darkroom {__version__}")


def _params_file(which: str) -> Path:
    from darkroom.config import recipes

    return Path(which) if Path(which).suffix in (".yaml", ".yml") else recipes.file_of(which)


def _changes(found: "Manifest") -> str:
    """How a manifest differs from the one that stands in its place."""
    from darkroom.data.manifest import Manifest

    if not found.path.exists():
        return "new"
    before = Manifest.load(found.path).files
    counts = {
        "new": len(found.files.keys() - before.keys()),
        "changed": sum(before[name] != entry for name, entry in found.files.items() if name in before),
        "gone": len(before.keys() - found.files.keys()),
    }
    return ", ".join(f"{count} {what}" for what, count in counts.items() if count) or "unchanged"
