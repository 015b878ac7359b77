"""Figures: what they show of frames, also of strange ones; how large they are, how fast, and readable by whom."""

from __future__ import annotations

import itertools
import json
import re
from collections.abc import Callable
from typing import Any

import numpy as np
import pandas as pd
import plotly.graph_objects as go
import pytest

from dbos_notebook.figures import queues, rates, timeline, tree
from dbos_notebook.figures.bars import MOST_LANES
from dbos_notebook.figures.folding import folding
from dbos_notebook.figures.theme import INKS
from tests.notebook.made import BEGAN, NOW, run, runs, step, steps

SOON = pd.Timestamp(BEGAN + 10_000, unit="ms", tz="UTC")
HOSTILE = "<script>alert(1)</script><a href='javascript:x'>$\\sqrt{2}$ %{y} &amp;\n\u202eevil\x1b[31m"
FIGURES: dict[str, Callable[..., go.Figure]] = {
    "timeline": lambda of, **more: timeline(steps(), of, **more),
    "tree": lambda of, **more: tree(of, **{name: value for name, value in more.items() if name != "now"}),
    "queues": queues,
    "rates": lambda of, **more: rates(of, **{name: value for name, value in more.items() if name != "now"}),
}


def texts(figure: go.Figure) -> list[str]:
    """All that a figure says."""
    found: list[str] = []

    def walk(value: Any) -> None:
        if isinstance(value, str):
            found.append(value)
        for each in value.values() if isinstance(value, dict) else value if isinstance(value, list) else ():
            walk(each)

    walk(json.loads(figure.to_json()))
    return found


def shown(figure: go.Figure) -> dict[str, go.Bar]:
    """The bars of a timeline by the words of the legend."""
    return {trace.name: trace for trace in figure.data}


def lanes(figure: go.Figure) -> list[str]:
    return list(figure.layout.yaxis.ticktext)


# -- timeline --------------------------------------------------------------------------------------------------


def test_a_timeline_has_a_row_for_the_run_and_for_each_step() -> None:
    made = timeline(
        steps(step(1, 0, 1_000, name="load"), step(2, 1_000, 3_000, name="fit", status="ERROR", error="ValueError: x")),
        runs(run("w", 0, 0, 3_000, status="ERROR", name="nightly")),
    )

    assert ["✗ <b>nightly</b>", "✓ 1 load", "✗ 2 fit"] == lanes(made)
    assert {"✓ success", "✗ error"} == set(shown(made))
    assert "nightly w: ✗ error, 2 steps" == made.layout.title.text
    assert [3.0, 2.0] == sorted(shown(made)["✗ error"].x, reverse=True)
    assert any("ValueError: x" in text for text in shown(made)["✗ error"].hovertext)
    assert "18 Nov 2026 11:06:40 UTC" in made.layout.xaxis.title.text


def test_attempts_and_waits_are_shown_as_such() -> None:
    tries = [
        {"started": BEGAN, "ended": BEGAN + 1_000, "error": "Timeout: late"},
        {"started": BEGAN + 2_000, "ended": BEGAN + 3_000, "error": None},
    ]
    woken = str((BEGAN + 9_000) / 1000)
    made = timeline(
        steps(
            step(1, 0, 3_000, tries=tries),
            step(2, 3_000, 3_000, name="DBOS.sleep", output=woken),
            step(3, 9_000, 12_000, name="DBOS.recv"),
            step(4, 9_000, 9_000, name="DBOS.sleep", output=str((BEGAN + 12_000) / 1000)),
        )
    )

    assert ["✓ 1 step 1", "✓ 2 DBOS.sleep", "✓ 3 DBOS.recv"] == lanes(made)  # the timeout of recv is no step to show
    assert {"failed attempt", "waiting", "✓ success"} == set(shown(made))
    assert "late" in shown(made)["failed attempt"].hovertext[0]
    assert ["6 s", "3 s"] == list(shown(made)["waiting"].text)
    assert [2.0] == list(shown(made)["✓ success"].x)


def test_a_child_is_shown_where_it_was_started() -> None:
    children = [
        run("c1", 1_000, 1_000, 5_000, parent="w", status="ERROR"),
        run("c2", 1_000, 3_000, None, parent="w"),
        run("c3", 1_000, None, None, parent="w", status="ENQUEUED", queue="q"),
    ]
    made = timeline(
        steps(*(step(number, 1_000, 1_000, child=f"c{number}") for number in (1, 2, 3))), runs(*children), now=SOON
    )

    assert ["✗ 1 step 1", "▶ 2 step 2", "○ 3 step 3"] == lanes(made)
    assert [4.0] == list(shown(made)["✗ error"].x)
    assert 2 == len(shown(made)["in the queue"].x)
    assert any("child c1" in text for text in shown(made)["✗ error"].hovertext)


def test_what_runs_goes_on_until_now() -> None:
    made = timeline(
        steps(step(1, 1_000, None, status="PENDING")),
        runs(run("w")),
        now=pd.Timestamp(BEGAN + 5_000, unit="ms", tz="UTC"),
    )

    assert {"▶ running"} == set(shown(made))
    assert [5.0, 4.0] == list(shown(made)["▶ running"].x)


def test_idle_stretches_are_folded_and_said_to_be() -> None:
    made = timeline(steps(step(1, 0, 5_000), step(2, 5_000 + 7_800_000, 15_000 + 7_800_000)))

    assert made.layout.xaxis.range[1] < 30
    assert "1 idle stretch folded, 2 h 10 min in all" in made.layout.xaxis.title.text
    assert ["⋯ 2 h 10 min"] == [each.text for each in made.layout.annotations]
    assert "2:10:10" in made.layout.xaxis.ticktext
    assert list(made.layout.xaxis.tickvals) == sorted(made.layout.xaxis.tickvals)


def test_an_even_run_is_not_folded() -> None:
    made = timeline(steps(*(step(number, number * 10_000, number * 10_000 + 5_000) for number in range(1, 31))))

    assert "folded" not in made.layout.xaxis.title.text
    assert not made.layout.shapes


def test_folded_time_goes_forward_only() -> None:
    generator = np.random.default_rng(7)
    for _ in range(50):
        starts = np.cumsum(generator.exponential(100, 30) ** 1.5)
        axis = folding(np.stack([starts, starts + generator.exponential(5, 30)], axis=1), float(starts[-1] + 20))
        moments = np.sort(generator.uniform(0, starts[-1] + 20, 200))
        places = axis.place(moments)
        assert (np.diff(places) >= 0).all()
        assert places[-1] <= axis.width + 1e-9
        ticks, _labels = axis.ticks()
        assert (np.diff(ticks) > 0).all()


def test_many_steps_share_the_lanes_of_their_names() -> None:
    made = timeline(
        steps(
            *(
                step(
                    number,
                    number * 100,
                    number * 100 + 90,
                    name=f"n{number // 101}",
                    status="ERROR" if number == 7 else "SUCCESS",
                )
                for number in range(1, 303)
            )
        )
    )

    assert ["✗ n0 ×100, 1 failed", "✓ n1 ×101", "✓ n2 ×101"] == lanes(made)
    assert any("stretches" in text for text in shown(made)["✓ success"].hovertext)
    assert 1 == len(shown(made)["✗ error"].x)


def test_more_names_than_lanes_share_the_last_one() -> None:
    made = timeline(
        steps(
            *(
                step(number, number * 100, number * 100 + 90, status="ERROR" if number == 90 else "SUCCESS")
                for number in range(1, 101)
            )
        )
    )

    assert MOST_LANES == len(lanes(made))
    assert "61 more names, 61 steps" == lanes(made)[-1]
    assert any("step 90" in lane for lane in lanes(made))  # what failed has a lane of its own


def test_steps_of_several_runs_have_a_lane_for_each() -> None:
    made = timeline(
        steps(step(1, 0, 10, workflow_id="a"), step(2, 10, 20, workflow_id="a"), step(1, 5, 10, workflow_id="b")),
        runs(run("a", name="one", completed=20), run("b", name="two", completed=10)),
    )

    assert ["✓ one a", "✓ two b"] == lanes(made)
    assert "2 runs, 3 steps" == made.layout.title.text


@pytest.mark.parametrize(
    ("started", "completed"),
    [(5_000, 1_000), (None, 1_000), (1_000, None), (None, None), (0, 0)],
    ids=["ends before it begins", "no start", "no end", "no time", "no duration"],
)
def test_strange_times_are_drawn_as_far_as_they_go(started: int | None, completed: int | None) -> None:
    made = timeline(steps(step(1, 0, 500), step(2, started, completed), step(3, 600, 700)), runs(run("w", 100, 50, 20)))

    assert 4 == len(lanes(made))
    assert all(width > 0 for trace in made.data for width in trace.x)
    assert all(np.isfinite(base) for trace in made.data for base in trace.base)


def test_steps_without_any_time_are_not_drawn() -> None:
    assert "No step" in timeline(steps(step(1, None, None))).layout.annotations[0].text


# -- tree ------------------------------------------------------------------------------------------------------


def rows_of(figure: go.Figure) -> list[str]:
    """The rows of a tree from top to bottom, as they are read."""
    nodes = [
        (y, text) for trace in figure.data if trace.mode != "lines" for y, text in zip(trace.y, trace.text, strict=True)
    ]
    return [re.sub(r"</?b>", "", text).strip() for _, text in sorted(nodes, reverse=True)]


def test_a_tree_shows_children_and_forks_below_their_origins() -> None:
    made = tree(
        runs(
            run("a", name="main", completed=1_000, status="ERROR"),
            run("b", name="child", parent="a", completed=500),
            run("c", name="grandchild", parent="b"),
            run("f", name="main", forked_from="a", completed=2_000),
        )
    )

    assert [
        "main  a  ✗ error  1 s",
        "child  b  ✓ success  500 ms",
        "grandchild  c  ▶ running",
        "fork  main  f  ✓ success  2 s",
    ] == rows_of(made)
    assert {"solid": "started", "dot": "forked"} == {
        each.line.dash: each.name for each in made.data if each.mode == "lines"
    }


def test_what_is_alike_is_counted() -> None:
    """What failed is shown before what did not."""
    children = [
        run(f"c{number}", name="fetch", parent="a", completed=10, status="ERROR" if number % 100 == 0 else "SUCCESS")
        for number in range(1_000)
    ]
    made = tree(runs(run("a", completed=1_000), *children))

    read = rows_of(made)
    assert ["fetch ×8  8 ✗ error", "fetch ×988  988 ✓ success"] == [row for row in read if "×" in row]
    assert 7 == len(read)
    assert "✗" in read[1]
    assert "991 ✓ success, 10 ✗ error" == made.layout.title.subtitle.text


def test_a_wide_and_deep_tree_stays_readable() -> None:
    """A thousand workflows, six deep, all of different names."""
    listed = [run("0", name="n0")]
    for number in range(1, 1_000):
        listed.append(run(str(number), name=f"n{number}", parent=str((number - 1) // 3), completed=5))
    made = tree(runs(*listed))

    assert 40 <= len(rows_of(made)) <= 81
    assert made.layout.height < 2_000
    assert 1_000 >= sum(
        int(number.replace(",", "")) for row in rows_of(made) for number in re.findall(r"×([\d,]+)", row)
    )


def test_circles_and_orphans_are_shown() -> None:
    made = tree(
        runs(
            run("a", parent="b"),
            run("b", parent="a"),
            run("c", parent="c"),
            run("d", parent="gone"),
            run("e", forked_from="e"),
        )
    )

    assert 5 == len(rows_of(made))


def test_a_chain_of_thousands_is_no_recursion() -> None:
    made = tree(runs(run("0"), *(run(str(number), parent=str(number - 1)) for number in range(1, 3_000))))

    assert len(rows_of(made)) <= 81
    assert "more below" in made.layout.annotations[0].text


# -- queues and rates ------------------------------------------------------------------------------------------


def levels(trace: go.Scatter) -> list[tuple[float, int]]:
    """What a line shows: seconds since the beginning, and how many."""
    return [((moment - BEGAN) / 1000, int(level)) for moment, level in zip(trace.x, trace.y, strict=True)]


def test_queues_show_how_many_waited_and_ran() -> None:
    made = queues(
        runs(
            run("a", 0, 1_000, 3_000, queue="q"),
            run("b", 0, 3_000, 5_000, queue="q"),
            run("c", 4_000, None, None, status="ENQUEUED", queue="q"),
            run("d", 0, 0, 9_000),  # on none
        ),
        now=pd.Timestamp(BEGAN + 6_000, unit="ms", tz="UTC"),
    )

    waiting, running = made.data
    assert [(0, 2), (1, 1), (3, 0), (4, 1), (6, 0)] == levels(waiting)
    assert [(1, 1), (3, 1), (5, 0)] == levels(running)
    assert "<b>q</b>  at most 2 waiting, 1 running" == made.layout.annotations[0].text


def test_many_queues_share_the_last_panel() -> None:
    made = queues(runs(*(run(f"w{number}", 0, 10, 20, queue=f"q{number % 9}") for number in range(90))))

    assert 6 == len(made.layout.annotations)
    assert "4 other queues" in made.layout.annotations[-1].text


def test_a_peak_survives_thinning() -> None:
    listed = [
        run(f"w{number}", number * 1_000, number * 1_000 + 10, number * 1_000 + 20, queue="q")
        for number in range(5_000)
    ]
    listed += [run(f"p{number}", 2_500_001, 2_500_400, 2_500_500, queue="q") for number in range(77)]

    made = queues(runs(*listed), now=NOW)

    assert 77 <= max(made.data[0].y) <= 78
    assert len(made.data[0].x) <= 601


def test_rates_count_what_ended() -> None:
    made = rates(
        runs(
            *(run(f"a{number}", 0, 0, 1_000 + number) for number in range(10)),
            run("b", 0, 0, 61_000, status="ERROR"),
            run("c", 0, None, 61_000, status="CANCELLED"),
            run("d"),
        )
    )

    by_name = {trace.name: trace for trace in made.data}
    assert (10, 1, 1) == tuple(sum(by_name[name].y) for name in ("✓ success", "✗ error", "⊘ cancelled"))
    assert 0.5 == pytest.approx(max(value for value in by_name["failed"].y if value == value))
    assert "8.3% failed" in made.layout.title.subtitle.text
    assert "12 workflows ended" == made.layout.title.text


# -- all of them -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", FIGURES)
def test_of_nothing_there_is_a_picture_with_a_hint(name: str) -> None:
    made = FIGURES[name](runs())

    assert made.layout.annotations[0].text.startswith("No")


@pytest.mark.parametrize("name", FIGURES)
def test_clocks_that_differ_and_missing_times_break_nothing(name: str) -> None:
    strange = [
        run("w", 5_000, 1_000, 200, queue="q", status="SUCCESS"),
        run("x", None, None, None, queue="q"),
        run("y", None, 10, 20, queue="q", status="ERROR"),
        run("z", 10, None, 5, queue="q", status="CANCELLED"),
        run("u", 1, 2, 3, status="PAUSED"),
    ]
    for listed in (strange, *([each] for each in strange)):
        assert FIGURES[name](runs(*listed), now=NOW).to_json()


@pytest.mark.parametrize("name", FIGURES)
@pytest.mark.filterwarnings("error")
def test_names_of_users_are_no_markup(name: str) -> None:
    row = run(f"w{HOSTILE}", 0, 10, 3_000, name=HOSTILE, status="ERROR", error=HOSTILE, queue=HOSTILE)
    made = [FIGURES[name](runs(row))]
    if name == "timeline":
        odd = {"name": HOSTILE, "error": HOSTILE, "status": "ERROR"}
        odd["tries"] = [{"started": 0, "ended": 1, "error": HOSTILE}, {"started": 2, "ended": 3, "error": HOSTILE}]
        made += [
            timeline(steps(step(1, 0, 1_000, **odd))),
            timeline(steps(*(step(number, 0, 1_000, **odd) for number in range(1, 99)))),
            timeline(steps(step(1, 0, 1_000, **odd), step(1, 0, 1_000, **{**odd, "workflow_id": HOSTILE})), runs(row)),
        ]
    for text in itertools.chain.from_iterable(map(texts, made)):
        tags = set(re.findall(r"<[^>]*>", text))
        assert tags <= {"<b>", "</b>", "<br>", "<extra>", "</extra>"}, text
        assert not set(text) & {"$", "\n", "\x1b", "\u202e"}, text


@pytest.mark.parametrize("name", FIGURES)
def test_the_ground_is_transparent_and_the_template_bare(name: str) -> None:
    for style in ("auto", "light", "dark"):
        made = FIGURES[name](runs(run("w", 0, 10, 20, queue="q")), theme=style)
        assert "rgba(0,0,0,0)" == made.layout.paper_bgcolor == made.layout.plot_bgcolor
        assert INKS[style].text == made.layout.font.color
        assert len(made.to_json()) < 6_000


def test_large_pictures_are_drawn_small() -> None:
    """2,000 steps, 1,000 children, 10,000 runs."""
    names = ("load", "parse", "store")
    many = steps(*(step(number, number * 50, number * 50 + 40, name=names[number % 3]) for number in range(1, 2_001)))
    children = [
        run(f"c{number}", number * 10, number * 10 + 5, number * 10 + 900, parent="w") for number in range(1_000)
    ]
    starts = steps(*(step(number + 1, number * 10, number * 10, child=f"c{number}") for number in range(1_000)))
    family = runs(run("w"), *children)
    load = runs(
        *(
            run(f"r{number}", number * 100, number * 100 + 500, number * 100 + 900, queue="q")
            for number in range(10_000)
        )
    )
    drawings: list[Callable[[], go.Figure]] = [
        lambda: timeline(many, family, now=NOW),
        lambda: timeline(starts, family, now=NOW),
        lambda: tree(family),
        lambda: queues(load, now=NOW),
        lambda: rates(load),
    ]
    for draw in drawings:
        made = draw()
        assert len(made.to_json()) < 64_000
        assert made.layout.height < 1_100
