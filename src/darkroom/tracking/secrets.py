"""Passwords of stores and keys of buckets stay out of all that is said, noted and logged, whoever says it.

Of a text; an address by itself is shown by `address.without_password`.
"""

import base64
import logging
import os
import re
import sys
import threading
import traceback
from types import TracebackType
from typing import Any
from urllib.parse import parse_qsl, quote, quote_plus, unquote

from darkroom.core.errors import DarkroomError
from darkroom.tracking.address import PASSWORD, USERNAME, VARIABLE, is_server, parse

HIDDEN = "***"
TOKEN = "MLFLOW_TRACKING_TOKEN"
GIVEN = (  # variables that hold nothing but a secret
    PASSWORD,
    TOKEN,
    "PGPASSWORD",
    "AWS_SECRET_ACCESS_KEY",
    "AWS_SESSION_TOKEN",
    "MLFLOW_AUTH_ADMIN_PASSWORD",
    "MLFLOW_FLASK_SERVER_SECRET_KEY",
)
USERINFO = re.compile(r"(?<=://)[^\s'\"<>/?#]*@")  # of any address in a text
SIGNED = re.compile(  # what lets whoever has an address in, as MLflow and buckets make them for a single file
    r"(?<=[?&;])([\w.-]*(?:password|pwd|secret|signature|credential|security-token)=)[^&;\s'\"<>]+", re.IGNORECASE
)
SECRET_OPTION = re.compile(r"pass|pwd|token|secret|key|credential|odbc_connect", re.IGNORECASE)
SHORT = 6  # letters; a shorter password is hidden where it stands by itself, for it may be part of any word


def without_secrets(text: str) -> str:
    """`text` without secrets, plain or encoded, and without user, password and signature of any address in it.

    The secrets are those that the environment gives: in MLFLOW_TRACKING_URI (also as options of a database's address)
    and in the variables `GIVEN`.
    """
    for secret in sorted(_secrets(), key=len, reverse=True):
        if len(secret) < SHORT:
            text = re.sub(rf"(?<!\w){re.escape(secret)}(?!\w)", HIDDEN, text)
        else:
            text = text.replace(secret, HIDDEN)
    return SIGNED.sub(rf"\1{HIDDEN}", USERINFO.sub("", text))


def first_line(error: BaseException) -> str:
    """The first line of an error's message, without passwords, or its kind."""
    return without_secrets((str(error).strip().splitlines() or [type(error).__name__])[0])


def hide_secrets() -> None:
    """From now on neither tracebacks nor the records of any logger in this process show them."""
    sys.excepthook = _tell
    threading.excepthook = lambda end: _tell(end.exc_type, end.exc_value, end.exc_traceback)
    made = logging.getLogRecordFactory()
    if getattr(made, "hides_secrets", False):
        return

    def hiding(*arguments: Any, **keywords: Any) -> logging.LogRecord:
        record = made(*arguments, **keywords)
        record.msg, record.args = without_secrets(record.getMessage()), ()
        if record.exc_info:
            record.exc_text = without_secrets("".join(traceback.format_exception(*record.exc_info)).rstrip())
        return record

    hiding.hides_secrets = True  # type: ignore[attr-defined]
    logging.setLogRecordFactory(hiding)


def _tell(kind: type[BaseException], error: BaseException | None, trace: TracebackType | None) -> None:
    sys.stderr.write(without_secrets("".join(traceback.format_exception(kind, error, trace))))


def _secrets() -> set[str]:
    """Every form in which a secret may stand in a text."""
    address = os.environ.get(VARIABLE, "")
    password = os.environ.get(PASSWORD, "")
    plain = {os.environ.get(name, "") for name in GIVEN}
    user = os.environ.get(USERNAME, "")
    try:
        parsed = parse(address)
        user = parsed.user or user
        plain.add(parsed.password)
        if is_server(address) and not parsed.password and not password:
            plain.add(parsed.user)  # it may be a token
    except DarkroomError:
        pass
    raw = address.partition("://")[2].rpartition("@")[0].partition(":")[2]
    for name, value in parse_qsl(address.partition("?")[2]):
        if SECRET_OPTION.search(name):
            plain |= {value, *re.findall(r"(?i)pwd=\{?([^;}]+)", value)}
    plain |= {raw, unquote(raw)}
    plain.discard("")
    encoded = {base64.b64encode(f"{user}:{one}".encode()).decode() for one in plain}
    return plain | encoded | {form(one, safe="") for one in plain for form in (quote, quote_plus)}
