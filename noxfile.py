"""What is checked, and beside which versions of what.

`nox` runs the default sessions, `nox -l` lists all, `nox -s tests -- -k journal` hands arguments to pytest.
Everything comes from requirements/*.txt, pinned and hash-checked. `nox -s lock` makes those, from the
pyproject.toml files and from requirements/*.in, each of which is one cell of the matrix.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import nox

nox.needs_version = ">=2026.10.20"
nox.options.default_venv_backend = "uv|virtualenv"
nox.options.reuse_venv = "yes"
nox.options.allow_parallel = True  # with `nox -j 2`
LOCKS = Path("requirements")
PYTHONS = ("3.11", "3.12", "3.13", "3.14")
BESIDE = ("-n", "3", "--dist", "worksteal")
WAITING = ("-n", "4", "--dist", "worksteal")
"""Many tests wait for processes, servers and SDKs: with one for each core, cores are idle for half of the time."""
IN_ORDER = ("-n", "4", "--dist", "load", "--maxschedchunk", "1")
"""Those that wait for longest come first, and one worker does not get all of them."""
MLFLOW = "plugins/rolecall-mlflow"
SWANLAB = "plugins/rolecall-swanlab"
TENSORBOARD = "plugins/rolecall-tensorboard"
TRACKIO = "plugins/rolecall-trackio"
WANDB = "plugins/rolecall-wandb"
PLUGINS = (MLFLOW, SWANLAB, TENSORBOARD, TRACKIO, WANDB)
ALL = (".", *PLUGINS)
TORCH = ("torch==2.13.0",)
"""Not in a lock: its builds for CPU alone stand on an index of its own, and users have chosen one."""
FRAMEWORKS = ("verl==0.9.1", "trinity-rft==0.6.0")
"""Without what they need, gigabytes of it: only the classes that log are measured."""
SOURCES = {"PYTHONPATH": os.pathsep.join(str(Path(path, "src").resolve()) for path in ALL)}
"""For what reads the packages and needs none of them installed."""
# nothing here calls home
QUIET = {
    "MLFLOW_DISABLE_TELEMETRY": "true",
    "DO_NOT_TRACK": "true",
    "HF_HUB_DISABLE_TELEMETRY": "1",
    "WANDB_ERROR_REPORTING": "false",
}
# Container images set it. Then each process that a test starts compiles what it imports: 6 s of CPU for MLflow instead
# of 2.5 (3.17.2, measured), and MLflow is started a hundred times.
COMPILED: dict[str, str | None] = {"PYTHONDONTWRITEBYTECODE": None}
# What builds our distributions is locked too, and apart from what they are tested beside.
BUILD = {f"{tool}_BUILD_CONSTRAINT": f"{LOCKS}/build.txt" for tool in ("UV", "PIP")}


def versions(kind: str) -> list[str]:
    """Each requirements/{kind}-*.in, oldest first."""
    found = [path.stem.removeprefix(f"{kind}-") for path in LOCKS.glob(f"{kind}-*.in")]
    return sorted(found, key=lambda version: [int(part) if part.isdigit() else 0 for part in version.split(".")])


def matrix(kind: str) -> Callable[[Any], Any]:
    """Run a session once for each of `versions`."""
    return nox.parametrize("version", [nox.param(version, id=version) for version in versions(kind)])


nox.options.sessions = [
    # What takes 14 minutes on two idle cores, with `nox -j 2`. The rest is run by name: older versions and other
    # Pythons, `mlflow_server`, wandb's long jobs, the fuzzers, and the faults in full.
    "lint",
    "types",
    "docs",
    "tests(newest)",
    f"tensorboard({versions('tensorboard')[-1]})",
    f"mlflow({versions('mlflow')[-1]})",
    f"wandb({versions('wandb')[-1]})",
    "faults_smoke",
    "install",
]


def install(session: nox.Session, lock: str, *distributions: str, options: Sequence[str] = ()) -> None:
    """Install a lock, and distributions of this repository from where they stand."""
    session.env.update({**QUIET, **COMPILED})
    session.install("--require-hashes", *options, "-r", f"{LOCKS}/{lock}.txt")
    editable = [argument for path in distributions for argument in ("-e", path)]
    if editable:
        session.install("--no-deps", *editable, env=BUILD)


def run_tests(session: nox.Session, beside: Sequence[str], *arguments: str) -> None:
    """Run pytest in several processes; what the user hands to pytest comes last.

    One process collects the tests first. In a new environment, all would otherwise compile what they import, each of
    them all of it: 14 s of CPU a process for the core's tests (measured), and 8 for wandb's.
    """
    if not session.posargs:
        session.run("pytest", "--collect-only", "--quiet", *arguments, silent=True)
    session.run("pytest", *beside, *arguments, *session.posargs)


# ----------------------------------------------------------------------- tests


@nox.session
@matrix("core")
def tests(session: nox.Session, version: str) -> None:
    """The core alone: no plugin and no SDK is installed."""
    install(session, f"core-{version}", ".")
    # what processes do to each other hangs on no version
    run_tests(session, WAITING, "tests/unit" if version == "oldest" else "tests")


@nox.session
def processes(session: nox.Session) -> None:
    """The core's tests that start several processes, or take minutes, all of them. By name only."""
    install(session, "core-newest", ".")
    found = ("tests/unit", "tests/processes", "tests/contract", "tests/demo")
    run_tests(session, BESIDE, "-m", "(processes or servers) and not matrix", *found)


@nox.session
def contract(session: nox.Session) -> None:
    """All tests of the contract for backends, on each broken backend. By name only; `tests` runs one test on each."""
    install(session, "core-newest", ".")
    run_tests(session, WAITING, "-m", "matrix", "tests/contract")


@nox.session
def pythons(session: nox.Session) -> None:
    """The core's unit tests on every Python that is here; names those that are not. By name only."""
    install(session, "nox")
    missing = [version for version in PYTHONS if not _on(session, version)]
    for version in missing:
        session.warn(f"Python {version}: not run, as it is not on this machine")


def _on(session: nox.Session, version: str) -> bool:
    """Run them on one Python, if it is here."""
    interpreter = _interpreter(version)
    if interpreter is None:
        return False
    python = Path(session.create_tmp()).resolve() / version / "bin" / "python"
    session.run("uv", "venv", "--quiet", "--clear", "--python", interpreter, str(python.parents[1]))
    pip = ("uv", "pip", "install", "--quiet", "--python", str(python))
    session.run(*pip, "--require-hashes", "-r", f"{LOCKS}/core-newest.txt")
    session.run(*pip, "--no-deps", "-e", ".", env=BUILD)
    session.run(str(python), "-m", "pytest", *BESIDE, "tests/unit", *session.posargs, external=True)
    return True


def _interpreter(version: str) -> str | None:
    """One that starts: on the PATH, or pyenv's, whose shims on the PATH start only what it is set to."""
    pyenv = Path(os.environ.get("PYENV_ROOT", Path.home() / ".pyenv"), "versions")
    for candidate in (shutil.which(f"python{version}"), *sorted(pyenv.glob(f"{version}.*/bin/python"))):
        if candidate and not subprocess.run([candidate, "-c", ""], capture_output=True, check=False).returncode:
            return str(candidate)
    return None


@nox.session
@matrix("tensorboard")
def tensorboard(session: nox.Session, version: str) -> None:
    """rolecall-tensorboard beside one version of tensorboardX."""
    install(session, f"tensorboard-{version}", ".", TENSORBOARD)
    run_tests(session, BESIDE, f"{TENSORBOARD}/tests")


@nox.session
@matrix("swanlab")
def swanlab(session: nox.Session, version: str) -> None:
    """rolecall-swanlab beside one version of swanlab, against an emulator of its server on this machine."""
    install(session, f"swanlab-{version}", ".", SWANLAB)
    run_tests(session, BESIDE, f"{SWANLAB}/tests")


@nox.session
@matrix("trackio")
def trackio(session: nox.Session, version: str) -> None:
    """rolecall-trackio beside one version of trackio."""
    install(session, f"trackio-{version}", ".", TRACKIO)
    run_tests(session, BESIDE, f"{TRACKIO}/tests")


@nox.session
@matrix("mlflow")
def mlflow(session: nox.Session, version: str) -> None:
    """rolecall-mlflow and its extras beside one version of mlflow-skinny, with nothing else of MLflow."""
    install(session, f"mlflow-{version}", ".", MLFLOW)
    # Each process imports MLflow, and many make a database: busy machines take minutes for a test.
    run_tests(session, BESIDE, "--timeout", "400", f"{MLFLOW}/tests")


@nox.session
@matrix("mlflow_server")
def mlflow_server(session: nox.Session, version: str) -> None:
    """rolecall-mlflow against real `mlflow server`s on this machine, client and server of one version.

    One of them is on Debian's PostgreSQL; where that is not installed, its tests are skipped, with the reason.
    """
    install(session, f"mlflow_server-{version}", ".", MLFLOW)
    # a file of tests to a worker, as each file starts servers of its own
    beside = ("-n", "4", "--dist", "loadfile")
    run_tests(session, beside, "--timeout", "600", "-rs", "-m", "servers", f"{MLFLOW}/tests")


@nox.session
@matrix("ray")
def ray(session: nox.Session, version: str) -> None:
    """Roles on two nodes of a Ray cluster on this machine, and everything that may die. By name only."""
    install(session, f"ray-{version}", ".")
    session.run("pytest", "-m", "ray", "tests/ray", *session.posargs)


@nox.session
def slurm(session: nox.Session) -> None:
    """Jobs of a real Slurm on this machine, one of them requeued. By name only."""
    # Debian has the daemons in /usr/sbin, which is not on every user's path.
    path = os.pathsep.join((os.environ["PATH"], "/usr/sbin"))
    if missing := [name for name in ("slurmctld", "slurmd", "munged") if shutil.which(name, path=path) is None]:
        session.skip(f"no {', '.join(missing)} on this machine: `apt-get install slurm-wlm munge`")
    install(session, f"tensorboard-{versions('tensorboard')[-1]}", ".", TENSORBOARD)
    session.run("pytest", "-m", "clusters", "tests/clusters/test_slurm.py", *session.posargs)


@nox.session
def torchrun(session: nox.Session) -> None:
    """A job of torchrun on two nodes, which are network namespaces: skipped if you are not root. By name only."""
    install(session, f"tensorboard-{versions('tensorboard')[-1]}", ".", TENSORBOARD)
    session.install(*TORCH)
    session.run("pytest", "-rs", "-m", "clusters", "tests/clusters/test_torchrun.py", *session.posargs)


@nox.session
@matrix("wandb")
def wandb(session: nox.Session, version: str) -> None:
    """rolecall-wandb beside one version of wandb, against an emulator of its server on this machine."""
    install(session, f"wandb-{version}", ".", WANDB)
    run_tests(session, IN_ORDER, f"{WANDB}/tests")


@nox.session
def wandb_oldest(session: nox.Session) -> None:
    """What a backend must do and what a shared run is, beside the oldest wandb; `wandb` runs everything."""
    install(session, f"wandb-{versions('wandb')[0]}", ".", WANDB)
    shown = [f"{WANDB}/tests/test_{name}.py" for name in ("contract", "declaring", "live")]
    run_tests(session, IN_ORDER, *shown)


@nox.session
@matrix("wandb")
def wandb_jobs(session: nox.Session, version: str) -> None:
    """Whole jobs, minutes long, with every binding looked at each second. By name only."""
    install(session, f"wandb-{version}", ".", WANDB)
    run_tests(session, IN_ORDER, "--timeout", "400", "-m", "servers", f"{WANDB}/tests")


@nox.session
def faults(session: nox.Session) -> None:
    """Kills, outages, full disks and more in every backend, in full; prints what became of the rows. By name only."""
    install(session, "web", *ALL)
    session.run("python", "tests/support/fault_suite.py", *session.posargs)


@nox.session
def long_outage(session: nox.Session) -> None:
    """An MLflow server that is down for the whole of a job of 1,000,000 rows. By name only."""
    install(session, "web", *ALL)
    session.run("python", "tests/support/long_outage.py", *session.posargs)


@nox.session
def faults_smoke(session: nox.Session) -> None:
    """A little of each fault, beside wandb's emulator too; `faults` has an MLflow server."""
    install(session, "docs", *ALL)
    run_tests(session, BESIDE, "-m", "faults", "tests/faults")


@nox.session
def benchmarks_smoke(session: nox.Session) -> None:
    """A little of each benchmark. By name only."""
    install(session, "web", *ALL)
    session.run("pytest", "-m", "benchmarks", "tests/benchmarks", *session.posargs)


@nox.session
def compat(session: nox.Session) -> None:
    """Scripts that were written for wandb, with wandb itself and with `rolecall.compat.wandb`. By name only."""
    install(session, "dev", *ALL)
    session.run("pytest", "-n", "2", "-m", "compat", "tests/compat", *session.posargs)


@nox.session
def frameworks(session: nox.Session) -> None:
    """Jobs of other frameworks' shape, beside their own code and Trinity-RFT's own classes. By name only."""
    install(session, "web", *ALL)
    session.install("--no-deps", *[framework for framework in FRAMEWORKS if framework.startswith("trinity")])
    # The trackers' versions are those of the lock; each tracker's own session runs these tests with its other versions.
    found = [str(path) for path in sorted(Path("plugins").glob("*/tests/test_frameworks.py"))]
    session.run("pytest", "-n", "2", "-rs", "-m", "processes", *found, *session.posargs)


def integration(session: nox.Session, name: str, version: str) -> None:
    """Run a framework's own training with `rolecall.integrations`, and read three trackers back."""
    # the lock is whole but for torch, which pip would otherwise ask for
    install(session, f"{name}-{version}", ".", MLFLOW, TENSORBOARD, WANDB, options=["--no-deps"])
    session.install(*TORCH)
    session.run("pytest", "-m", "integrations", f"tests/integrations/test_{name}.py", *session.posargs)


@nox.session(venv_backend="virtualenv")
@matrix("accelerate")
def accelerate(session: nox.Session, version: str) -> None:
    """`rolecall.integrations.accelerate` beside one version of Accelerate. By name only."""
    integration(session, "accelerate", version)


@nox.session(venv_backend="virtualenv")
@matrix("lightning")
def lightning(session: nox.Session, version: str) -> None:
    """`rolecall.integrations.lightning` beside one version of Lightning. By name only."""
    integration(session, "lightning", version)


@nox.session(venv_backend="virtualenv")
@matrix("stable_baselines3")
def stable_baselines3(session: nox.Session, version: str) -> None:
    """`rolecall.integrations.stable_baselines3` beside one version of Stable-Baselines3. By name only."""
    integration(session, "stable_baselines3", version)


@nox.session(venv_backend="virtualenv")
@matrix("trinity")
def trinity(session: nox.Session, version: str) -> None:
    """Trinity-RFT's launcher with rolecall's monitor, beside Trinity's own monitors. By name only."""
    session.install("--no-deps", f"trinity-rft=={version}")
    integration(session, "trinity", version)


@nox.session(venv_backend="virtualenv")
@matrix("verl")
def verl(session: nox.Session, version: str) -> None:
    """verl's loggers by way of rolecall, beside verl's own. By name only."""
    session.install("--no-deps", f"verl=={version}")
    integration(session, "verl", version)


@nox.session(venv_backend="virtualenv")
@matrix("transformers")
def transformers(session: nox.Session, version: str) -> None:
    """`rolecall.integrations.transformers` beside one version of transformers, with TRL. By name only."""
    integration(session, "transformers", version)


@nox.session(venv_backend="virtualenv")
@matrix("ray_tune")
def ray_tune(session: nox.Session, version: str) -> None:
    """`rolecall.integrations.ray` beside one version of Ray, with Tune and Train. By name only."""
    integration(session, "ray_tune", version)


@nox.session(venv_backend="virtualenv")
@matrix("hydra")
def hydra(session: nox.Session, version: str) -> None:
    """`rolecall.integrations.hydra` beside one version of Hydra. By name only."""
    integration(session, "hydra", version)


@nox.session(venv_backend="virtualenv")
@matrix("torchrl")
def torchrl(session: nox.Session, version: str) -> None:
    """`rolecall.integrations.torchrl` beside one version of TorchRL. By name only."""
    integration(session, "torchrl", version)


@nox.session
def fuzz(session: nox.Session) -> None:
    """All fuzzers side by side, for 30 s each; `nox -s fuzz -- 600` for longer."""
    install(session, f"fuzz-{versions('fuzz')[-1]}", ".")
    seconds = session.posargs[0] if session.posargs else "30"
    session.run("python", "tests/support/fuzz_all.py", seconds)


@nox.session(name="install")
def install_(session: nox.Session) -> None:
    """The built wheels: installed here, and handed to tests that install them somewhere clean."""
    install(session, "dev")
    wheels = Path(session.create_tmp()) / "wheels"
    shutil.rmtree(wheels, ignore_errors=True)
    for path in ALL:
        session.run("python", "-m", "build", "--wheel", "--no-isolation", "-o", wheels, path, silent=True)
    session.install("--no-deps", "--force-reinstall", *map(str, sorted(wheels.glob("*.whl"))))
    # pip takes 15 s longer to make their environment than uv, which is installed beside nox
    path = os.pathsep.join((os.environ["PATH"], str(Path(sys.executable).parent)))
    env = {"ROLECALL_WHEELS": str(wheels.resolve()), "PATH": path}
    # not side by side, as each worker would install all of it
    session.run("pytest", "-m", "install", "tests/install", *session.posargs, env=env)


@nox.session(venv_backend="virtualenv", allow_parallel=False)
def benchmarks(session: nox.Session) -> None:
    """All benchmarks beside their peers, for an hour on an idle machine. By name only; `-- --only call` for one."""
    install(session, "benchmarks")
    session.install("--no-deps", *ALL, env=BUILD)  # as a user has it, not from where it stands
    session.install(*TORCH)
    session.install("--no-deps", *FRAMEWORKS)
    session.run("python", "benchmarks/run_all.py", *session.posargs)


@nox.session
def web(session: nox.Session) -> None:
    """The web UIs of MLflow and TensorBoard, and our own page, looked at in Debian's Chromium. By name only."""
    chromium = os.environ.get("ROLECALL_CHROMIUM") or shutil.which("chromium")
    if chromium is None:
        session.error("no Chromium: `apt-get install chromium`, or say in ROLECALL_CHROMIUM where it is")
    install(session, "web", *ALL)
    session.run("pytest", "-m", "web", *session.posargs, env={"ROLECALL_CHROMIUM": chromium})


@nox.session(allow_parallel=False)
def pictures(session: nox.Session) -> None:
    """Make docs/images anew, in Debian's Chromium and tmux: `rolecall show` and three trackers' UIs. By name only.

    `-- terminal` makes a part alone; the others are `demo` and `media`.
    """
    install(session, "web", *ALL)
    session.run("python", "tests/support/make_pictures.py", *session.posargs)


@nox.session
def coverage(session: nox.Session) -> None:
    """Which lines the tests of all three distributions reach, sub-processes included. By name only."""
    install(session, "dev", *ALL)
    session.run("coverage", "erase")
    session.run("coverage", "run", "-m", "pytest", *session.posargs, success_codes=[0, 1])
    session.run("coverage", "combine", "--quiet")
    session.run("coverage", "report")


# ---------------------------------------------------------------- what is read


@nox.session
def lint(session: nox.Session) -> None:
    """Ruff, the layers of pyproject.toml, and whether the changelog's fragments can be put together."""
    install(session, "lint")
    session.run("ruff", "check")
    session.run("ruff", "format", "--check")
    session.run("lint-imports", "--no-cache", env=SOURCES)
    session.run("pytest", "--noconftest", "tests/test_layers.py", *session.posargs)  # the contracts do bite
    session.run("towncrier", "build", "--draft", "--version", "next", silent=True)


@nox.session
def types(session: nox.Session) -> None:
    """Mypy, strict, on sources, tests and the files beside them; mypy and pyright on what README and docs show."""
    install(session, "dev", *ALL)
    # the first run reads most of what is installed, and is the one that gains from a second process
    sources = ("noxfile.py", "conftest.py", "src", *[f"{path}/src" for path in PLUGINS])
    session.run("mypy", "--num-workers", "2", *sources)
    # each directory by itself: tests are no package, and two distributions may have one file name
    session.run("mypy", "--num-workers", "2", "--explicit-package-bases", "tests")
    session.run("mypy", "benchmarks")
    for path in PLUGINS:
        session.run("mypy", f"{path}/tests")
    # in one process: what mypy learns of installed packages takes most of its time
    session.run("pytest", "-m", "types", "tests/docs", *session.posargs)


@nox.session
def docs(session: nox.Session) -> None:
    """Every block of README and docs, executed, and the site, built; `nox -s docs -- serve` shows it."""
    install(session, "docs", *ALL)
    if session.posargs[:1] == ["serve"]:
        # the theme's notice on what will follow MkDocs 1 is no fault of these pages
        session.run("mkdocs", *session.posargs, env={"NO_MKDOCS_2_WARNING": "1"})
    else:
        # Compiled once here, and not by each of the first pages' processes at the same time.
        session.run("python", "-c", "import mlflow, tensorboardX, wandb")
        run_tests(session, IN_ORDER, "-m", "docs", "tests/docs")


# ------------------------------------------------------------------------ lock


@nox.session(allow_parallel=False)
def lock(session: nox.Session) -> None:
    """Resolve requirements/*.txt anew. By name only; `-- --upgrade` takes newer versions."""
    install(session, "nox")
    core = ("pyproject.toml", "--extra", "cli", "--group", "test")
    with_mlflow = (f"{MLFLOW}/pyproject.toml", "--extra", "local", "--extra", "system")
    everything = ("pyproject.toml", "--extra", "all", *with_mlflow)
    trackers = (
        f"{MLFLOW}/pyproject.toml",
        "--extra",
        "local",
        f"{TENSORBOARD}/pyproject.toml",
        f"{WANDB}/pyproject.toml",
    )
    # torch comes from `TORCH`, as its builds for CPU alone do
    without_torch = ("--override", f"{LOCKS}/overrides/without-torch.txt")
    beside_framework = (*core, *trackers, "--group", "read-tensorboard", *without_torch)
    groups = {
        "core": (*core, "--group", "notebook"),
        "tensorboard": (*core, f"{TENSORBOARD}/pyproject.toml", "--group", "read-tensorboard"),
        # without pandas: MLflow imports it where it is, which takes each of the tests' processes 2 s
        "mlflow": ("pyproject.toml", "--extra", "cli", "--group", "pytest", *with_mlflow),
        "mlflow_server": (*core, *with_mlflow),
        "swanlab": (*core, f"{SWANLAB}/pyproject.toml"),
        "trackio": (*core, f"{TRACKIO}/pyproject.toml"),
        "ray": core,
        "stable_baselines3": (*beside_framework, "--group", "figures"),
        "wandb": (*core, f"{WANDB}/pyproject.toml"),
        "fuzz": core,
    }
    for cell in sorted(LOCKS.glob("*.in")):
        kind = cell.stem.partition("-")[0]
        resolve(session, cell.stem, str(cell), *groups.get(kind, beside_framework))
    for name in ("nox", "build", "lint"):
        resolve(session, name, "--group", name)
    resolve(session, "dev", *everything, "--group", "dev")
    # without pandas, as for mlflow's cells
    resolve(session, "docs", *everything, "--group", "docs")
    newest = max(LOCKS.glob("mlflow_server-*.in"))  # the whole of MLflow, for its UI
    resolve(session, "web", str(newest), *everything, "--group", "web")
    resolve(session, "benchmarks", str(newest), *everything, "--group", "benchmarks")


def resolve(session: nox.Session, name: str, *sources: str) -> None:
    """Write one lock: for every platform, with hashes, without this repository's own distributions."""
    ours = ("rolecall", *(Path(path).name for path in PLUGINS))
    omit = [argument for name in ours for argument in ("--no-emit-package", name)]
    session.run(
        *("uv", "pip", "compile", "--quiet", "--universal", "--python-version", "3.11", "--generate-hashes"),
        *("--custom-compile-command", "nox -s lock", "--output-file", f"{LOCKS}/{name}.txt"),
        *omit,
        *sources,
        *session.posargs,
        silent=True,
    )
