"""Databases of MLflow's as an older MLflow made them."""

import os
import subprocess
import sys

CODE = """
import os, sqlalchemy
from alembic import command
from alembic.script import ScriptDirectory
from mlflow.store.db.utils import _get_alembic_config
from mlflow.store.tracking.dbmodels.initial_models import Base
uri = os.environ["OLDER"]
engine = sqlalchemy.create_engine(uri)
Base.metadata.create_all(engine)
config = _get_alembic_config(uri)
before = ScriptDirectory.from_config(config).get_revision("head").down_revision
with engine.begin() as connection:
    config.attributes["connection"] = connection
    command.upgrade(config, before)
print(before)
"""


def make_older(address: str) -> str:
    """Make a database as the MLflow before the latest change of its schema made it; the revision."""
    command = [sys.executable, "-c", CODE]
    done = subprocess.run(command, env=os.environ | {"OLDER": address}, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return done.stdout.split()[-1]
