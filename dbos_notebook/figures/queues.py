"""Queues over time: how many workflows of each waited and ran, computed from when they were made, begun and ended."""

from __future__ import annotations

from typing import Any

import numpy as np
import pandas as pd
import plotly.graph_objects as go

from dbos_notebook.figures import theme as look
from dbos_notebook.figures.theme import INKS, LOOKS, Theme, label
from dbos_notebook.frames import UNFINISHED

# More queues than that share the last panel; more points than that are drawn as the highest of their neighbours.
MOST_PANELS, MOST_POINTS = 6, 600
PANEL = 130


def queues(runs: pd.DataFrame, *, now: Any = None, theme: Theme = "auto") -> go.Figure:
    """Draw for each queue how many workflows waited and how many ran. Waiting ends where `now` is, if not before."""
    listed = runs[runs["queue"].notna() & runs["created"].notna()]
    if listed.empty:
        return look.empty(theme, "Queues", "None of these workflows went through a queue.")
    moment = pd.Timestamp(now) if now is not None else look.clock_now()
    counts = listed["queue"].value_counts()
    names = list(counts.index if len(counts) <= MOST_PANELS else counts.index[: MOST_PANELS - 1])
    rest = listed[~listed["queue"].isin(names)]
    panels = [(label(name), listed[listed["queue"] == name]) for name in names]
    if len(rest):
        panels.append((f"{rest['queue'].nunique():,} other queues", rest))
    made = look.figure(theme, f"Queues: {len(listed):,} workflows", PANEL * len(panels))
    for place, (name, part) in enumerate(panels):
        _panel(made, place, len(panels), name, part, moment.timestamp(), theme)
    return made


def _panel(made: go.Figure, place: int, number: int, name: str, part: pd.DataFrame, now: float, theme: Theme) -> None:
    waiting, running = depths(part, now)
    height = 1 / number
    top = 1 - place * height
    tail = "" if place == 0 else str(place + 1)
    for what, (moments, depth), status in (("waiting", waiting, "ENQUEUED"), ("running", running, "PENDING")):
        color = LOOKS[status].color
        fill = {"fill": "tozeroy", "fillcolor": look.faded(color)} if what == "waiting" else {}
        made.add_trace(
            go.Scatter(
                x=np.round(moments * 1000), y=depth, mode="lines", name=what, legendgroup=what, showlegend=place == 0,
                line={"color": color, "width": 1 if fill else 1.8, "shape": "hv"},
                xaxis=f"x{tail}", yaxis=f"y{tail}", hovertemplate=f"%{{y:,}} {what}<br>%{{x}}<extra></extra>", **fill,
            )
        )  # fmt: skip
    is_last = place == number - 1
    bottom = top - height + (0.0 if is_last else 0.03)
    title = {"text": "UTC", "standoff": 4, "font": {"size": 12, "color": INKS[theme].faint}} if is_last else {}
    matches = {} if place == 0 else {"matches": "x"}
    xaxis = look.axis(theme, type="date", anchor=f"y{tail}", showticklabels=is_last, title=title, **matches)
    yaxis = look.axis(
        theme, domain=[max(bottom, 0), top - 0.16 * height], anchor=f"x{tail}", rangemode="tozero", nticks=4,
        tickformat=",d", minallowed=0,
    )  # fmt: skip
    made.update_layout({f"xaxis{tail}": xaxis, f"yaxis{tail}": yaxis})
    peak = f"at most {int(max(waiting[1].max(), 0)):,} waiting, {int(max(running[1].max(), 0)):,} running"
    made.add_annotation(
        x=0, xref="paper", xanchor="left", y=top - 0.02 * height, yref="paper", yanchor="top", showarrow=False,
        text=f"<b>{name}</b>  {peak}", font={"size": 12, "color": INKS[theme].text},
    )  # fmt: skip


def depths(part: pd.DataFrame, now: float) -> tuple[tuple[Any, Any], tuple[Any, Any]]:
    """(moments, how many wait) and (moments, how many run), as steps that hold until the next moment."""
    created, started, ended = (look.seconds_of(part[name]) for name in ("created", "started", "completed"))
    is_over = ~part["status"].isin(UNFINISHED).to_numpy()
    now = max(now, float(np.nanmax(np.concatenate([created, started, ended]))))
    ended = np.where(np.isnan(ended), np.where(is_over, np.fmax(created, started), now), ended)
    # Clocks differ: nothing begins before it was made, nor ends before it began.
    begun = np.where(np.isnan(started), np.nan, np.fmin(np.fmax(started, created), np.fmax(ended, created)))
    waited = np.where(np.isnan(begun), ended, begun)
    has_run = ~np.isnan(started)
    return _levels(created, np.fmax(waited, created), now), _levels(begun[has_run], np.fmax(ended, begun)[has_run], now)


def _levels(starts: Any, ends: Any, now: float) -> tuple[Any, Any]:
    if not len(starts):
        return np.array([now]), np.array([0])
    moments = np.concatenate([starts, ends])
    change = np.concatenate([np.ones(len(starts), dtype=int), -np.ones(len(ends), dtype=int)])
    # Of one moment, ends come first: who takes the place of another does not make two.
    order = np.lexsort((change, moments))
    moments, level = moments[order], np.maximum(np.cumsum(change[order]), 0)
    last = np.append(np.flatnonzero(np.diff(moments)), len(moments) - 1)
    return _thinned(moments[last], level[last])


def _thinned(moments: Any, level: Any) -> tuple[Any, Any]:
    """Not more points than can be told apart: of neighbours the highest, so that no peak is lost."""
    if len(moments) <= MOST_POINTS:
        return moments, level
    edges = np.linspace(moments[0], moments[-1], MOST_POINTS)
    bins = np.searchsorted(edges, moments, side="right") - 1
    firsts = np.flatnonzero(np.diff(bins, prepend=-1))
    highest = np.maximum.reduceat(level, firsts)
    highest[-1] = level[-1]
    return moments[firsts], highest
