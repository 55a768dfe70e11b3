"""Writes the page as one HTML file, which contains its script and style and requests nothing else."""

import base64
import hashlib
import html
from functools import cache
from importlib.resources import files
from typing import Final

_SCRIPTS: Final = ("uplot/uPlot.iife.min.js", "elements.js", "charts.js", "cards.js", "page.js")
_STYLES: Final = ("uplot/uPlot.min.css", "page.css")
_PAGE: Final = """<!DOCTYPE html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta http-equiv="Content-Security-Policy" content="{policy}">
<meta http-equiv="x-dns-prefetch-control" content="off">
<meta name="referrer" content="no-referrer">
<meta name="color-scheme" content="light dark">
<meta name="viewport" content="width=device-width, initial-scale=1">
<title>{title}</title>
<style>{style}</style>
</head>
<body>
<noscript>This page draws its charts with JavaScript, which is off here.</noscript>
<div id="page"></div>
<script type="application/json" id="data">"""
_END: Final = "</script>\n<script>{script}</script>\n</body>\n</html>\n"


def document(title: str, data: bytes) -> bytes:
    """A page.

    Args:
        title: what a browser shows in its tab.
        data: what the script draws, as `as_json` makes it.
    """
    script, digest = _script()
    # 'unsafe-inline' is for styles alone, and for the HTML that a role logged, which is shown in a frame of its own.
    policy = (
        f"default-src 'none'; script-src 'sha256-{digest}'; style-src 'unsafe-inline'; img-src data:; media-src data:; "
        "base-uri 'none'; form-action 'none'"
    )
    style = "\n".join(_asset(name) for name in _STYLES)
    start = _PAGE.format(policy=html.escape(policy), title=html.escape(title), style=style)
    return start.encode() + data + _END.format(script=script).encode()


@cache
def _script() -> tuple[str, str]:
    """All scripts, and the digest that the policy names: no other script runs."""
    script = "\n".join(_asset(name) for name in _SCRIPTS)
    return script, base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()


@cache
def _asset(name: str) -> str:
    return files("rolecall.cli.page").joinpath("assets", *name.split("/")).read_text("utf-8")
