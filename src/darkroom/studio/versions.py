"""The versions of the registered model, which can be drawn with."""

from darkroom.core.errors import DarkroomError
from darkroom.serving.registry import MODEL
from darkroom.tracking.address import is_on, without_password
from darkroom.tracking.database import Tables
from darkroom.tracking.query import RunQuery, store_exists
from darkroom.tracking.secrets import first_line
from darkroom.tracking.store import Store

PRESENT = "SELECT version FROM model_versions WHERE name = :name AND current_stage <> 'Deleted_Internal'"
ALIASES = "SELECT alias, version FROM registered_model_aliases WHERE name = :name"
Found = list[tuple[int, list[str]]]  # numbers with their aliases


def versions() -> dict[str, str]:
    """{name on the page: number}, the newest first; none where nothing is tracked or no store answers."""
    if not (is_on() and store_exists()):
        return {}
    try:
        tables = RunQuery().tables
        found = _on_server() if tables is None else _here(tables)
    except DarkroomError:
        return {}
    numbers = {f"registered version {number}{_in_brackets(aliases)}": number for number, aliases in sorted(found)[::-1]}
    return {name: str(number) for name, number in numbers.items()}


def _here(tables: Tables) -> Found:
    aliases = [(row["alias"], int(row["version"])) for row in tables.ask(ALIASES, name=MODEL)]
    numbers = [int(row["version"]) for row in tables.ask(PRESENT, name=MODEL)]
    return [(number, [alias for alias, of in aliases if of == number]) for number in numbers]


def _on_server() -> Found:
    store = Store()
    try:
        numbers = [int(one.version) for one in store.client.search_model_versions(f"name = '{MODEL}'")]
        aliases = store.client.get_registered_model(MODEL).aliases if numbers else {}
    except store.mlflow.exceptions.MlflowException as error:
        raise DarkroomError(f"{without_password(store.address)}: does not answer ({first_line(error)})") from error
    return [(number, [alias for alias, of in aliases.items() if int(of) == number]) for number in numbers]


def _in_brackets(aliases: list[str]) -> str:
    return f" ({', '.join(sorted(aliases))})" if aliases else ""
