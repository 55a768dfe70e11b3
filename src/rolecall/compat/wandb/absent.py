"""What wandb has and this module has not, with what to do instead."""

from typing import Final, NoReturn


class Error(Exception):
    """As `wandb.Error`: a call that makes no sense here, such as `log` before `init`."""


class UsageError(Error):
    """As `wandb.errors.UsageError`."""


class UnsupportedError(UsageError):
    """wandb can do this, and rolecall cannot; the message says what to do instead."""


_OWN_RUN: Final = "it needs wandb's server; run it with wandb itself"
_FILES: Final = "log it as a file: run.log_artifact(path, name=...)"
_ABSENT: Final = {
    **dict.fromkeys(("Api", "agent", "api", "controller", "sweep"), _OWN_RUN),
    **dict.fromkeys(("link_artifact", "link_model", "restore", "use_artifact", "use_model"), _OWN_RUN),
    **dict.fromkeys(("log_model", "save"), _FILES),
    "log_code": "rolecall records the git commit of the script by itself",
    "alert": "rolecall sends no messages; use your scheduler's, or call the chat service yourself",
    "mark_preempting": "a run that is started again goes on with resume='allow' and the same id",
    "plot": "log a figure of Matplotlib or Plotly, or the table that it is drawn from",
    "plot_table": "log a figure of Matplotlib or Plotly, or the table that it is drawn from",
    "Plotly": "log the figure itself",
    "unwatch": "log the norms or histograms of gradients that you need, with wandb.Histogram",
    "watch": "log the norms or histograms of gradients that you need, with wandb.Histogram",
    **dict.fromkeys(
        ("EvalTable", "Graph", "JoinedTable", "Molecule", "Object3D", "box3d"),
        "no other tracker has it; log an image, a table, or a file",
    ),
    "beta": _OWN_RUN,
    "sdk": "these are wandb's private modules",
    "apis": _OWN_RUN,
}


def explain_absent(owner: str, name: str) -> NoReturn:
    """Say that a name is not here.

    Raises:
        AttributeError: always, so that `hasattr` says no.
    """
    what = f"{owner} has no {name!r}"
    raise AttributeError(f"{what}: {_ABSENT[name]}" if name in _ABSENT else what, name=name)


def refuse(owner: str, why: str, **given: object) -> None:
    """Refuse arguments that were given, and that rolecall cannot do.

    Args:
        owner: the function or class.
        why: what to do instead.
        given: the arguments; one that is false counts as not given.

    Raises:
        UnsupportedError: there is one.
    """
    if names := [name for name, value in given.items() if value is not None and value is not False]:
        raise UnsupportedError(f"{owner}({', '.join(f'{name}=...' for name in names)}): {why}")
