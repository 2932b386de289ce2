"""The command line, `darkroom`. What is heavy is imported by the command that needs it, so that --help is quick."""

import sys
from typing import NoReturn

import typer

from darkroom.cli import (
    audit,
    compare,
    completion,
    draw,
    evaluate,
    finish,
    interop,
    maintenance,
    own_project,
    project,
    regenerate,
    registry,
    report,
    reproduce,
    serve,
    show,
    studio,
)
from darkroom.cli.terminal import printed
from darkroom.core.errors import DarkroomError
from darkroom.core.text import printable_text
from darkroom.inference.defaults import EXAMPLE

INTERRUPTED = 130

app = typer.Typer(
    help="Train latent diffusion models from scratch, stage by stage, and draw with them.",
    epilog=f"""\
\b
darkroom new birds             make a project of your own in the folder birds
darkroom recipe use scenes     choose what to train: writes params.yaml
dvc repro                      train: runs every stage that is out of date; dvc repro STAGE runs one
darkroom generate "{EXAMPLE}"
""",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
)
for command in (draw.generate, draw.img2img, draw.inpaint, regenerate.regenerate):
    app.command(no_args_is_help=True)(command)
app.command(no_args_is_help=True)(compare.compare)
app.command(no_args_is_help=True)(evaluate.evaluate)
app.command("import", no_args_is_help=True)(interop.import_model)
app.command("export", no_args_is_help=True)(interop.export_model)
app.command("merge", no_args_is_help=True)(interop.merge_adapters)
groups = {"recipe": project.recipe, "params": project.params, "data": project.data, "show": show.show}
for name, group in groups.items():
    app.add_typer(group, name=name)
app.command("audit", help=audit.HELP)(audit.audit)
for command in (maintenance.doctor, maintenance.gc):
    app.command()(command)
app.command(no_args_is_help=True)(completion.completion)
for command in (own_project.new, own_project.keep):
    app.command(no_args_is_help=True)(command)
for command in (own_project.status, own_project.sync):
    app.command()(command)
for command in (finish.finish, reproduce.reproduce):
    app.command(no_args_is_help=True)(command)
for command in (report.report, registry.register, serve.serve, studio.studio, project.ui, project.version):
    app.command()(command)


def main() -> None:
    """Run the command line: an error the user can fix is one line on stderr and exit status 1."""
    completion.answer_shells()
    with printed():
        _run()


def _run() -> None:
    try:
        app()
    except DarkroomError as error:
        _fail(str(error))
    except OSError as error:
        _fail(_refused(error))
    except KeyboardInterrupt:
        sys.exit(INTERRUPTED)


def _fail(message: str) -> NoReturn:
    print(f"darkroom: {printable_text(message)}", file=sys.stderr)
    sys.exit(1)


def _refused(error: OSError) -> str:
    """What the system refused, in one line: a file that exists, is missing, does not fit or belongs to another user."""
    if error.filename is None or error.strerror is None:
        return " ".join(str(error).split()) or type(error).__name__
    return f"{error.filename}: {error.strerror}; fix that or name another path"
