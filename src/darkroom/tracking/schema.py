"""Which schema a database of MLflow's has, and which one the installed MLflow works with; told without importing it.

MLflow opens a database of its own latest schema and no other. Each change of the schema is a file in its package that
names itself and the one before.
"""

import re
import shlex
from functools import cache
from importlib.metadata import PackageNotFoundError, version
from importlib.util import find_spec
from pathlib import Path

from darkroom.core.errors import DarkroomError
from darkroom.tracking.address import VARIABLE, is_remote_database, without_password

MIGRATIONS = Path("store", "db_migrations", "versions")  # in MLflow's package
REVISION = re.compile(r"^(down_)?revision(?:: [^=]+)? = (?:\"(\w+)\"|'(\w+)')", re.MULTILINE)
QUESTION = "SELECT version_num FROM alembic_version"


class SchemaError(DarkroomError):
    """A database's schema is not the one that is to read or write it."""


@cache
def known_revisions() -> tuple[str, frozenset[str]]:
    """The schema that the installed MLflow works with, and all that led to it; "" and none where that is not told."""
    package = find_spec("mlflow")
    folders = package.submodule_search_locations if package else None
    known: set[str] = set()
    followed: set[str] = set()
    for file in (file for folder in folders or () for file in Path(folder, MIGRATIONS).glob("*.py")):
        for down, *name in REVISION.findall(file.read_text(encoding="utf-8")):
            (followed if down else known).add("".join(name))
    latest = known - followed
    return (latest.pop(), frozenset(known)) if len(latest) == 1 else ("", frozenset())


def installed_version() -> str:
    """The installed MLflow's; "" where there is none."""
    try:
        return version("mlflow")
    except PackageNotFoundError:
        return ""


def check_schema(found: str, address: str) -> None:
    """Raises:
    SchemaError: the installed MLflow does not work with the schema that was found at this address.
    """
    latest, known = known_revisions()
    if not latest or found == latest:
        return
    has = f"the tracking store {without_password(address)} has MLflow's schema {found or 'none'}"
    if found in known:
        raise SchemaError(
            f"{has}, older than {latest} of the MLflow {installed_version()} installed here; back it up, then run "
            f"{upgrade_command(address)}"
        )
    raise SchemaError(
        f"{has}, which the MLflow {installed_version()} installed here (schema {latest}) does not know; install the "
        "Darkroom that goes with the MLflow that wrote it, or set DARKROOM_TRACKING=off"
    )


def upgrade_command(address: str) -> str:
    """The command that brings an older database to the installed MLflow's schema, without the password."""
    argument = f'"${VARIABLE}"' if is_remote_database(address) else shlex.quote(address)
    return f"mlflow db upgrade {argument}"
