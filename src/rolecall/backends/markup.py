"""Makes HTML of Markdown, for trackers that show HTML and no Markdown.

Of CommonMark and GitHub's tables, what models and people write: headings, paragraphs, emphasis, code, quotes, lists,
tables, rules and links. Anything else stays as it was written. Nothing in the text is markup of its own, as a model may
have written it.
"""

import re
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from html import escape
from typing import Final

_STYLE: Final = (
    "body{font:14px/1.5 sans-serif;margin:8px}pre,code{background:#8882}pre{padding:8px;overflow:auto}"
    "table{border-collapse:collapse}td,th{border:1px solid #8888;padding:2px 8px}"
    "blockquote{border-left:3px solid #8888;margin-left:0;padding-left:12px}"
)
_FENCE: Final = re.compile(r" {0,3}(`{3,}|~{3,})")
_HEADING: Final = re.compile(r" {0,3}(#{1,6}) +(.*?)(?: +#+)? *$")
_RULE: Final = re.compile(r" {0,3}([-*_])(?: *\1){2,} *$")
_QUOTE: Final = re.compile(r" {0,3}> ?(.*)$")
_ITEM: Final = re.compile(r"( {0,3}(?:[-*+]|(\d{1,9})[.)]) +)(.*)$")
_COLUMNS: Final = re.compile(r" {0,3}(?=.*\|)[-| :]*-[-| :]*$")
_BAR: Final = re.compile(r"(?<!\\)\|")
# The first that matches at a place. Bounds, as without them a crafted text would take hours.
_INLINE: Final = re.compile(
    r"\\(?P<plain>[!-/:-@\[-`{-~])"
    r"|(?P<ticks>`{1,9})(?P<code>[^`](?:.{0,500}?[^`])?)(?P=ticks)(?!`)"
    r"|\[(?P<label>[^\[\]]{0,500})\]\((?P<to>https?://[^\s()<>\"]{1,500})\)"
    r"|(?P<strong>\*\*|__)(?=\S)(?P<bold>.{1,500}?)(?<=\S)(?P=strong)"
    r"|(?<![\w*])(?P<em>[*_])(?=[^\s*_])(?P<slanted>[^*_]{1,500})(?<=\S)(?P=em)(?![\w*])",
    re.DOTALL,
)
_LONGEST: Final = 200_000
"""Characters that are shown: a browser takes long for more, and so does this."""
_DEEPEST: Final = 8
"""Of quotes and lists in one another: beyond that, the text is as it was written."""


def html_of(markdown: str) -> str:
    """A page that shows the text: without scripts, and with nothing from elsewhere."""
    left = len(markdown) - _LONGEST
    more = f"<p>{left} more characters are in the job's directory.</p>" if left > 0 else ""
    body = "\n".join([*_blocks(markdown[:_LONGEST].expandtabs(4).splitlines(), 0), more])
    return f'<!DOCTYPE html>\n<meta charset="utf-8">\n<style>{_STYLE}</style>\n{body}\n'


def _blocks(lines: Sequence[str], depth: int) -> Iterator[str]:
    at = 0
    while at < len(lines):
        line = lines[at]
        if not line.strip():
            at += 1
            continue
        at, html = next(filter(None, (make(lines, at, depth) for make in _MAKERS)))
        yield html


_Made = tuple[int, str] | None
"""Where the lines of the block that begins at a line end, and its HTML; `None` if no such block begins there."""


def _fenced(lines: Sequence[str], at: int, depth: int) -> _Made:
    if not (fence := _FENCE.match(lines[at])):
        return None
    end = _until(lines, at + 1, lambda line: line.strip().startswith(fence[1]))
    return end + 1, _code(lines[at + 1 : end])


def _indented(lines: Sequence[str], at: int, depth: int) -> _Made:
    end = _until(lines, at, lambda line: bool(line.strip()) and not line.startswith("    "))
    return (end, _code([line[4:] for line in lines[at:end]])) if end > at else None


def _single(lines: Sequence[str], at: int, depth: int) -> _Made:
    """A heading or a rule."""
    if heading := _HEADING.match(lines[at]):
        return at + 1, f"<h{len(heading[1])}>{_inline(heading[2])}</h{len(heading[1])}>"
    return (at + 1, "<hr>") if _RULE.match(lines[at]) else None


def _quoted(lines: Sequence[str], at: int, depth: int) -> _Made:
    end = _until(lines, at, lambda line: not _QUOTE.match(line)) if depth < _DEEPEST else at
    inside = [_QUOTE.sub(r"\1", line) for line in lines[at:end]]
    return (end, f"<blockquote>{''.join(_blocks(inside, depth + 1))}</blockquote>") if end > at else None


def _listed(lines: Sequence[str], at: int, depth: int) -> _Made:
    if depth == _DEEPEST or not (first := _ITEM.match(lines[at])):
        return None
    items: list[str] = []
    while at < len(lines) and (item := _ITEM.match(lines[at])) and (item[2] is None) == (first[2] is None):
        # What is indented as the item's text is belongs to it.
        edge = " " * len(item[1])
        end = _until(lines, at + 1, partial(_is_left_of, edge))
        inside = [item[3], *(line.removeprefix(edge) for line in lines[at + 1 : end])]
        blocks = [*_blocks(inside, depth + 1), ""]
        items.append("".join([blocks[0].removeprefix("<p>").removesuffix("</p>"), *blocks[1:]]))
        at = end
    kind = "ul" if first[2] is None else "ol"
    start = "" if first[2] is None else f' start="{int(first[2])}"'
    return at, f"<{kind}{start}>{''.join(f'<li>{item}</li>' for item in items)}</{kind}>"


def _is_left_of(edge: str, line: str) -> bool:
    return bool(line.strip()) and not line.startswith(edge)


def _table(lines: Sequence[str], at: int, depth: int) -> _Made:
    if at + 1 == len(lines) or "|" not in lines[at] or not _COLUMNS.match(lines[at + 1]):
        return None
    end = _until(lines, at + 2, lambda line: "|" not in line)
    rows = [_row(line, "td") for line in lines[at + 2 : end]]
    return end, f"<table>{_row(lines[at], 'th')}{''.join(rows)}</table>"


def _row(line: str, tag: str) -> str:
    cells = _BAR.split(line.strip().removeprefix("|").removesuffix("|"))
    return f"<tr>{''.join(f'<{tag}>{_inline(cell.strip())}</{tag}>' for cell in cells)}</tr>"


def _paragraph(lines: Sequence[str], at: int, depth: int) -> tuple[int, str]:
    starts = (_FENCE, _HEADING, _RULE, _QUOTE, _ITEM)
    end = _until(lines, at + 1, lambda line: not line.strip() or any(start.match(line) for start in starts))
    return end, f"<p>{_inline(chr(10).join(line.strip() for line in lines[at:end]))}</p>"


_MAKERS: Final[Sequence[Callable[[Sequence[str], int, int], _Made]]] = (
    *(_fenced, _indented, _single, _quoted, _listed, _table),
    _paragraph,
)


def _until(lines: Sequence[str], at: int, ends: Callable[[str], bool]) -> int:
    """The first line from `at` on that ends a block; how many there are if none does."""
    return next((number for number in range(at, len(lines)) if ends(lines[number])), len(lines))


def _code(lines: Sequence[str]) -> str:
    return f"<pre>{escape(chr(10).join(lines))}</pre>"


def _inline(text: str) -> str:
    """The HTML of a text in a block."""
    html, at = "", 0
    for found in _INLINE.finditer(text):
        html += escape(text[at : found.start()])
        at = found.end()
        match found.lastgroup:
            case "plain":
                html += escape(found["plain"])
            case "code":
                html += f"<code>{escape(found['code'])}</code>"
            case "to":
                html += f'<a href="{escape(found["to"])}" rel="noreferrer">{escape(found["label"])}</a>'
            case "bold":
                html += f"<strong>{_inline(found['bold'])}</strong>"
            case _:
                html += f"<em>{_inline(found['slanted'])}</em>"
    return html + escape(text[at:])
