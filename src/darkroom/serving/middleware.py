"""What stands before MLflow's scoring application: it lets through what is small, well formed and meant for this
server, and tells the work of a client that leaves."""

import asyncio
import json
import time
from collections.abc import Awaitable, Callable, Collection, MutableMapping
from concurrent.futures import ThreadPoolExecutor
from typing import Any
from urllib.parse import urlsplit

from darkroom.serving.body import check
from darkroom.serving.limits import LimitError, Limits, RefusedError
from darkroom.serving.queueing import Arrival, arrival, check_capacity

Message = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[Message]]
Send = Callable[[Message], Awaitable[None]]
App = Callable[[Message, Receive, Send], Awaitable[None]]

INVOCATIONS, LIMITS = "/invocations", "/limits"
METHODS = {INVOCATIONS: "POST", LIMITS: "GET", "/ping": "GET", "/health": "GET", "/version": "GET"}
TYPE = "application/json"  # MLflow takes CSV and Parquet too; the latter unpacks to any size
RECEIVED_WITHIN = 10.0  # seconds that a client may take to send a body
LET_RUN = 8  # times the limit of a body that is read on and dropped, so that its sender reads the answer
ECHO = "\nError: "  # of MLflow's, behind the data it was given


class ForeignError(RefusedError):
    """It was not meant for this server, or not for this place of it."""

    def __init__(self, message: str, status: int, code: str) -> None:
        super().__init__(message)
        self.status, self.code = status, code


class TooLargeError(LimitError):
    status = 413


class Middleware:
    """An ASGI application around MLflow's.

    names: of hosts, in lower case and without ports, under which clients may address this server.
    params: the names of the parameters that the model takes.
    """

    def __init__(self, app: App, limits: Limits, names: Collection[str], params: Collection[str]) -> None:
        self.app, self.limits, self.names, self.params = app, limits, names, params
        self._there = 0

    async def __call__(self, scope: Message, receive: Receive, send: Send) -> None:
        if scope["type"] == "lifespan":
            # MLflow gives each request a thread, of which asyncio has six on two cores: the rest would wait unseen.
            asyncio.get_running_loop().set_default_executor(
                ThreadPoolExecutor(self.limits.most_requests + 2, "request")
            )
            return await self.app(scope, receive, send)
        if scope["type"] != "http":
            return None
        headers: dict[bytes, bytes] = dict(scope["headers"])
        try:
            self._check_address(scope, headers)
            if scope["path"] == LIMITS:
                return await _answer(send, 200, self.limits.described())
            if scope["path"] != INVOCATIONS:
                return await self.app(scope, receive, send)
            await self._invocation(scope, headers, receive, send)
        except RefusedError as error:
            await _answer(send, error.status, {"error_code": error.code, "message": str(error)})
        return None

    def _check_address(self, scope: Message, headers: dict[bytes, bytes]) -> None:
        """Refuse what a page of another site sends through somebody's browser, and what is sent elsewhere."""
        known = ", ".join(sorted(self.names))
        host = headers.get(b"host", b"").decode("latin-1")
        if _name(f"//{host}") not in self.names:
            raise ForeignError(f"Host = {host!r}: this server is {known}", 403, "PERMISSION_DENIED")
        origin = headers.get(b"origin")
        if origin is not None and _name(origin.decode("latin-1")) not in self.names:
            raise ForeignError(
                f"Origin = {origin.decode('latin-1')!r}: pages of {known} alone may ask", 403, "PERMISSION_DENIED"
            )
        method = METHODS.get(scope["path"])
        if method is None:
            raise ForeignError(f"nothing is here; there are {', '.join(METHODS)}", 404, "ENDPOINT_NOT_FOUND")
        if scope["method"] != method:
            raise ForeignError(f"{scope['method']}: {scope['path']} takes {method}", 405, "BAD_REQUEST")

    async def _invocation(self, scope: Message, headers: dict[bytes, bytes], receive: Receive, send: Send) -> None:
        came = Arrival()
        kind, _, more = headers.get(b"content-type", b"").decode("latin-1").partition(";")
        if kind.strip().lower() != TYPE or more.strip().lower() not in ("", "charset=utf-8"):
            raise ForeignError(f"Content-Type = {kind.strip()!r}: send {TYPE} in UTF-8", 415, "BAD_REQUEST")
        check_capacity(self._there + 1, self.limits)
        self._there += 1
        try:
            body = await self._body(headers, receive, came)
            await asyncio.to_thread(check, body, self.limits, self.params)
            await self._pass_on(scope, body, came, receive, send)
        finally:
            self._there -= 1

    async def _body(self, headers: dict[bytes, bytes], receive: Receive, came: Arrival) -> bytes:
        """All of it. Raises RefusedError: it is larger than it may be, or takes too long to come."""
        most, chunks, size = self.limits.body_bytes, [], 0
        said = headers.get(b"content-length", b"0")
        waits = b"expect" in headers  # until it is asked to send
        if int(said) > most and (waits or int(said) > LET_RUN * most):
            self._check_size(int(said))
        more = True
        while more:
            try:
                message = await asyncio.wait_for(receive(), max(0.0, came.at + RECEIVED_WITHIN - time.monotonic()))
            except TimeoutError:
                raise ForeignError(
                    f"body: not whole after {RECEIVED_WITHIN:g} s; send it faster", 408, "BAD_REQUEST"
                ) from None
            if message["type"] == "http.disconnect":
                came.left.set()
                raise ForeignError("the client closed the connection", 499, "CANCELLED")
            part, more = message.get("body", b""), message.get("more_body", False)
            size += len(part)
            if size <= most:
                chunks.append(part)
            elif size > LET_RUN * most:
                break
        self._check_size(size)
        return b"".join(chunks)

    def _check_size(self, size: int) -> None:
        try:
            self.limits.check("body_bytes", size, "bytes of the body", "send fewer rows, or smaller pictures")
        except LimitError as error:
            raise TooLargeError(str(error)) from None

    async def _pass_on(self, scope: Message, body: bytes, came: Arrival, receive: Receive, send: Send) -> None:
        """Have MLflow answer, and listen meanwhile whether the client still waits."""

        async def listen() -> Message:
            while (message := await receive())["type"] != "http.disconnect":
                pass
            came.left.set()
            return message

        leaving = asyncio.create_task(listen())
        waiting: list[Message] = [{"type": "http.request", "body": body, "more_body": False}]
        del body

        async def replay() -> Message:
            return waiting.pop() if waiting else await asyncio.shield(leaving)

        token = arrival.set(came)
        try:
            await self.app(scope, replay, _tidied(send))
        finally:
            arrival.reset(token)
            leaving.cancel()


def _name(address: str) -> str:
    """The host in an address, in lower case; "" where there is none."""
    try:
        return urlsplit(address).hostname or ""
    except ValueError:
        return ""


def _tidied(send: Send) -> Send:
    """A `send` that keeps of MLflow's errors what was wrong: no traceback of the server's, no echo of the request."""
    begun: list[Message] = []
    chunks: list[bytes] = []

    async def tidy(message: Message) -> None:
        if message["type"] == "http.response.start" and message["status"] >= 400:
            begun.append(message)
            return
        if not begun:
            await send(message)
            return
        chunks.append(message.get("body", b""))
        if message.get("more_body", False):
            return
        text = b"".join(chunks).decode("utf-8", "replace")
        try:
            said = json.loads(text)
            code, why = said["error_code"], said["message"].rpartition(ECHO)[2]
        except (ValueError, TypeError, KeyError, AttributeError):
            code, why = "INTERNAL_ERROR", text.strip()
        await _answer(send, begun[0]["status"], {"error_code": code, "message": why})

    return tidy


async def _answer(send: Send, status: int, said: object) -> None:
    """JSON; after an error the connection is closed, for its request may not have been read."""
    body = json.dumps(said).encode()
    headers = [(b"content-type", TYPE.encode()), (b"content-length", str(len(body)).encode())]
    if status >= 400:
        headers.append((b"connection", b"close"))
    await send({"type": "http.response.start", "status": status, "headers": headers})
    await send({"type": "http.response.body", "body": body})
