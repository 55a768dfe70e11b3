"""For every test of this repository, the plugins' included."""

import os

from hypothesis import settings

# What stands in the shell of whoever runs the tests must not change what they see.
for name in ("ROLECALL_DISABLED", "MLFLOW_TRACKING_URI", "MLFLOW_RUN_ID", "MLFLOW_EXPERIMENT_NAME"):
    os.environ.pop(name, None)

# Nothing that a test starts calls home. MLflow reads this when it is imported, which is before a test runs.
os.environ.update(MLFLOW_DISABLE_TELEMETRY="true", DO_NOT_TRACK="true")

# A first example may import an SDK, and a machine may be busy: pytest-timeout sees to what hangs.
settings.register_profile("rolecall", deadline=None)
settings.load_profile("rolecall")
