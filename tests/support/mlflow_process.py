"""MLflow's server, ready to start at once: `mlflow server` needs ten seconds to import itself, every time.

Reads "start FOLDER PORT" and "stop PORT" from standard input, fields apart by tabs, and answers "stopped" to this.
Each start is a new process with the imports done and nothing else, that writes to FOLDER/log; each stop ends it.
"""

import os
import signal
import sys

from mlflow.server import constants

os.environ |= {
    constants.ARTIFACT_ROOT_ENV_VAR: "mlflow-artifacts:/",
    constants.SERVE_ARTIFACTS_ENV_VAR: "true",
    "MLFLOW_SERVER_ENABLE_JOB_EXECUTION": "false",
    "MLFLOW_DISABLE_TELEMETRY": "true",
}

import uvicorn
from mlflow.server.fastapi_app import app


def serve(folder: str, port: str) -> None:
    """Serve what lies in `folder`, in a process that has just been forked."""
    os.environ |= {
        constants.BACKEND_STORE_URI_ENV_VAR: f"sqlite:///{folder}/server.db",
        constants.REGISTRY_STORE_URI_ENV_VAR: f"sqlite:///{folder}/server.db",
        constants.ARTIFACTS_DESTINATION_ENV_VAR: f"{folder}/artifacts",
    }
    log = os.open(f"{folder}/log", os.O_WRONLY | os.O_CREAT | os.O_APPEND)
    os.dup2(log, sys.stdout.fileno())
    os.dup2(log, sys.stderr.fileno())
    uvicorn.run(app, host="127.0.0.1", port=int(port), access_log=False)


serving: dict[str, int] = {}
for line in sys.stdin:
    order, *fields = line.rstrip("\n").split("\t")
    if order == "start":
        child = os.fork()
        if child == 0:
            try:
                serve(*fields)
            finally:
                os._exit(0)
        serving[fields[1]] = child
    else:
        child = serving.pop(fields[0])
        os.kill(child, signal.SIGKILL)
        os.waitpid(child, 0)
        print("stopped", flush=True)
for child in serving.values():
    os.kill(child, signal.SIGKILL)
    os.waitpid(child, 0)
