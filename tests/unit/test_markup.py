"""Markdown as HTML: what people and models write is shown, nothing of it runs, and no text takes long."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from rolecall.backends.markup import html_of


def body(markdown: str) -> str:
    return html_of(markdown).split("</style>\n", 1)[1].strip()


@pytest.mark.parametrize(
    ("markdown", "html"),
    [
        ("one\ntwo\n\nthree", "<p>one\ntwo</p>\n<p>three</p>"),
        ("# A *b*\n### C ###", "<h1>A <em>b</em></h1>\n<h3>C</h3>"),
        ("**a _b_** and __c__", "<p><strong>a <em>b</em></strong> and <strong>c</strong></p>"),
        ("2 * 3 * 4, a_b_c, \\*d\\*", "<p>2 * 3 * 4, a_b_c, *d*</p>"),
        ("`a*b*` ``c`d``", "<p><code>a*b*</code> <code>c`d</code></p>"),
        ("```python\nx < 1\n\n# y\n```\nz", "<pre>x &lt; 1\n\n# y</pre>\n<p>z</p>"),
        ("~~~\nnever closed", "<pre>never closed</pre>"),
        ("    code", "<pre>code</pre>"),
        ("- a\n- b\n  - c\n\n- d", "<ul><li>a</li><li>b<ul><li>c</li></ul></li><li>d</li></ul>"),
        ("3. a\n4. b", '<ol start="3"><li>a</li><li>b</li></ol>'),
        ("-", "<p>-</p>"),
        ("> a\n> > b", "<blockquote><p>a</p><blockquote><p>b</p></blockquote></blockquote>"),
        ("| a |\n|:--|\n| x\\|y |", "<table><tr><th>a</th></tr><tr><td>x|y</td></tr></table>"),
        ("a\n\n---\n\n* * *", "<p>a</p>\n<hr>\n<hr>"),
        ("[a](https://b.c/?d=1&e)", '<p><a href="https://b.c/?d=1&amp;e" rel="noreferrer">a</a></p>'),
    ],
)  # fmt: skip
def test_what_is_written_is_shown(markdown: str, html: str) -> None:
    assert body(markdown) == html


@pytest.mark.parametrize(
    "evil",
    [
        "<script>alert(1)</script>",
        "`<img src=x onerror=alert(1)>`",
        "```\n</pre><script>\n```",
        "[a](javascript:alert(1))",
        '[a](https://b"onmouseover="alert(1))',
        "| <b> |\n|--|\n| <i> |",
        "![a](https://b.c/track.gif)",
    ],
)
def test_nothing_is_markup_of_its_own(evil: str) -> None:
    html = body(evil)
    for found in ("<script", "<img", "<b>", "<i>", 'href="javascript', '"onmouseover'):
        assert found not in html


@given(st.text(st.sampled_from("ab \n*_`#>-|[]()1.\\<&\"'~:/"), max_size=80))
@settings(deadline=None)
def test_any_text_is_shown(markdown: str) -> None:
    html = body(markdown)
    assert html.count("<p>") == html.count("</p>")
    assert "<script" not in html


@pytest.mark.parametrize("piece", ["*", "**a ", "`", "`a", "[", "> ", "- ", "_a", "|-", "\n", "- a\n", "x\n", "# a\n"])
def test_crafted_text_takes_no_time(piece: str) -> None:
    # What took time with the square of its length would be ended by the time limit of all tests.
    html = html_of(piece * (1_000_000 // len(piece)))
    assert "more characters are in the job's directory" in html
