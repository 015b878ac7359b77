"""The timeline of a run: its steps over time, with attempts, waits and children; idle stretches are folded."""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Iterable
from typing import Any

import pandas as pd
import plotly.graph_objects as go

from dbos_notebook import frames
from dbos_notebook.figures import theme as look
from dbos_notebook.figures.bars import (
    QUEUED,
    TRY,
    WAIT,
    Bar,
    Lanes,
    Run,
    beginning_of,
    merged,
    read_runs,
    read_steps,
    run_bars,
    step_bars,
)
from dbos_notebook.figures.folding import Folding, folding
from dbos_notebook.figures.theme import INKS, LOOKS, ROW, Theme, label, lasting, safe, short_id, told

# Bars are that wide at least, and apart at least, as a part of the axis.
THINNEST, CLOSEST = 0.004, 0.0015
# Texts behind bars are for pictures that have room for them.
MOST_TEXTS = 60
THICKNESS = {"SUCCESS": 0.72, "PENDING": 0.5, "ERROR": 0.4, "MAX_RECOVERY_ATTEMPTS_EXCEEDED": 0.4}
# For the texts behind the last bars.
BEHIND = 84
OTHER_KINDS = {TRY: "failed attempt", WAIT: "waiting", QUEUED: "in the queue"}


def timeline(
    steps: pd.DataFrame, runs: pd.DataFrame | None = None, *, now: Any = None, theme: Theme = "auto"
) -> go.Figure:
    """Draw the steps of a run, or of several, over time.

    `runs` may hold the run itself and its children, which are drawn where they were started. What still runs goes on
    until `now`. Many steps share the lane of their name; with steps of several runs each run has a lane.
    """
    known = frames.frame(frames.RUNS, []) if runs is None else runs
    ids = list(dict.fromkeys(steps.index.get_level_values(0))) or list(known.index[:1])
    origin = beginning_of(steps, known, ids)
    if pd.isna(origin):
        return look.empty(theme, "Timeline", "No step has been recorded yet.")
    now_seconds = (pd.Timestamp(now) if now is not None else look.clock_now()).timestamp() - origin.timestamp()
    found = read_runs(known, origin, now_seconds)
    rows = read_steps(steps, origin, now_seconds)
    lanes = Lanes(rows, found)
    labels = lanes.labels()
    bars = [bar for step in rows for bar in step_bars(step, lanes.of(step), found)]
    if len(ids) == 1 and ids[0] in found:
        run = found[ids[0]]
        bars = [*run_bars(run), *bars]
        labels = {run.workflow_id: f"{look.look_of(run.status).glyph} <b>{label(run.name)}</b>", **labels}
    end = max((bar.end for bar in bars), default=0.0)
    axis = folding([(bar.start, bar.end) for bar in bars if bar.is_work], end)
    shown = _placed(bars, axis)
    if len(bars) > MOST_TEXTS:
        shown = merged(shown, axis.width * CLOSEST)
    title = _title(ids, found, len(rows))
    made = look.figure(theme, title, ROW * len(labels), line=bool(axis.folds))
    _draw(made, shown, labels, theme, is_single=not (lanes.is_of_names or lanes.is_of_runs), width=axis.width)
    _mark(made, axis, origin, theme)
    return made


def _title(ids: list[str], runs: dict[str, Run], number: int) -> str:
    steps = f"{number:,} step{'s' if number != 1 else ''}"
    run = runs.get(ids[0]) if len(ids) == 1 else None
    if run is None:
        return f"{label(short_id(ids[0]))}: {steps}" if len(ids) == 1 else f"{len(ids):,} runs, {steps}"
    return f"{label(run.name)} {label(short_id(run.workflow_id))}: {told(run.status)}, {steps}"


def _placed(bars: Iterable[Bar], axis: Folding) -> list[Bar]:
    """The bars where they are drawn; none so thin that it cannot be seen."""
    listed = list(bars)
    starts, ends = axis.place([bar.start for bar in listed]), axis.place([bar.end for bar in listed])
    least = axis.width * THINNEST
    return [
        Bar(bar.lane, bar.kind, float(start), max(float(end), float(start) + least), bar.hover, bar.text)
        for bar, start, end in zip(listed, starts, ends, strict=True)
    ]


def _draw(
    made: go.Figure, bars: list[Bar], labels: dict[str, str], theme: Theme, *, is_single: bool, width: float
) -> None:
    """Bars in their lanes; where a lane holds many (it `is_single` otherwise), the rarer kinds lie thinner on the others."""
    places = {lane: -place for place, lane in enumerate(labels)}
    has_texts = is_single and len(bars) <= MOST_TEXTS
    of: dict[str, list[Bar]] = defaultdict(list)
    for bar in bars:
        of[bar.kind].append(bar)
    for kind in sorted(of, key=_rank):
        group = of[kind]
        made.add_trace(
            go.Bar(
                orientation="h",
                name=OTHER_KINDS.get(kind) or told(kind),
                y=[places[bar.lane] for bar in group],
                base=[_rounded(bar.start, width) for bar in group],
                x=[_rounded(bar.end - bar.start, width) for bar in group],
                width=_thickness(kind, is_single=is_single),
                marker=_marker(kind),
                text=[bar.text for bar in group] if has_texts and kind != TRY else None,
                textposition="outside",
                textfont={"size": 11, "color": INKS[theme].faint},
                constraintext="none",
                cliponaxis=False,
                hovertext=[bar.hover for bar in group],
                hoverinfo="text",
            )
        )
    if has_texts:
        made.update_layout(margin={"r": BEHIND})
    made.update_yaxes(
        look.axis(
            theme,
            showgrid=False,
            tickvals=list(places.values()),
            ticktext=list(labels.values()),
            tickfont={"color": INKS[theme].text, "size": 12},
            range=[-len(places) + 0.4, 0.6],
        )
    )


def _rounded(seconds: float, width: float) -> float:
    """Not more digits than a screen can show."""
    return round(seconds, max(0, 5 - math.floor(math.log10(width))))


def _thickness(kind: str, *, is_single: bool) -> float:
    if kind in {WAIT, QUEUED}:
        return 0.3
    return 0.62 if is_single else THICKNESS.get(kind, 0.3)


def _rank(kind: str) -> tuple[bool, int]:
    order = list(OTHER_KINDS)[::-1]
    return kind not in OTHER_KINDS, order.index(kind) if kind in order else -int(100 * THICKNESS.get(kind, 0.3))


def _marker(kind: str) -> dict[str, Any]:
    if kind in {WAIT, QUEUED}:
        return {"color": "rgba(138,138,138,0.22)", "line": {"color": look.WAIT, "width": 1}}
    if kind == TRY:
        return {"color": "rgba(0,0,0,0)", "line": {"color": LOOKS["ERROR"].color, "width": 1.5}}
    status = look.look_of(kind)
    pattern = {
        "shape": status.pattern,
        "fillmode": "overlay",
        "fgcolor": "rgba(255,255,255,0.75)",
        "size": 6,
        "solidity": 0.25,
    }
    return {"color": status.color, **({"pattern": pattern} if status.pattern else {})}


def _mark(made: go.Figure, axis: Folding, origin: Any, theme: Theme) -> None:
    """The axis: the time since the beginning, and what is folded of it."""
    places, texts = axis.ticks()
    ink = INKS[theme]
    for fold in axis.folds:
        made.add_shape(
            type="rect", x0=fold.left, x1=fold.right, y0=0, y1=1, yref="paper", layer="below", fillcolor=ink.grid,
            line={"width": 0},
        )  # fmt: skip
        made.add_annotation(
            x=(fold.left + fold.right) / 2, y=1, yref="paper", yanchor="bottom", text=f"⋯ {lasting(fold.seconds)}",
            showarrow=False, font={"size": 11, "color": ink.faint},
        )  # fmt: skip
    whole = lasting(sum(fold.seconds for fold in axis.folds))
    folded = f"; {len(axis.folds)} idle {'stretch' if len(axis.folds) == 1 else 'stretches'} folded, {whole} in all"
    began = safe(f"{origin:%d %b %Y %H:%M:%S} UTC")
    made.update_xaxes(
        look.axis(
            theme,
            tickvals=places,
            ticktext=texts,
            range=[-0.005 * axis.width, 1.005 * axis.width],
            tickangle=0,
            title={
                "standoff": 4,
                "text": f"time since {began}{folded if axis.folds else ''}",
                "font": {"size": 12, "color": ink.faint},
            },
        )
    )
