"""Addresses of stores: taken apart in one place, never shown with a password, and made of paths that have any name."""

import os
from pathlib import Path

import pytest
from mlflow.utils.file_utils import local_file_uri_to_path
from mlflow.utils.uri import append_to_uri_path
from sqlalchemy.engine import make_url

from darkroom.core.errors import DarkroomError
from darkroom.tracking import address as addresses
from darkroom.tracking.address import Address, parse, without_password
from darkroom.tracking.secrets import without_secrets

PASSWORD = "ge@h:e/i%m#?ü"
ENCODED = "ge%40h%3Ae%2Fi%25m%23%3F%C3%BC"
STORES = {
    "http://host:5000/": Address("http://host:5000"),
    "HTTPS://host/mlflow/": Address("https://host/mlflow"),
    "http://[::1]:5000": Address("http://[::1]:5000"),
    f"http://me:{ENCODED}@[::1]:5000/a": Address("http://[::1]:5000/a", "me", PASSWORD),
    f"https://m%40e:{ENCODED}@host": Address("https://host", "m@e", PASSWORD),
    "http://me:p@ss:word@host:80": Address("http://host:80", "me", "p@ss:word"),
    "http://me:a/b#c?d@host:80/x": Address("http://host:80/x", "me", "a/b#c?d"),
    "http://me:100%@host": Address("http://host", "me", "100%"),
    "http://me@host": Address("http://host", "me", ""),
    "http://:pw@host": Address("http://host", "", "pw"),
    "postgresql://me:p@s:s@host/db": Address("postgresql://me:p%40s%3As@host/db", "me", "p@s:s"),
    "mysql+pymysql://me:pw@host:3306/db": Address("mysql+pymysql://me:pw@host:3306/db", "me", "pw"),
    "postgresql:///db?host=/run/sockets": Address("postgresql:///db?host=/run/sockets"),
    "sqlite:///some where.db": Address("sqlite:///some where.db"),
    "databricks": Address("databricks"),
    "file:///data/runs": Address("file:///data/runs"),
    "/data/team@x/runs": Address("/data/team@x/runs"),
}


@pytest.mark.parametrize(("text", "expected"), STORES.items(), ids=STORES)
def test_addresses_are_taken_apart(text: str, expected: Address) -> None:
    """As long as userinfo stayed in the host, `http://user:pw@host` never worked."""
    assert parse(text) == expected
    if expected.password:
        assert expected.password not in without_password(text)
        assert "@" not in without_password(text)
    if text.startswith("http"):
        assert without_password(text).lower() == expected.url.lower()


REFUSED = {
    "a port that is none": "http://me:SECRET@host:abc",
    "a port too large": "http://me:SECRET@host:99999",
    "no host": "http://me:SECRET@",
    "no host at all": "https:///path",
    "no host but a port": "http://me:SECRET@:5000",
    "user and password alone": "http://me:SECRET",
    "one slash": "http:/me:SECRET@host",
    "no scheme": "me:SECRET@host:5000",
    "neither scheme nor host": "me:SECRET",
    "a scheme of others": "ftp://me:SECRET@host",
    "the old name": "postgres://me:SECRET@host/db",
    "a page": "http://me:SECRET@host/#/experiments/1",
    "a query": "http://me:SECRET@host?token=SECRET",
    "a space": "http://me:SECRET@ho st",
    "a line break": "http://me:SECRET@host\n",
    "in the middle": "http://me:SEC\tRET@host",
    "two readings": "http://me:12/SECRET@host:80",
    "two readings with an @": "http://me:SECRET@host/SECRET@x",
    "no file": "sqlite:x",
}


@pytest.mark.parametrize("text", REFUSED.values(), ids=REFUSED)
def test_what_is_no_address_is_refused_in_one_line_without_the_password(
    text: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Of `nonnumeric port: 'geheim@localhost'` and its like."""
    monkeypatch.setenv("MLFLOW_TRACKING_URI", text)
    with pytest.raises(DarkroomError, match="MLFLOW_TRACKING_URI = ") as caught:
        addresses.location()
    message = str(caught.value)
    assert "\n" not in message
    assert "SEC" not in message
    assert "RET" not in message


def test_user_and_password_come_from_the_address_before_the_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    def given(address: str, user: str = "", password: str = "") -> tuple[str, str] | None:
        for name, value in (("URI", address), ("USERNAME", user), ("PASSWORD", password)):
            monkeypatch.setenv(f"MLFLOW_TRACKING_{name}", value)
        return addresses.credentials()

    assert given("http://host") is None
    assert given("http://host", "you", "yours") == ("you", "yours")
    assert given("http://me:pw@host", "you", "yours") == ("me", "pw")
    assert given("http://me@host", "you", "yours") == ("me", "yours")
    assert given("http://:pw@host", "you") == ("you", "pw")
    with pytest.raises(DarkroomError, match="lacks a password: set MLFLOW_TRACKING_PASSWORD"):
        given("http://me@host")
    with pytest.raises(DarkroomError, match="lacks a user: set MLFLOW_TRACKING_USERNAME"):
        given("http://:pw@host")
    assert given("http://me:p%40w@host:1/") == ("me", "p@w")
    assert addresses.export_credentials() == os.environ["MLFLOW_TRACKING_URI"] == "http://host:1"
    assert (os.environ["MLFLOW_TRACKING_USERNAME"], os.environ["MLFLOW_TRACKING_PASSWORD"]) == ("me", "p@w")


@pytest.mark.parametrize(
    "address",
    [
        f"http://me:{ENCODED}@host",
        f"postgresql://me:{ENCODED}@host/db",
        f"postgresql://host/db?user=me&password={ENCODED}",
        f"mssql+pyodbc:///?odbc_connect=DRIVER%3Dx%3BUID%3Dme%3BPWD%3D{ENCODED}%3B",
    ],
)
def test_no_form_of_a_password_is_left_in_a_text(address: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Errors of MLflow, requests and SQLAlchemy quote addresses as they are, decoded, or encoded their own way."""
    monkeypatch.setenv("MLFLOW_TRACKING_URI", address)
    for text in (f"could not connect to '{form}': try again" for form in (PASSWORD, ENCODED, address)):
        safe = without_secrets(text)
        assert "could not connect to" in safe
        for form in (PASSWORD, ENCODED, "h:e/i", "h%3Ae"):
            assert form not in safe
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "http://a:pw@host")
    assert without_secrets("spawn pw: 'pw'") == "spawn ***: '***'"
    monkeypatch.setenv("MLFLOW_TRACKING_PASSWORD", "from outside")
    assert "outside" not in without_secrets("with from outside and http://x:y@z")


@pytest.mark.parametrize("variable", ["PGPASSWORD", "AWS_SECRET_ACCESS_KEY", "MLFLOW_AUTH_ADMIN_PASSWORD"])
def test_what_other_variables_keep_secret_is_left_out_too(variable: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """And the user of a database is told, who is nobody's token."""
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "postgresql://somebody@host/db")
    monkeypatch.setenv(variable, "hid/den word")
    assert without_secrets("somebody: hid/den word, hid%2Fden+word") == "somebody: ***, ***"


def test_what_signs_an_address_is_left_out() -> None:
    """Buckets let in whoever has such an address, and errors quote it."""
    signed = "https://bucket.host/a.png?X-Amz-Credential=AK%2F1&X-Amz-Signature=f00d&partNumber=2"
    left = "https://bucket.host/a.png?X-Amz-Credential=***&X-Amz-Signature=***&partNumber=2"
    assert without_secrets(f"GET {signed}: 403") == f"GET {left}: 403"
    page = "http://host/#/experiments/1/runs?workflowType=machine_learning&viewStateShareKey=abc"
    assert without_secrets(page) == page


NAMES = [
    "what?",
    "100%25 real",
    "100% real",
    "a#b;c&d=e",
    "é 'x' \"y\"",
    "co:lon :é",
    "back\\slash",
    "$HOME `x` *[a]{b}@",
]


@pytest.mark.parametrize("name", NAMES)
def test_a_path_of_any_name_comes_back_from_its_address(name: str, tmp_path: Path) -> None:
    """Held against the parsers of SQLAlchemy and MLflow: a database was made outside of a project in `what?/`."""
    file = tmp_path / name / "mlflow.db"
    address = addresses.database_address(file)
    assert make_url(address).database == str(file)
    assert addresses.database_file(address) == file
    assert parse(address).url == address
    folder = tmp_path / name / "artifacts"
    below = append_to_uri_path(addresses.artifacts_address(folder), "run", "artifacts")
    assert local_file_uri_to_path(below) == f"{folder}/run/artifacts"
    assert addresses.artifacts_folder(below) == folder / "run" / "artifacts"
    assert addresses.artifacts_folder("mlflow-artifacts:/1/x/artifacts") is None


@pytest.mark.parametrize("name", ["two\nlines", "a\ttab", "\udcff"])
def test_a_folder_that_no_address_can_name_is_refused(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("DVC_ROOT", str(tmp_path / name))
    with pytest.raises(DarkroomError, match="move the project to a folder") as caught:
        addresses.project_root()
    str(caught.value).encode()
    assert "\n" not in str(caught.value)
