"""`darkroom serve`: MLflow's scoring application for a registered pipeline, behind `Middleware`."""

import os
import signal
import tempfile
from collections.abc import Sequence
from math import ceil
from pathlib import Path

from darkroom.serving.ending_server import EndingServer, leave
from darkroom.serving.limits import MLFLOW_SECONDS, SHARE, Limits
from darkroom.serving.middleware import INVOCATIONS, LIMITS, Middleware
from darkroom.serving.queueing import ending
from darkroom.serving.registry import take_out
from darkroom.tracking.address import location
from darkroom.tracking.availability import check_answers
from darkroom.tracking.ports import check_free
from darkroom.tracking.store import Store

HOST, PORT = "127.0.0.1", 5001
HERE = ("127.0.0.1", "localhost", "::1")  # names of this machine


def serve(which: str, host: str = HOST, port: int = PORT, names: Sequence[str] = ()) -> None:
    """Serve a version of the registered model until interrupted.

    The code that serves is that of the Darkroom installed here, also for versions registered with another one.

    Args:
        which: a version's number, or an alias.
        names: of hosts, besides `host` and, where that is this machine, its own, under which clients may ask.

    Raises:
        DarkroomError: the port is taken, the store does not answer, there is no such version, its files are not what
            was registered, or a limit is not a number.
    """
    wanted = Limits.from_environment({MLFLOW_SECONDS: "inf", **os.environ}).seconds
    check_free(port, "darkroom serve", host)
    check_answers(location())
    store = Store()
    with tempfile.TemporaryDirectory(prefix="darkroom_") as beside:  # parts of a pipeline are read when first needed
        signal.signal(signal.SIGTERM, lambda *_: leave(Path(beside), 0))  # uvicorn calls it when it has ended
        version, folder = take_out(store, which, Path(beside))
        print(f"Loading version {version} …", flush=True)
        os.environ.setdefault(MLFLOW_SECONDS, str(ceil(wanted / SHARE)))
        app, model, params = store.scoring_app(folder)
        local_names = HERE if host in (*HERE, "0.0.0.0", "::") else ()
        known = {name.lower() for name in (host, *local_names, *names) if name}
        at = f"http://{f'[{host}]' if ':' in host else host}:{port}"
        said = f"{at}{INVOCATIONS} draws with version {version}; {at}{LIMITS} gives its limits\nStop it with Ctrl-C."
        server = EndingServer(Middleware(app, model.service.limits, known, params), host, port, said, Path(beside))
        try:
            server.run()
        except KeyboardInterrupt:
            print(flush=True)
        if ending.is_set():
            leave(Path(beside), 0)
