"""For every test of this repository, the plugins' included."""

import base64
import gc
import os
import signal
from collections.abc import Generator, Iterator
from pathlib import Path

import pytest
from hypothesis import settings

# A shell that starts this in the background has it ignore Ctrl-C, and its children with it.
signal.signal(signal.SIGINT, signal.default_int_handler)

# Your shell's environment must not change what the tests see.
for name in ("ROLECALL_DISABLED", "MLFLOW_TRACKING_URI", "MLFLOW_RUN_ID", "MLFLOW_EXPERIMENT_NAME"):
    os.environ.pop(name, None)

# Nothing that a test starts calls home. MLflow reads this when it is imported, which is before a test runs.
os.environ.update(MLFLOW_DISABLE_TELEMETRY="true", DO_NOT_TRACK="true")

# A first example may import an SDK, and a machine may be busy: pytest-timeout sees to what hangs.
settings.register_profile("rolecall", deadline=None)
settings.load_profile("rolecall")

# Keys that tests hand to backends. wandb's is what the emulator of its server knows.
CANARIES = (b"local0000000000000000000000000000000000a", b"topsecret", b"hunter2")
FORMS = (*CANARIES, *(base64.b64encode(b"api:" + key) for key in CANARIES))


@pytest.hookimpl(wrapper=True)
def pytest_collection() -> Generator[None, object, object]:
    """Collect tests with Python's garbage collector off, and have it skip what was made by then.

    Otherwise it walks through thousands of tests and through SDKs again and again, in each worker: 45 of 445 s of CPU
    for the core's tests (measured).
    """
    gc.disable()
    try:
        return (yield)
    finally:
        gc.freeze()
        gc.enable()


@pytest.fixture(autouse=True)
def no_key_is_written(request: pytest.FixtureRequest) -> Iterator[None]:
    """No byte that a test writes holds a key: journals, `.wandb` and event files, databases and logs included.

    What a test itself writes one into, a user's netrc for one, it names: `@pytest.mark.holds_keys("netrc")`.
    """
    if "tmp_path" not in request.fixturenames:
        yield
        return
    written: Path = request.getfixturevalue("tmp_path")
    yield
    mark = request.node.get_closest_marker("holds_keys")
    found = [path for path in _files(written) if _holds_key(path)]
    assert not [path for path in found if mark is None or path.name not in mark.args], "a key was written"


def _files(folder: Path) -> Iterator[Path]:
    for parent, _, names in os.walk(folder):
        yield from (Path(parent, name) for name in names)


def _holds_key(path: Path) -> bool:
    try:
        data = path.read_bytes() if path.is_file() else b""
    except OSError:
        return False
    return any(form in data for form in FORMS)
