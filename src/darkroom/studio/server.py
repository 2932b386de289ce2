"""The page on this machine, until somebody ends it."""

import importlib.util
import os
import signal
import tempfile
import threading
from collections.abc import Awaitable, Callable, MutableMapping, Sequence
from pathlib import Path
from typing import Any

from darkroom.core.errors import DarkroomError
from darkroom.serving.ending_server import EndingServer, leave
from darkroom.serving.limits import MLFLOW_SECONDS, Limits
from darkroom.serving.queueing import ending
from darkroom.tracking.ports import check_free

HOST, PORT = "127.0.0.1", 5002
NAMES = [HOST, "localhost"]  # under which a browser may ask: no page of another site can, by a name of its own
OFF = {"GRADIO_ANALYTICS_ENABLED": "False", "HF_HUB_DISABLE_TELEMETRY": "1", "GRADIO_SSR_MODE": "False"}
ANSWERS_UNTIL = 1  # seconds after a signal: an open page keeps a connection that never ends by itself
# What a browser may load and ask: this server, and what the page itself holds.
POLICY = (
    "default-src 'self' data: blob:; script-src 'self' 'unsafe-inline' 'unsafe-eval' blob:; "
    "style-src 'self' 'unsafe-inline'; object-src 'none'; base-uri 'self'; form-action 'self'; frame-ancestors 'none'"
)

Message = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[Message]]
Send = Callable[[Message], Awaitable[None]]
App = Callable[[Message, Receive, Send], Awaitable[None]]


class Confined:
    """An ASGI application whose pages load nothing from elsewhere, as their header tells the browser."""

    def __init__(self, app: App) -> None:
        self.app = app

    async def __call__(self, scope: Message, receive: Receive, send: Send) -> None:
        async def with_policy(message: Message) -> None:
            if message["type"] == "http.response.start":
                message["headers"] = [
                    *message.get("headers", []),
                    (b"content-security-policy", POLICY.encode()),
                    (b"referrer-policy", b"no-referrer"),
                ]
            await send(message)

        await self.app(scope, receive, with_policy)


def serve(folders: Sequence[Path], port: int = PORT) -> None:
    """Serve the page until interrupted.

    Args:
        folders: of pipelines.

    Raises:
        DarkroomError: Gradio is not installed, the port is taken, there is no model, or a limit is not a number.
    """
    if importlib.util.find_spec("gradio") is None:
        raise DarkroomError("the studio needs Gradio, which is not installed; pip install 'darkroom[studio]'")
    limits = Limits.from_environment({**os.environ, MLFLOW_SECONDS: "inf"})  # MLflow's server is not there
    check_free(port, "darkroom studio")
    with tempfile.TemporaryDirectory(prefix="darkroom_") as made:
        beside = Path(made).resolve()
        signal.signal(signal.SIGTERM, lambda *_: leave(beside, 0))
        os.environ |= {**OFF, "GRADIO_TEMP_DIR": str(beside / "gradio")}
        print("Opening the studio, some seconds …", flush=True)
        app = application(folders, limits, beside, port)
        said = f"http://{HOST}:{port}\nStop it with Ctrl-C."
        server = EndingServer(app, HOST, port, said, beside, ANSWERS_UNTIL)
        try:
            server.run()
        except KeyboardInterrupt:
            print(flush=True)
        if ending.is_set():
            leave(beside, 0)


def application(folders: Sequence[Path], limits: Limits, beside: Path, port: int) -> App:
    """The page as an ASGI application. beside: a folder for all that it writes."""
    loading = threading.Thread(target=_import_gradio, name="import of Gradio", daemon=True)
    loading.start()  # while PyTorch is imported and the first model read
    from darkroom.studio.models import Models
    from darkroom.studio.page.build import build
    from darkroom.studio.page.look import css, theme
    from darkroom.studio.work import Studio

    (beside / "drawn").mkdir()
    models = Models(folders, beside)
    models.check()
    side = models.defaults(models.names()[0]).side
    loading.join()
    import gradio
    from fastapi import FastAPI
    from starlette.middleware.trustedhost import TrustedHostMiddleware

    blocks = build(gradio, Studio(models, limits, beside / "drawn"))
    blocks.queue(default_concurrency_limit=limits.most_requests, api_open=False)
    app = FastAPI(docs_url=None, redoc_url=None, openapi_url=None)
    gradio.mount_gradio_app(
        app,
        blocks,
        "/",
        server_name=HOST,
        server_port=port,
        footer_links=[],
        run_history=False,
        allowed_paths=[str(beside / "drawn")],
        max_file_size=limits.body_bytes,
        ssr_mode=False,
        pwa=False,
        mcp_server=False,
        theme=theme(gradio),
        css=css(side),
    )
    return Confined(TrustedHostMiddleware(app, NAMES))


def _import_gradio() -> None:
    import gradio  # noqa: F401
