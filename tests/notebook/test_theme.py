"""The theme of figures: colours that everybody can tell apart, texts that are what they say, times in words."""

from __future__ import annotations

import itertools
from typing import Any

import numpy as np
import pytest

from dbos_notebook.figures import theme
from dbos_notebook.figures.theme import INKS, LOOKS, label, lasting, safe, short_id


def luminance(color: str) -> float:
    parts = [int(color[place : place + 2], 16) / 255 for place in (1, 3, 5)]
    linear = [part / 12.92 if part <= 0.04045 else ((part + 0.055) / 1.055) ** 2.4 for part in parts]
    return 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2]


def contrast(one: str, other: str) -> float:
    bright, dark = sorted((luminance(one), luminance(other)), reverse=True)
    return (bright + 0.05) / (dark + 0.05)


@pytest.mark.parametrize("ground", ["#FFFFFF", "#111111"])
def test_bars_stand_out_from_both_grounds(ground: str) -> None:
    assert all(contrast(look.color, ground) >= 3 for look in LOOKS.values())


@pytest.mark.parametrize(
    ("style", "ground", "least"),
    [("light", "#FFFFFF", 4.5), ("dark", "#111111", 4.5), ("auto", "#FFFFFF", 4.5), ("auto", "#111111", 4)],
)
def test_texts_stand_out_from_their_ground(style: theme.Theme, ground: str, least: float) -> None:
    assert contrast(INKS[style].text, ground) >= least
    assert contrast(INKS[style].faint, ground) >= least


def test_statuses_differ_in_word_and_glyph_too() -> None:
    for field in ("color", "glyph", "word"):
        assert len(LOOKS) == len({getattr(look, field) for look in LOOKS.values()})


def as_seen(color: str) -> Any:
    """A colour as somebody sees it who sees no green."""
    parts = np.array([int(color[place : place + 2], 16) / 255 for place in (1, 3, 5)])
    linear = np.where(parts <= 0.04045, parts / 12.92, ((parts + 0.055) / 1.055) ** 2.4)
    deuteranopia = np.array([[0.367, 0.861, -0.228], [0.280, 0.673, 0.047], [-0.012, 0.043, 0.969]])
    return np.clip(deuteranopia @ linear, 0, 1) ** (1 / 2.2)


def test_success_failure_and_running_differ_for_the_colour_blind() -> None:
    for one, other in itertools.combinations(("SUCCESS", "ERROR", "PENDING"), 2):
        assert np.abs(as_seen(LOOKS[one].color) - as_seen(LOOKS[other].color)).max() > 0.2


@pytest.mark.parametrize(
    ("seconds", "expected"),
    [
        (0, "0 s"), (0.0004, "0.4 ms"), (0.012, "12 ms"), (0.9996, "1 s"), (3.456, "3.46 s"), (59.99, "60 s"),
        (60, "1 min"), (125, "2 min 5 s"), (3_600, "1 h"), (7_800, "2 h 10 min"), (7_830, "2 h 10 min"),
        (86_399, "24 h"), (90_000, "1 d 1 h"), (-3, "-3 s"), (None, ""), (float("nan"), ""), (1e9, "11574 d 2 h"),
    ],
)  # fmt: skip
def test_durations_are_told_as_people_say_them(seconds: float | None, expected: str) -> None:
    assert expected == lasting(seconds)


def test_texts_are_made_safe_and_short() -> None:
    assert "&lt;b&gt; &amp; &#36;x&#36;" == safe("<b> & $x$")
    assert ["", "", "3"] == [safe(None), safe(float("nan")), safe(3)]
    assert "a b" == safe("a\r\n\u200bb")
    assert 44 == len(label("x" * 100))
    assert "7f3a91bc…a-12" == short_id("7f3a91bc-1d2c-4b5a-12")
