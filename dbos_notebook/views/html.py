"""The one place where HTML is written: whatever comes from a run is cleaned, cut and escaped here.

Only a `Markup` counts as HTML; every other text is escaped on its way in. What is made has no script, no link and
no need of its styles: bars are characters and a status is a glyph and a word, so that it reads as text where styles
are taken away. It inherits its colours, so that it fits a dark page too.
"""

from __future__ import annotations

import html
import re
from collections.abc import Iterable, Sequence
from typing import NamedTuple

from dbos_notebook import signs

# One output, all its forms together. Longer ones make notebooks that cannot be saved or looked through.
BUDGET_BYTES = 64 * 1024
HTML_BYTES, TEXT_BYTES = 46 * 1024, 16 * 1024

ANSI = re.compile(r"\x1b\[[0-?]*[ -/]*[@-~]|\x1b[\]PX^_][^\x07\x1b]*(?:\x07|\x1b\\)?|\x1b[@-Z\\-~]?")
# Control characters, what changes the direction of the text, what is invisible, and halves of characters.
STRANGE = re.compile("[\x00-\x08\x0b-\x1f\x7f-\x9f\u200b\u200e\u200f\u2028-\u202e\u2060-\u206f\ufeff\ud800-\udfff]")
# A page that knows TeX would typeset what stands between these; an element between them hides them from it.
TEX = re.compile(r"\$|\\(?=[(\[]|begin)")

FOREGROUND = "var(--jp-ui-font-color1,var(--vscode-editor-foreground,inherit))"
MONO = "font-family:var(--jp-code-font-family,var(--vscode-editor-font-family,monospace))"
STYLES = {
    "root": f"color:{FOREGROUND};background:transparent;font-size:13px;line-height:1.4;max-width:100%;overflow-x:auto",
    "table": "border-collapse:collapse;margin:4px 0;font-size:12px;color:inherit",
    "caption": "text-align:left;padding:2px 0;caption-side:top;color:inherit",
    # On every cell, so short: pages of notebooks turn numbers and texts to the right.
    "cell": "text-align:left;padding:1px 9px 1px 0",
    "bar": "font-family:monospace;white-space:pre",
    "mono": f"{MONO};white-space:pre-wrap;overflow-wrap:anywhere;margin:2px 0;color:inherit;background:transparent",
    "note": "font-style:italic",
}


# The head of a page of its own; nothing of a run is in it.
HEAD = (
    '<meta charset="utf-8"><meta name="viewport" content="width=device-width">'
    "<meta http-equiv=\"Content-Security-Policy\" content=\"default-src 'none'; style-src 'unsafe-inline'\">"
    "<style>body{font:15px/1.5 system-ui,sans-serif;margin:2rem auto;max-width:70rem;padding:0 1rem}"
    "@media(prefers-color-scheme:dark){body{background:#111;color:#ddd}}</style>"
)


class Look(NamedTuple):
    """How a status is shown: a glyph, a word, and a colour that stands out on white and on black (3:1)."""

    glyph: str
    word: str
    color: str


WORDS = {"MAX_RECOVERY_ATTEMPTS_EXCEEDED": "GAVE UP (MAX_RECOVERY_ATTEMPTS_EXCEEDED)"}
LOOKS = {status: Look(sign.glyph, WORDS.get(status, status), sign.color) for status, sign in signs.SIGNS.items()}
UNKNOWN = Look(signs.UNKNOWN.glyph, "", signs.UNKNOWN.color)
EIGHTHS = " \u258f\u258e\u258d\u258c\u258b\u258a\u2589\u2588"
FULL = EIGHTHS[-1]


class Markup(str):
    """HTML that this module made."""

    __slots__ = ()


Child = str | int | float | None | Iterable["Child"]


def clean(text: str) -> str:
    """The text without ANSI codes; characters that act or hide are shown as their escapes."""
    if text.isprintable():
        return text
    return STRANGE.sub(_shown, ANSI.sub("", text.replace("\r\n", "\n")))


def _shown(found: re.Match[str]) -> str:
    code = ord(found.group())
    return f"\\x{code:02x}" if code < 0x100 else f"\\u{code:04x}"


def cut(text: str, limit: int, how: str = "") -> str:
    """At most `limit` characters of a text; where more follows it says how much, and how to get it."""
    if len(text) <= limit:
        return text
    rest = f"{len(text):,} characters" + (f"; {how}" if how else "")
    return f"{text[:limit]}... ({rest})"


def line(text: str, limit: int, how: str = "") -> str:
    """A text on one line: what stands in a cell of a table."""
    # Cut first: a text of megabytes is not searched for what nobody will see.
    head = text[: 4 * limit]
    flat = " ".join(clean(head).split())
    if len(text) <= len(head) and len(flat) <= limit:
        return flat
    rest = f"{len(text):,} characters" + (f"; {how}" if how else "")
    return f"{flat[:limit]}... ({rest})"


def escape(child: Child) -> Markup:
    """HTML of a child: a `Markup` as it is, a list one after the other, anything else as text."""
    match child:
        case Markup():
            return child
        case None:
            return Markup("")
        case str():
            return Markup(TEX.sub(_hidden, html.escape(clean(child))))
        case int() | float():
            return Markup(html.escape(str(child)))
    return Markup("".join(escape(each) for each in child))


def _hidden(found: re.Match[str]) -> str:
    return f"<span>{found.group()}</span>"


def element(tag: str, *children: Child, style: str | None = None, **attributes: str | int | None) -> Markup:
    """An element; `style` is one of STYLES or CSS. An attribute's trailing underscore is dropped (`class_`)."""
    given: dict[str, str | int | None] = {"style": STYLES.get(style, style) if style else None, **attributes}
    written = "".join(
        f' {name.rstrip("_").replace("_", "-")}="{html.escape(clean(str(value)))}"'
        for name, value in given.items()
        if value is not None
    )
    return Markup(f"<{tag}{written}>{escape(children)}</{tag}>")


def page(*children: Child, budget: int = HTML_BYTES) -> Markup:
    """The root of an output. Children that do not fit any more are left out, and it says so."""
    kept, size, left_out = [], 400, 0
    for child in children:
        made = escape(child)
        size += len(made.encode())
        if size > budget:
            left_out += 1
        else:
            kept.append(made)
    if left_out:
        words = f"{left_out} parts of this output are left out: it would be longer than {BUDGET_BYTES // 1024} kB."
        kept.append(element("p", words, style="note"))
    # Both classes tell a page that knows TeX to leave this alone.
    return element("div", kept, class_="dbos-view mathjax_ignore tex2jax_ignore", style="root")


def document(title: str, body: Markup) -> str:
    """A page of its own, which loads nothing and runs nothing, whatever the browser is told."""
    head = Markup(HEAD + element("title", title))
    return f"<!doctype html>\n{element('html', element('head', head), element('body', body), lang='en')}\n"


def table(caption: Child, heads: Sequence[str], rows: Iterable[Markup | Sequence[Child]]) -> Markup:
    """A table of rows, or of their cells."""
    head = element("tr", [element("th", each, scope="col", style="cell") for each in heads])
    body = [each if isinstance(each, Markup) else row(each, len(heads)) for each in rows]
    return element(
        "table",
        element("caption", caption, style="caption"),
        element("thead", head),
        element("tbody", body),
        style="table",
    )


def row(cells: Sequence[Child], width: int) -> Markup:
    """A row of a table; its first cell is its heading. One cell alone goes across all columns."""
    if len(cells) == 1:
        return element("tr", element("td", cells[0], colspan=width, style="cell"))
    first, *rest = cells
    heading = element("th", first, scope="row", style=f"{STYLES['cell']};font-weight:normal")
    return element("tr", heading, [element("td", each, style="cell") for each in rest])


def facts(pairs: Iterable[tuple[str, Child]]) -> Markup:
    """A line of named facts; those without a value are left out."""
    shown = [[element("b", name), " ", value] for name, value in pairs if value not in (None, "")]
    return element("div", [[" \u00b7 ", each] if number else each for number, each in enumerate(shown)])


def pre(text: str) -> Markup:
    """Text whose lines count: printed lines, source, a traceback."""
    return element("pre", text, style="mono")


def fold(summary: Child, *children: Child, is_open: bool = False) -> Markup:
    """What is shown when asked for. Without styles it is simply there."""
    return element("details", element("summary", summary), *children, open="open" if is_open else None)


def look(status: str | None) -> Look:
    """How a status is shown; one that this version does not know is shown by its word."""
    return LOOKS.get(status or "", UNKNOWN._replace(word=status or "unknown"))


def status_mark(status: str | None) -> Markup:
    """A status for HTML: the glyph has the colour, the word the colour of the text, which is always readable."""
    found = look(status)
    return escape([element("span", found.glyph, style=f"color:{found.color}", aria_hidden="true"), " ", found.word])


def status_text(status: str | None) -> str:
    """A status for plain text."""
    found = look(status)
    return f"{found.glyph} {found.word}"


def bar(start: float, end: float, width: int = 20) -> str:
    """Where a part of the whole lies, in characters; both ends are fractions. Never empty, never wider than `width`."""
    start = min(max(start, 0.0), 1.0)
    end = min(max(end, start), 1.0)
    begin = min(int(start * width), width - 1)
    eighths = max(round((end - start) * width * 8), 1)
    full, rest = divmod(eighths, 8)
    blocks = (FULL * full + EIGHTHS[rest].strip())[: width - begin]
    # A space that is not folded away where styles are gone.
    return ("\u00a0" * begin + blocks).ljust(width, "\u00a0")


def colored_bar(status: str | None, start: float, end: float, width: int = 20) -> Markup:
    """The bar in the colour of its status."""
    return element("span", bar(start, end, width), style=f"{STYLES['bar']};color:{look(status).color}")


def fitting(lines: Sequence[str], budget: int = TEXT_BYTES) -> str:
    """Plain text of these lines, or of as many as fit and how many are missing."""
    kept: list[str] = []
    size = 80
    for each in lines:
        shown = clean(each)
        size += len(shown.encode()) + 1
        if size > budget:
            return "\n".join([*kept, f"... {len(lines) - len(kept):,} more lines are left out of this text"])
        kept.append(shown)
    return "\n".join(kept)
