"""`darkroom completion`, and what completes the values of arguments. Typer completes commands and options."""

import os
from collections.abc import Callable
from typing import Annotated, Literal

import typer
from typer.completion import completion_init, get_completion_script  # type: ignore[attr-defined]

from darkroom.core.errors import DarkroomError

PROGRAM, VARIABLE = "darkroom", "_DARKROOM_COMPLETE"  # by which a shell's script asks


def completion(
    shell: Annotated[Literal["bash", "zsh", "fish"], typer.Argument(help="For which shell.", show_default=False)],
) -> None:
    """Print the script that has a shell complete darkroom's commands, options, recipes, stages and keys.

    \b
    bash, in ~/.bashrc:   eval "$(darkroom completion bash)"
    zsh, in ~/.zshrc:     autoload -Uz compinit && compinit && eval "$(darkroom completion zsh)"
    fish, once:           darkroom completion fish > ~/.config/fish/completions/darkroom.fish
    """
    print(get_completion_script(prog_name=PROGRAM, complete_var=VARIABLE, shell=shell))


def answer_shells() -> None:
    """Have Typer answer where a shell asks, by the environment, for what may come next."""
    if VARIABLE in os.environ:
        completion_init()


def _quiet(values: Callable[[], list[str]]) -> Callable[[str], list[str]]:
    """What completes a value that has begun: those that begin so; nothing where they cannot be told."""

    def complete(incomplete: str) -> list[str]:
        try:
            return [value for value in values() if value.startswith(incomplete)]
        except (DarkroomError, OSError, ValueError):
            return []

    return complete


def _recipes() -> list[str]:
    from darkroom.config.recipes import names

    return names()


def _stages() -> list[str]:
    from darkroom.config.stage_spec import stage_specs

    return list(stage_specs())


def _trained_stages() -> list[str]:
    from darkroom.runner.finishing import trained_stages

    return trained_stages()


def _keys() -> list[str]:
    from darkroom.config.params import PARAMS_FILE, read
    from darkroom.config.recipes import flat

    found: dict[str, None] = {}
    for key, _ in flat(read(PARAMS_FILE)):
        names = key.split(".")
        found |= dict.fromkeys(".".join(names[:n]) for n in range(1, len(names) + 1))
    return list(found)


recipes, stages, trained_stages, keys = map(_quiet, (_recipes, _stages, _trained_stages, _keys))
