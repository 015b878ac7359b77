"""The tree of workflows: who started whom, and what was forked of what, with their statuses.

It reads like a list of files. Where many alike (of one name and one status, without children of their own) stand
under one workflow, the first ones are shown and the others counted; those that failed are counted last.
"""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

import pandas as pd
import plotly.graph_objects as go

from dbos_notebook.figures import theme as look
from dbos_notebook.figures.theme import (
    INKS,
    LOOKS,
    ROW,
    TIMES,
    Theme,
    label,
    lasting,
    look_of,
    safe,
    short_id,
    told,
)
from dbos_notebook.frames import words

# Of those that are alike so many are shown one by one, and of all below one workflow.
MOST_ALIKE, MOST_CHILDREN, MOST_ROWS = 2, 24, 80

URGENCY = ("ERROR", "MAX_RECOVERY_ATTEMPTS_EXCEEDED", "PENDING", "ENQUEUED", "DELAYED", "CANCELLED", "SUCCESS")


@dataclass
class Node:
    """A workflow, or several that are alike."""

    workflow_id: str
    name: str
    status: str
    seconds: float
    parent: str | None = None
    is_fork: bool = False
    children: list[Node] = field(default_factory=list)
    #: How many it stands for, and what they are if it stands for several.
    counts: Counter[str] = field(default_factory=Counter)

    @property
    def number(self) -> int:
        return sum(self.counts.values()) or 1


@dataclass(frozen=True)
class Row:
    """A line of the picture."""

    node: Node
    depth: int
    #: The row of the parent.
    above: int | None


def tree(runs: pd.DataFrame, *, theme: Theme = "auto") -> go.Figure:
    """Draw how workflows came of each other. The frame should hold whole families, as `Source.family` finds them."""
    if runs.empty:
        return look.empty(theme, "Workflows", "No workflow to show.")
    roots = _read(runs)
    rows = _rows(roots)
    hidden = len(runs) - sum(row.node.number for row in rows)
    subtitle = ", ".join(f"{number:,} {told(status)}" for status, number in _counts(runs).items())
    made = look.figure(
        theme, f"{len(runs):,} workflow{'s' if len(runs) != 1 else ''}", ROW * len(rows), subtitle=subtitle, foot=36
    )
    made.update_layout(showlegend=any(row.node.is_fork for row in rows))
    _edges(made, rows)
    _nodes(made, rows, theme)
    if hidden > 0:
        made.add_annotation(
            x=0, y=-len(rows), xanchor="left", text=f"… and {hidden:,} more below these", showarrow=False,
            font={"color": INKS[theme].faint},
        )  # fmt: skip
    return made


# -- reading ---------------------------------------------------------------------------------------------------


def _read(runs: pd.DataFrame) -> list[Node]:
    """The workflows that nothing in the frame stands above, with what stands below them."""
    ended = look.seconds_of(runs["completed"]) - look.seconds_of(runs["started"].fillna(runs["created"]))
    columns = (words(runs[name]) for name in ("name", "status", "parent", "forked_from"))
    nodes: dict[str, Node] = {}
    for workflow_id, seconds, name, status, parent, forked in zip(words(runs.index), ended, *columns, strict=True):
        above = forked if forked in runs.index or parent is None else parent
        nodes[workflow_id or ""] = Node(
            workflow_id or "", name or "", status or "", seconds, above, above == forked and forked is not None
        )
    roots, tops = [], _tops_of_circles(nodes)
    for node in nodes.values():
        origin = nodes.get(node.parent or "")
        if origin is None or node.workflow_id in tops:
            roots.append(node)
        else:
            origin.children.append(node)
    return roots


def _tops_of_circles(nodes: dict[str, Node]) -> set[str]:
    """One of each circle of workflows that stand above each other: it is a root."""
    seen: set[str] = set()
    tops: set[str] = set()
    for node in nodes.values():
        path: set[str] = set()
        above: Node | None = node
        while above is not None and above.workflow_id not in seen and above.workflow_id not in path:
            path.add(above.workflow_id)
            above = nodes.get(above.parent or "")
        if above is not None and above.workflow_id in path:
            tops.add(above.workflow_id)
        seen |= path
    return tops


def _counts(runs: pd.DataFrame) -> dict[str, int]:
    counted = runs["status"].value_counts()
    return {str(status): int(number) for status, number in counted.items() if number}


def _rows(roots: list[Node]) -> list[Row]:
    """The lines, breadth first so that what is deep gives way where there is not room for all."""
    shown: dict[int, list[Node]] = {}
    level, total = _chosen(roots, 40), 0
    total = len(level)
    top = level
    while level and total < MOST_ROWS:
        below: list[Node] = []
        for node in level:
            room = min(MOST_CHILDREN, MOST_ROWS - total)
            if node.children and room > 0:
                shown[id(node)] = _chosen(node.children, room)
                total += len(shown[id(node)])
                below += shown[id(node)]
        level = below
    rows: list[Row] = []

    def walk(nodes: list[Node]) -> None:
        stack: list[tuple[Node, int, int | None]] = [(node, 0, None) for node in reversed(nodes)]
        while stack:
            node, depth, above = stack.pop()
            rows.append(Row(node, depth, above))
            here = len(rows) - 1
            stack += [(child, depth + 1, here) for child in reversed(shown.get(id(node), []))]

    walk(top)
    return rows


def _chosen(nodes: list[Node], room: int) -> list[Node]:
    """At most so many, by counting what is alike and then what is left."""
    if len(nodes) <= room and len(nodes) <= MOST_CHILDREN:
        return nodes
    alike: dict[tuple[Any, ...], list[Node]] = defaultdict(list)
    for node in nodes:
        alike[node.name, node.status, node.is_fork, node.workflow_id if node.children else ""].append(node)
    made = [each for group in alike.values() for each in _folded(group)]
    # What is looked for comes first, and stays when something has to go.
    made.sort(key=_urgency)
    if len(made) <= room:
        return made
    return [*made[: room - 1], _sum(made[room - 1 :])]


def _urgency(node: Node) -> tuple[bool, int, bool]:
    return not node.is_fork, URGENCY.index(node.status) if node.status in URGENCY else 0, not node.children


def _folded(group: list[Node]) -> Iterator[Node]:
    if len(group) <= MOST_ALIKE + 1:
        yield from group
        return
    yield from group[:MOST_ALIKE]
    yield _sum(group[MOST_ALIKE:])


def _sum(nodes: list[Node]) -> Node:
    """One node for many: with what stands below them."""
    counts: Counter[str] = Counter()
    stack = list(nodes)
    while stack:
        node = stack.pop()
        counts += node.counts or Counter([node.status])
        stack += node.children
    names = dict.fromkeys(node.name for node in nodes)
    name = next(iter(names)) if len(names) == 1 else "others"
    worst = next((status for status in URGENCY if counts[status]), "SUCCESS")
    return Node("", name, worst, float("nan"), is_fork=nodes[0].is_fork, counts=counts)


# -- drawing ---------------------------------------------------------------------------------------------------


def _edges(made: go.Figure, rows: list[Row]) -> None:
    for is_fork, dash, name in ((False, "solid", "started"), (True, "dot", "forked")):
        x: list[float | None] = []
        y: list[float | None] = []
        for place, row in enumerate(rows):
            if row.above is not None and row.node.is_fork == is_fork:
                x += [row.depth - 1, row.depth - 1, row.depth, None]
                y += [-row.above, -place, -place, None]
        if x:
            line = {"color": look.WAIT, "width": 1.2, "dash": dash}
            made.add_trace(go.Scatter(x=x, y=y, mode="lines", line=line, name=name, hoverinfo="skip"))


def _nodes(made: go.Figure, rows: list[Row], theme: Theme) -> None:
    ink = INKS[theme]
    of: dict[str, list[int]] = defaultdict(list)
    for place, row in enumerate(rows):
        of[row.node.status].append(place)
    for status in sorted(of, key=lambda each: list(LOOKS).index(each) if each in LOOKS else 99):
        places = of[status]
        made.add_trace(
            go.Scatter(
                x=[rows[place].depth for place in places],
                y=[-place for place in places],
                mode="markers+text",
                name=told(status),
                marker={
                    "color": look_of(status).color,
                    "opacity": 1,
                    "size": [15 if rows[place].node.number > 1 else 11 for place in places],
                    "symbol": ["square" if rows[place].node.number > 1 else "circle" for place in places],
                },
                text=[_label(rows[place].node) for place in places],
                textposition="middle right",
                textfont={"color": ink.text, "size": 12},
                hovertext=[_hover(rows[place].node) for place in places],
                hoverinfo="text",
                cliponaxis=False,
                showlegend=False,
            )
        )
    deepest = max(row.depth for row in rows)
    # Texts go to the right, so that depth takes only a part of the width.
    made.update_xaxes(visible=False, range=[-0.4, max(8.0, deepest * 1.9 + 3)], fixedrange=True)
    made.update_yaxes(visible=False, range=[-len(rows) + 0.4, 0.6])


def _label(node: Node) -> str:
    if node.number > 1:
        what = ", ".join(f"{number:,} {told(status)}" for status, number in node.counts.most_common())
        return f"  {label(node.name)} <b>{TIMES}{node.number:,}</b>  {what}"
    took = lasting(node.seconds)
    parts = [f"<b>{label(node.name)}</b>", label(short_id(node.workflow_id)), told(node.status), took]
    return "  " + "  ".join(part for part in ["fork" if node.is_fork else "", *parts] if part)


def _hover(node: Node) -> str:
    if node.number > 1:
        return f"{label(node.name)}: {node.number:,} workflows"
    return f"<b>{label(node.name)}</b><br>{safe(node.workflow_id)}<br>{told(node.status)} {lasting(node.seconds)}"
