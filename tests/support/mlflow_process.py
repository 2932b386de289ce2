"""MLflow's server, ready to start at once: `mlflow server` needs ten seconds to import itself, every time.

python mlflow_process.py FOLDER PORT reads "start" and "stop" from standard input. Each start is a new process with the
imports done and nothing else; each stop is the end of that process.
"""

import os
import signal
import sys

from mlflow.server import constants

folder, port = sys.argv[1], int(sys.argv[2])
os.environ |= {
    constants.BACKEND_STORE_URI_ENV_VAR: f"sqlite:///{folder}/server.db",
    constants.REGISTRY_STORE_URI_ENV_VAR: f"sqlite:///{folder}/server.db",
    constants.ARTIFACT_ROOT_ENV_VAR: "mlflow-artifacts:/",
    constants.ARTIFACTS_DESTINATION_ENV_VAR: f"{folder}/artifacts",
    constants.SERVE_ARTIFACTS_ENV_VAR: "true",
    "MLFLOW_SERVER_ENABLE_JOB_EXECUTION": "false",
    "MLFLOW_DISABLE_TELEMETRY": "true",
}

import uvicorn  # noqa: E402
from mlflow.server.fastapi_app import app  # noqa: E402

serving = 0
for order in sys.stdin:
    if order == "start\n":
        serving = os.fork()
        if serving == 0:
            uvicorn.run(app, host="127.0.0.1", port=port, access_log=False)
            os._exit(0)
    else:
        os.kill(serving, signal.SIGKILL)
        os.waitpid(serving, 0)
        serving = 0
        print("stopped", flush=True)
if serving:
    os.kill(serving, signal.SIGKILL)
