"""The user interface over the runs: MLflow's, on this machine only."""

import os
import signal
import subprocess
import sys
import threading
import time
from contextlib import suppress
from pathlib import Path

from darkroom.core.errors import DarkroomError
from darkroom.tracking.address import FOLDER, artifacts_address, is_server, location, project_root
from darkroom.tracking.availability import check_answers
from darkroom.tracking.ports import UI_PORT, advertised, answers, check_free, running_port
from darkroom.tracking.secrets import without_secrets
from darkroom.tracking.store import Store, web_address

START_WITHIN = 300.0  # seconds, for machines with much else to do


def command(port: int) -> list[str]:
    """The command that serves the `store_settings` on 127.0.0.1, with one worker."""
    server = (sys.executable, "-m", "mlflow", "server")
    return [*server, "--host", "127.0.0.1", "--port", str(port), "--workers", "1"]


def store_settings() -> dict[str, str]:
    """Which store is served, as environment: lists of processes show the words of a command to everybody."""
    artifacts = artifacts_address(project_root() / FOLDER / "artifacts")
    return {"MLFLOW_BACKEND_STORE_URI": location(), "MLFLOW_DEFAULT_ARTIFACT_ROOT": artifacts}


def serve(port: int = UI_PORT) -> None:
    """Serve the runs of this project until interrupted, and print the address that opens on them.

    Where MLFLOW_TRACKING_URI names a server, that one is the user interface: only the address is printed.
    """
    if is_server(location()):
        check_answers(location())
        print(f"{web_address(location())}/{Store().runs_link()}", flush=True)
        return
    here = f"http://127.0.0.1:{port}"
    if running_port() == port:
        print(f"The user interface of this project runs already:\n{here}/{Store().runs_link()}", flush=True)
        return
    check_free(port, "darkroom ui")
    environment = os.environ | store_settings()
    environment |= {"MLFLOW_SERVER_ENABLE_JOB_EXECUTION": "false", "MLFLOW_DISABLE_TELEMETRY": "true"}
    print("Starting the user interface, some ten seconds …", flush=True)
    store = Store()  # also makes an empty store, so that there is something to look at
    log = project_root() / FOLDER / "server.log"
    server = subprocess.Popen(
        command(port), env=environment, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, start_new_session=True
    )
    threading.Thread(target=_note, args=(server, log), name="log of the server", daemon=True).start()
    signal.signal(signal.SIGTERM, signal.default_int_handler)  # leaves no server behind either
    try:
        deadline = time.monotonic() + START_WITHIN
        while not answers(port):
            if server.poll() is not None or time.monotonic() > deadline:
                raise DarkroomError(f"the user interface did not start; {log} says why")
            time.sleep(0.2)
        with advertised(port):
            print(f"{here}/{store.runs_link()}\nStop it with Ctrl-C.", flush=True)
            server.wait()
    except KeyboardInterrupt:
        print()
    finally:
        with suppress(ProcessLookupError):
            os.killpg(server.pid, signal.SIGTERM)
        server.wait()


def _note(server: "subprocess.Popen[bytes]", log: Path) -> None:
    """Write what the server says to a file, without passwords."""
    assert server.stdout is not None
    with log.open("w", encoding="utf-8") as file:
        for line in server.stdout:
            file.write(without_secrets(line.decode(errors="replace")))
            file.flush()
