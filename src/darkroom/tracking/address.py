"""Where the runs are kept: the address of the store, from the environment or the project's folder.

The one place where such an address is taken apart, and where a path becomes one.
"""

import os
import re
from dataclasses import dataclass
from importlib.metadata import entry_points
from pathlib import Path
from urllib.parse import quote, unquote

from darkroom.core.errors import DarkroomError
from darkroom.core.text import printable_text

VARIABLE, USERNAME, PASSWORD = "MLFLOW_TRACKING_URI", "MLFLOW_TRACKING_USERNAME", "MLFLOW_TRACKING_PASSWORD"
FOLDER = Path(".mlflow")
SERVERS, DATABASES = ("http", "https"), ("postgresql", "mysql", "mssql")
PLACES = ("sqlite", "file", "databricks", "databricks-uc", "uc")  # MLflow's other schemes: they name no host
SCHEME = re.compile(r"([a-z][a-z0-9.+-]*):", re.IGNORECASE)
HOST = re.compile(r"(\[[0-9a-f:.]+(%25[\w.~-]+)?\]|[^\[\]:@\\]*)(:(\d*))?", re.IGNORECASE)
BLANK = re.compile(r"[\s\x00-\x1f\x7f]")
MAX_PORT = 65535
MOVE = "move the project to a folder whose path has only letters, digits, spaces and - _ ."
EXAMPLE = "http://USER:PASSWORD@HOST:PORT"


@dataclass(frozen=True)
class Address:
    """An address, taken apart.

    url: what MLflow is given; of a server, without user and password, which it takes from elsewhere. user, password:
    as they are meant, without percent signs; empty where the address has none.
    """

    url: str
    user: str = ""
    password: str = ""


def project_root() -> Path:
    """The project's folder: DVC's, also where a stage works in a throw-away copy of it (dvc exp run --queue).

    Raises:
        DarkroomError: its path has characters that addresses cannot hold: line breaks, tabs, bytes that are not UTF-8.
    """
    root = Path(os.environ.get("DVC_ROOT") or Path.cwd()).resolve()
    if any(ord(c) < 32 or ord(c) == 127 or 0xD800 <= ord(c) < 0xE000 for c in str(root)):
        raise DarkroomError(f"{str(root)!a}: no store of runs can be kept in a folder of this name; {MOVE}")
    return root


def tracking_uri() -> str:
    """The address that MLFLOW_TRACKING_URI gives; "" where it gives none, set or not: the project's own is meant."""
    return os.environ.get(VARIABLE, "")


def location() -> str:
    """The address of the store as MLflow takes it: the one that is named, or the project's own database.

    That of a server holds no password; that of a database may, and is for MLflow alone: messages take
    `without_password`.
    """
    return parse(tracking_uri()).url if tracking_uri() else database_address(project_root() / FOLDER / "mlflow.db")


def parse(text: str) -> Address:
    """Take an address apart.

    In user and password everything may be percent-encoded. What is not is taken as it stands where that leaves no
    doubt, so that a password with "@", ":", "/" or "#" works. Raises DarkroomError: it is not an address of a store;
    the message does not show a password.
    """
    found = SCHEME.match(text)
    scheme = found[1].lower() if found else ""
    kind = scheme.partition("+")[0]
    if any(ord(c) < 32 or ord(c) == 127 for c in text):
        raise _refused(text, "holds a control character, such as a line break; take it out")
    if kind in (*SERVERS, *DATABASES):
        return _of_host(text, scheme)
    if kind == "sqlite":
        if not re.match(r"[^:]*:///?", text):
            raise _refused(text, "names no file; write sqlite:///FILE, for a path from / on sqlite:////FILE")
        file = database_file(text)
        return Address(text if file is None or "?" in text else database_address(file))
    if scheme and kind not in PLACES and not entry_points(group="mlflow.tracking_store", name=scheme):
        known = ", ".join((*SERVERS, *DATABASES, *PLACES[:3]))
        raise _refused(text, f"has no scheme that MLflow knows ({known}); for a server write http://HOST:PORT")
    return Address(text)


def without_password(text: str) -> str:
    """An address, well formed or not, without user, password and options: for messages, and to tell stores apart."""
    if not (found := SCHEME.match(text)) or found[1].lower().partition("+")[0] in PLACES:
        return text
    start = found.end() + len(re.match(r"/*", text[found.end() :])[0])  # type: ignore[index]
    if start == found.end() and not text[start:].isdigit():
        return text[:start] + "…"  # USER:PASSWORD, perhaps
    rest = re.split(r"[?#]", text[start:].rpartition("@")[2])[0].rstrip("/")
    return text[:start] + re.sub(r"^(\[[^\]]*\]|[^:/\[]*):(?!\d*(/|$))[^/]*", r"\1:…", rest)  # no port: a password?


def current_store() -> str:
    """The store that MLFLOW_TRACKING_URI names, `without_password`; "" for the project's own."""
    return without_password(tracking_uri())


def credentials() -> tuple[str, str] | None:
    """User and password for the server: each from its address, else from MLFLOW_TRACKING_USERNAME and _PASSWORD.

    None where there is nothing of the kind in the address, nor both in the environment. Raises DarkroomError: the
    address names one of the two, and the environment not the other.
    """
    address = parse(tracking_uri()) if is_server(tracking_uri()) else Address("")
    user, password = address.user or os.environ.get(USERNAME, ""), address.password or os.environ.get(PASSWORD, "")
    if user and password:
        return user, password
    if address.user or address.password:
        missing = f"a password: set {PASSWORD}" if address.user else f"a user: set {USERNAME}"
        raise _refused(tracking_uri(), f"lacks {missing}, or write {EXAMPLE}")
    return None


def export_credentials() -> str:
    """The address for MLflow, which takes user and password for a server from the environment: they are put there."""
    address = location()
    if is_server(address) and (found := credentials()):
        os.environ[USERNAME], os.environ[PASSWORD] = found
        os.environ[VARIABLE] = address  # MLflow and what it starts look there, too
    return address


def database_address(file: Path) -> str:
    """The address of an SQLite file for MLflow and SQLAlchemy, which read "%" and "?" as marks of their own."""
    path = file.as_posix()
    if not re.search(r"[%?]", path):
        return f"sqlite:///{path}"
    # With its driver named, or MLflow would take the quoted path for a real one and make its folders.
    return f"sqlite+pysqlite:///{path.replace('%', '%25').replace('?', '%3F')}"


def database_file(address: str) -> Path | None:
    """The file that an address of an SQLite database names; None for any other address, and where it names none."""
    found = re.match(r"sqlite(\+\w+)?:///([^?]+)", address, re.IGNORECASE)
    return Path(unquote(found[2])) if found else None


def artifacts_address(folder: Path) -> str:
    """The address of a folder of artifacts for MLflow, which unquotes plain paths, cuts them off at "?" and "#", and
    puts them into statements of SQL as they are."""
    path = str(folder)
    return folder.as_uri() if re.search(r"[%?#;:'\"\\]", path) else path


def artifacts_folder(address: str) -> Path | None:
    """The folder that MLflow reads an address of artifacts as; None where they lie on a server."""
    found = SCHEME.match(address)
    if found and found[1].lower() != "file":
        return None
    return Path(unquote(re.sub(r"^file:(//[^/]*)?", "", address, flags=re.IGNORECASE)))


def is_on() -> bool:
    """Whether anything is to be recorded: not where DARKROOM_TRACKING says off."""
    value = os.environ.get("DARKROOM_TRACKING", "on")
    if value not in ("on", "off"):
        raise DarkroomError(f"DARKROOM_TRACKING = {value!r}: give on or off")
    return value == "on"


def is_server(address: str) -> bool:
    """Whether the store is a server elsewhere, not a database or folder opened here."""
    return address.lower().startswith(tuple(f"{scheme}:" for scheme in SERVERS))


def is_remote_database(address: str) -> bool:
    """Whether the store is a database on a server, opened here without one of MLflow's before it."""
    return re.match(rf"({'|'.join(DATABASES)})(\+\w+)?:", address, re.IGNORECASE) is not None


def is_shared(address: str) -> bool:
    """Whether several machines may write to the store, under the same name even."""
    return is_server(address) or is_remote_database(address)


def _of_host(text: str, scheme: str) -> Address:
    """An address of a server or of a database on one: SCHEME://[USER[:PASSWORD]@]HOST[:PORT][/PATH][?OPTIONS]."""
    server = scheme in SERVERS
    before, slashes, rest = text.partition("://")
    if not slashes or len(before) != len(scheme):
        raise _refused(text, f"lacks //; write {scheme}://…")
    authority = re.split(r"[/?#]", rest)[0]
    userinfo, at, host = authority.rpartition("@")
    if "@" in rest[len(authority) :] and ":" in authority:
        if _is_host(host):
            raise _refused(text, 'has an "@" where it may belong to the password; write it %40, and "/" in one %2F')
        userinfo, at, rest = rest.rpartition("@")
        host = re.split(r"[/?#]", rest)[0]
    elif at:
        rest = rest[len(userinfo) + 1 :]
    if not _is_host(host):
        raise _refused(text, f"has no port from 0 to {MAX_PORT} after its host; write {EXAMPLE}, / in a password %2F")
    if server and not host.partition(":")[0]:
        raise _refused(text, f"names no host; write {EXAMPLE}")
    if BLANK.search(rest):
        raise _refused(text, "holds a space; take it out")
    if server and re.search(r"[?#]", rest):
        raise _refused(text, "continues after ? or #, as pages do; give the server's address, which ends before it")
    user, password = (unquote(part) for part in userinfo.partition(":")[::2])
    if server:
        return Address(f"{scheme}://{rest.rstrip('/')}", user, password)
    login = f"{quote(user, safe='')}:{quote(password, safe='')}@" if ":" in userinfo else f"{quote(user, safe='')}{at}"
    return Address(f"{scheme}://{login}{rest}", user, password)


def _is_host(text: str) -> bool:
    found = HOST.fullmatch(text)
    return found is not None and int(found[4] or 0) <= MAX_PORT


def _refused(text: str, fault: str) -> DarkroomError:
    seen = printable_text(without_password(text))
    left_out = "" if without_password(text) == text else " (user, password and options not shown)"
    return DarkroomError(f"{VARIABLE} = {seen}{left_out}: {fault}")
