"""What all figures share: colours, words for statuses, escaping, times in words, and the bare layout.

A status is told by its colour and by its word or glyph, never by the colour alone. The colours tell each other apart
for colour-blind readers too and have a contrast of 3:1 at least on white and on the dark ground of notebooks; the
ground itself is left transparent. Texts of users pass through `safe` or `label`, because plotly reads pseudo-HTML and
TeX in every text it draws.
"""

from __future__ import annotations

import math
import re
from typing import Any, Literal, NamedTuple

import pandas as pd
import plotly.graph_objects as go

from dbos_notebook import signs
from dbos_notebook.figures.drawing import Drawing
from dbos_notebook.signs import SIGNS

Theme = Literal["auto", "light", "dark"]


class Look(NamedTuple):
    """How a status looks."""

    color: str
    glyph: str
    word: str
    #: The pattern of its bars, for those who see no colours.
    pattern: str = ""


# The word of each status, and its pattern.
SAID = {
    "SUCCESS": ("success", ""),
    "ERROR": ("error", "/"),
    "MAX_RECOVERY_ATTEMPTS_EXCEEDED": ("gave up", "x"),
    "CANCELLED": ("cancelled", "."),
    "PENDING": ("running", ""),
    "ENQUEUED": ("enqueued", ""),
    "DELAYED": ("delayed", ""),
}
LOOKS = {status: Look(SIGNS[status].color, SIGNS[status].glyph, *said) for status, said in SAID.items()}
UNKNOWN = Look(signs.UNKNOWN.color, signs.UNKNOWN.glyph, "unknown")
# Waits have no outcome worth a colour: an outline.
WAIT = "#8A8A8A"


class Ink(NamedTuple):
    """The colours of texts and lines. `auto` is readable on both grounds, as far as one grey can be."""

    text: str
    faint: str
    grid: str
    #: Behind hover texts.
    paper: str


INKS: dict[Theme, Ink] = {
    "auto": Ink("#757575", "#757575", "rgba(128,128,128,0.25)", "#F7F7F7"),
    "light": Ink("#24292F", "#59636E", "rgba(36,41,47,0.14)", "#FFFFFF"),
    "dark": Ink("#E6E6E6", "#A9B1BA", "rgba(230,230,230,0.18)", "#22272E"),
}
FONT = "-apple-system, 'Segoe UI', system-ui, Roboto, 'Helvetica Neue', 'DejaVu Sans', sans-serif"
LONGEST_LABEL = 44
TIMES = "\u00d7"
# The height of a row; above the picture the title, the line below it and one more; and below it axis and legend.
ROW, HEAD, LINE, FOOT = 22, 38, 20, 92
# What hides or turns text around, and what ends a line.
_CONTROL = re.compile(r"[\x00-\x1f\x7f-\x9f\u200b-\u200f\u2028-\u202e\u2060-\u2069\ufeff]+")


# -- texts -----------------------------------------------------------------------------------------------------


def safe(text: object) -> str:
    """A text that plotly draws as it is: no tags, no TeX, one line."""
    if not isinstance(text, str):
        return "" if text is None or text is pd.NA or text != text else safe(str(text))  # noqa: PLR0124 - NaN is not itself
    plain = _CONTROL.sub(" ", text)
    for sign, entity in (("&", "&amp;"), ("<", "&lt;"), (">", "&gt;"), ("$", "&#36;")):
        plain = plain.replace(sign, entity)
    return plain


def short(text: object, most: int = LONGEST_LABEL) -> str:
    """The beginning of a text, with dots where the rest was."""
    told = text if isinstance(text, str) else ""
    return told if len(told) <= most else f"{told[: most - 1]}…"


def label(text: object, most: int = LONGEST_LABEL) -> str:
    """A short and safe text."""
    return safe(short(text, most))


def short_id(workflow_id: object) -> str:
    """What is enough of an id to know it again: children of one workflow differ at the end of theirs."""
    told = workflow_id if isinstance(workflow_id, str) else ""
    return told if len(told) <= 14 else f"{told[:8]}…{told[-4:]}"


def look_of(status: object) -> Look:
    return LOOKS.get(status, UNKNOWN) if isinstance(status, str) else UNKNOWN


def faded(color: str) -> str:
    """A colour that lets three quarters of the ground through."""
    red, green, blue = (int(color[place : place + 2], 16) for place in (1, 3, 5))
    return f"rgba({red},{green},{blue},0.25)"


def told(status: object) -> str:
    """A status in words and as a glyph."""
    look = look_of(status)
    return f"{look.glyph} {look.word}"


UNITS = ((86_400.0, "d"), (3_600.0, "h"), (60.0, "min"))


def lasting(seconds: float | None) -> str:
    """A duration as people say it: 12 ms, 3.4 s, 2 min 5 s, 2 h 10 min, 3 d 4 h."""
    if seconds is None or not math.isfinite(seconds):
        return ""
    if seconds < 0:
        return f"-{lasting(-seconds)}"
    if seconds < 0.9995:
        return f"{seconds * 1000:.3g} ms" if seconds else "0 s"
    if seconds < 60:
        return f"{seconds:.3g} s"
    for place, (size, unit) in enumerate(UNITS):
        if seconds >= size:
            lower, lower_unit = UNITS[place + 1] if place + 1 < len(UNITS) else (1.0, "s")
            whole, rest = divmod(round(seconds / lower), round(size / lower))
            return f"{whole} {unit} {rest} {lower_unit}" if rest else f"{whole} {unit}"
    return ""


# -- times -----------------------------------------------------------------------------------------------------


def seconds_of(moments: Any, origin: Any = None) -> Any:
    """Times as seconds, since `origin` if it is given; NaN where one is missing."""
    index = pd.DatetimeIndex(moments)
    numbers = index.as_unit("us").asi8.astype("float64") / 1e6
    numbers[index.isna()] = math.nan
    return numbers if origin is None else numbers - pd.Timestamp(origin).timestamp()


def clock_now() -> pd.Timestamp:
    return pd.Timestamp.now(tz="UTC")


# -- the layout ------------------------------------------------------------------------------------------------


def figure(
    theme: Theme, title: str, room: int, *, subtitle: str = "", line: bool = False, foot: int = FOOT
) -> go.Figure:
    """An empty figure on a transparent ground, without the bulk of a template.

    `title` is safe already. `room` is the height of the picture itself, above which there may be one more `line`.
    """
    head = HEAD + LINE * (bool(subtitle) + line)
    ink = INKS[theme]
    made = Drawing(layout={"template": "none"})
    heading = {
        "text": title,
        "x": 0,
        "xref": "container",
        "pad": {"l": 12},
        "y": 1,
        "yref": "container",
        "yanchor": "top",
    }
    heading |= {"pad": {"l": 12, "t": 12}, "font": {"size": 14, "color": ink.text}}
    if subtitle:
        heading["subtitle"] = {"text": subtitle, "font": {"size": 12, "color": ink.faint}}
    made.update_layout(
        title=heading,
        height=head + room + foot,
        autosize=True,
        margin={"l": 12, "r": 16, "t": head, "b": foot},
        paper_bgcolor="rgba(0,0,0,0)",
        plot_bgcolor="rgba(0,0,0,0)",
        font={"family": FONT, "size": 12, "color": ink.text},
        hoverlabel={
            "bgcolor": ink.paper,
            "font": {"color": INKS["dark" if theme == "dark" else "light"].text},
            "align": "left",
        },
        legend={"orientation": "h", "x": 0, "y": 0.005, "yref": "container", "yanchor": "bottom", "font": {"size": 12}},
        barmode="overlay",
    )
    return made


def axis(theme: Theme, **more: Any) -> dict[str, Any]:
    """A quiet axis."""
    ink = INKS[theme]
    plain = {"showgrid": True, "gridcolor": ink.grid, "zeroline": False, "showline": False, "ticks": ""}
    return {**plain, "tickfont": {"color": ink.faint, "size": 11}, "automargin": True, **more}


def empty(theme: Theme, title: str, hint: str) -> go.Figure:
    """A picture of nothing, that says what would be here."""
    made = figure(theme, title, 80, foot=20)
    hidden = {"visible": False, "range": [0, 1]}
    made.update_layout(xaxis=hidden, yaxis=hidden)
    made.add_annotation(x=0.5, y=0.5, text=hint, showarrow=False, font={"color": INKS[theme].faint})
    return made


NICE_SECONDS = (
    0.001, 0.002, 0.005, 0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1, 2, 5, 10, 15, 30, 60, 120, 300, 600, 900, 1800, 3600, 7200,
    10_800, 21_600, 43_200, 86_400, 172_800, 604_800, 1_209_600, 2_592_000, 7_776_000, 31_536_000,
)  # fmt: skip


def nice_step(span: float, most: int) -> float:
    """The smallest round number of seconds of which a span holds `most` at the most."""
    return next((step for step in NICE_SECONDS if span <= step * most), span / most)
