"""Rates over time: how many workflows ended and how, how long they took, and what part of them failed."""

from __future__ import annotations

from typing import Any

import numpy as np
import pandas as pd
import plotly.graph_objects as go

from dbos_notebook.figures import theme as look
from dbos_notebook.figures.theme import INKS, LOOKS, Theme, lasting, nice_step, told

MOST_BUCKETS = 60
# From the bottom of a stacked bar to its top.
ENDS = ("SUCCESS", "CANCELLED", "MAX_RECOVERY_ATTEMPTS_EXCEEDED", "ERROR")
FAILED = ("ERROR", "MAX_RECOVERY_ATTEMPTS_EXCEEDED")
PANELS = ((0.66, 0.97), (0.3, 0.58), (0.0, 0.22))
LATENCIES = (
    (0.5, "half took at most", "solid", LOOKS["PENDING"].color),
    (0.95, "95 % took at most", "dot", LOOKS["DELAYED"].color),
)


def rates(runs: pd.DataFrame, *, theme: Theme = "auto") -> go.Figure:
    """Draw throughput, latency (from start to end) and the share of failures, by when workflows ended."""
    ended = runs[runs["completed"].notna() & runs["status"].isin(ENDS)]
    if ended.empty:
        return look.empty(theme, "Rates", "None of these workflows has ended yet.")
    at = look.seconds_of(ended["completed"])
    step = nice_step(float(at.max() - at.min()), MOST_BUCKETS - 1)
    place = np.floor(at / step).astype(np.int64)
    place -= place.min()
    left = np.floor(at.min() / step) * step
    buckets = left + step * np.arange(place.max() + 1)
    status = ended["status"].astype(object).to_numpy()
    counts = {each: np.bincount(place[status == each], minlength=len(buckets)) for each in ENDS}
    total = np.sum(list(counts.values()), axis=0)
    failed = counts["ERROR"] + counts["MAX_RECOVERY_ATTEMPTS_EXCEEDED"]
    middle = np.round((buckets + step / 2) * 1000)
    share = failed.sum() / total.sum()
    subtitle = (
        f"{share:.1%} failed; each bar is {lasting(step)}" if share else f"none failed; each bar is {lasting(step)}"
    )
    made = look.figure(theme, f"{len(ended):,} workflows ended", 380, subtitle=subtitle, line=True)
    made.update_layout(barmode="stack", bargap=0.08)
    _throughput(made, middle, counts, step)
    _latency(made, middle, place, ended)
    _failures(made, middle, failed, total)
    _axes(made, step, float(np.nanmax(failed / np.fmax(total, 1))), theme)
    return made


def _throughput(made: go.Figure, middle: Any, counts: dict[str, Any], step: float) -> None:
    for status in ENDS:
        if counts[status].any():
            mark = look.look_of(status)
            pattern = {"shape": mark.pattern, "fillmode": "overlay", "fgcolor": "rgba(255,255,255,0.75)", "size": 6}
            made.add_trace(
                go.Bar(
                    x=middle, y=counts[status], name=told(status), width=step * 920, hovertemplate="%{y:,}<extra>%{fullData.name}</extra>",
                    marker={"color": mark.color, **({"pattern": pattern} if mark.pattern else {})},
                )
            )  # fmt: skip


def _latency(made: go.Figure, middle: Any, place: Any, ended: pd.DataFrame) -> None:
    took = look.seconds_of(ended["completed"]) - look.seconds_of(ended["started"])
    # Where clocks differ, what ended before it began took no time.
    grouped = pd.Series(np.fmax(took, 0)).where(~np.isnan(took)).groupby(place)
    for part, name, dash, color in LATENCIES:
        found = grouped.quantile(part).reindex(range(len(middle)))
        made.add_trace(
            go.Scatter(
                x=middle, y=found.round(6).to_numpy(), name=name, mode="lines+markers", yaxis="y2",
                line={"color": color, "width": 2, "dash": dash}, marker={"size": 4}, connectgaps=False,
                text=[lasting(each) for each in found], hovertemplate="%{text}<extra>%{fullData.name}</extra>",
            )
        )  # fmt: skip


def _failures(made: go.Figure, middle: Any, failed: Any, total: Any) -> None:
    share = np.divide(failed, total, out=np.full(len(total), np.nan), where=total > 0)
    made.add_trace(
        go.Scatter(
            x=middle, y=share.round(4), name="failed", mode="lines+markers", yaxis="y3", showlegend=False,
            line={"color": LOOKS["ERROR"].color, "width": 2}, marker={"size": 4, "symbol": "x"}, connectgaps=False,
            customdata=np.stack([failed, total], axis=1), hovertemplate="%{y:.1%}: %{customdata[0]:,} of %{customdata[1]:,}<extra></extra>",
        )
    )  # fmt: skip


def _axes(made: go.Figure, step: float, worst: float, theme: Theme) -> None:
    titles = (f"ended per {lasting(step)}", "from start to end, seconds", "part that failed")
    formats = (",d", "", ".0%")
    for number, (domain, title, form) in enumerate(zip(PANELS, titles, formats, strict=True), 1):
        tail = "" if number == 1 else str(number)
        more: dict[str, Any] = {"rangemode": "tozero", "nticks": 4, "tickformat": form}
        if number == 3:
            more["range"] = [0, min(1.02, max(0.05, 1.15 * worst))]
        made.update_layout(
            {
                f"yaxis{tail}": look.axis(
                    theme, domain=list(domain), anchor="x" if number == 3 else "free", position=0, **more
                )
            }
        )
        made.add_annotation(
            x=0, xref="paper", xanchor="left", y=domain[1] + 0.005, yref="paper", yanchor="bottom", text=title,
            showarrow=False, font={"size": 12, "color": INKS[theme].text},
        )  # fmt: skip
    ink = INKS[theme]
    below = {"text": "UTC", "standoff": 4, "font": {"size": 12, "color": ink.faint}}
    made.update_layout(xaxis=look.axis(theme, type="date", anchor="y3", title=below))
