"""What comes from a run is text in every view: escaped, cut, cleaned, and readable without styles."""

from __future__ import annotations

import ast
import re
from html.parser import HTMLParser
from pathlib import Path

import pytest

from dbos_notebook.frames import STATUSES
from dbos_notebook.views import html
from dbos_notebook.views.html import (
    LOOKS,
    Markup,
    bar,
    clean,
    cut,
    element,
    escape,
    facts,
    fitting,
    fold,
    line,
    page,
    table,
)

NOTEBOOK = Path(html.__file__).parents[1]
HOSTILE = "<script>alert(1)</script> $x^2$ \\(y\\) \\begin{align} \x1b[31mred\x1b[0m \x07 \u202eback \ud800 'q' \"q\" &"


class Reader(HTMLParser):
    """What a page holds: its elements, their attributes, its words."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.tags: list[str] = []
        self.attributes: list[tuple[str, str | None]] = []
        self.words = ""
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append(tag)
        self.attributes += attrs

    def handle_data(self, data: str) -> None:
        self.words += data


def test_text_is_escaped_wherever_it_stands() -> None:
    made = page(
        element("p", HOSTILE, title=HOSTILE),
        table(HOSTILE, [HOSTILE], [[HOSTILE]]),
        fold(HOSTILE, HOSTILE),
        facts([(HOSTILE, HOSTILE)]),
    )

    found = Reader(made)
    assert "script" not in found.tags
    assert 8 == found.words.count("<script>alert(1)</script>")
    assert not [name for name, _ in found.attributes if name.startswith("on")]


def test_markup_is_what_this_module_made_and_nothing_else() -> None:
    made = element("b", "x")

    assert "<i><b>x</b></i>" == element("i", made)
    assert "&lt;b&gt;" in escape(made + "<b>")


@pytest.mark.parametrize("text", ["$x$", "a $$x$$ b", "\\(x\\)", "\\[x\\]", "\\begin{align}x\\end{align}"])
def test_tex_is_not_typeset(text: str) -> None:
    """What begins a formula stands alone in an element, and the page says that it has none."""
    made = page(text)

    assert not re.search(r"\$\w|\$\$|\\\(|\\\[|\\begin", made)
    assert "mathjax_ignore" in made
    assert text == Reader(made).words


def test_codes_of_terminals_are_taken_out() -> None:
    assert "red plain" == clean("\x1b[1;31mred\x1b[0m plain")
    assert "hi" == clean("\x1b]0;title\x07hi\x1b[2J\x1bc")


def test_characters_that_act_or_hide_are_shown() -> None:
    assert "\\x07 \\x9b \\u202e \\u200b \\ud800 \\x0d" == clean("\x07 \x9b \u202e \u200b \ud800 \r")
    assert "a\n\tb é 名" == clean("a\r\n\tb é 名")


def test_a_cut_text_says_how_much_there_is_and_how_to_get_it() -> None:
    assert "aaaaa... (1,000 characters; all: %dbos steps 7f3a)" == cut("a" * 1000, 5, "all: %dbos steps 7f3a")
    assert "aaaaa... (10,000,000 characters)" == line("a" * 10_000_000, 5)
    assert "a b c" == line(" a\n b\t c ", 5)


def test_a_page_keeps_its_budget_and_says_what_is_left_out() -> None:
    made = page(*[element("p", "x" * 1000)] * 200)

    assert len(made.encode()) < html.BUDGET_BYTES
    assert re.search(r"\d+ parts of this output are left out", made)


def test_text_keeps_its_budget_and_says_what_is_left_out() -> None:
    made = fitting(["x" * 100] * 1000)

    assert len(made.encode()) < html.TEXT_BYTES
    assert re.search(r"\d+ more lines are left out", made)


def test_a_table_has_a_caption_and_scopes() -> None:
    made = table("steps", ["step", "status"], [["1", "ok"], ["across"]])

    found = Reader(made)
    assert ["table", "caption", "thead", "tr", "th", "th", "tbody", "tr", "th", "td", "tr", "td"] == found.tags
    assert [("scope", "col"), ("scope", "col"), ("scope", "row")] == [e for e in found.attributes if e[0] == "scope"]
    assert ("colspan", "2") in found.attributes


@pytest.mark.parametrize(
    ("start", "end", "expected"),
    [
        (0, 1, "██████████"),
        (0, 0.5, "█████     "),
        (0.5, 1, "     █████"),
        (0.2, 0.25, "  ▌       "),
        (0.99, 0.99, "         ▏"),
        (1, 1, "         ▏"),
        (0.5, 0.2, "     ▏    "),
        (-3, 9, "██████████"),
    ],
)
def test_a_bar_is_characters_of_one_width(start: float, end: float, expected: str) -> None:
    assert expected == bar(start, end, 10).replace("\u00a0", " ")


@pytest.mark.parametrize("status", [*STATUSES, "NEW_ONE", None])
def test_a_status_is_a_glyph_and_a_word(status: str | None) -> None:
    made = html.status_mark(status)

    assert (status or "unknown") in Reader(made).words
    assert html.look(status).glyph in Reader(made).words
    assert (status or "unknown") in html.status_text(status)


@pytest.mark.parametrize("look", LOOKS.values(), ids=lambda look: look.word)
def test_colors_stand_out_on_white_and_on_black(look: html.Look) -> None:
    """Only glyphs and bars have them, for which 3:1 is asked; words have the color of the page's text."""
    own = luminance(look.color)

    assert (1.05 / (own + 0.05)) >= 3
    assert ((own + 0.05) / (luminance("#111111") + 0.05)) >= 3


def luminance(color: str) -> float:
    parts = [int(color[at : at + 2], 16) / 255 for at in (1, 3, 5)]
    linear = [each / 12.92 if each <= 0.04045 else ((each + 0.055) / 1.055) ** 2.4 for each in parts]
    return 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2]


@pytest.mark.parametrize(
    "file", [file for file in NOTEBOOK.rglob("*.py") if file != Path(html.__file__)], ids=lambda file: file.stem
)
def test_no_other_module_writes_html(file: Path) -> None:
    written = [
        node.value
        for node in ast.walk(ast.parse(file.read_text()))
        if isinstance(node, ast.Constant) and isinstance(node.value, str) and re.search(r"</\w+>", node.value)
    ]
    # Plotly's own labels know a few tags; they are not HTML of ours.
    assert [] == [each for each in written if "figures" not in str(file)]


def test_a_markup_is_a_text() -> None:
    assert isinstance(page("x"), Markup)
