"""Folded time: an axis on which long stretches without work are narrow, and said to be.

Work comes in bursts between long waits; on an even axis the bursts would be too thin to be seen.
"""

from __future__ import annotations

import itertools
from dataclasses import dataclass
from typing import Any

import numpy as np

from dbos_notebook.figures.theme import lasting, nice_step

# A stretch is folded if it is so long, as a part of the axis without all that is folded, and not too short to matter;
# and all of them only if that saves so much of the axis.
SHARE, SHORTEST_SECONDS, SAVING = 0.1, 2.0, 0.25
MOST_FOLDS = 10
# So much of the unfolded time is the width of one fold.
WIDTH = 0.05
TICKS = 6


@dataclass(frozen=True)
class Fold:
    """A stretch of real time, and where it is drawn."""

    start: float
    end: float
    left: float
    right: float

    @property
    def seconds(self) -> float:
        return self.end - self.start


@dataclass(frozen=True)
class Folding:
    """How real seconds become places on the axis."""

    real: Any
    shown: Any
    folds: tuple[Fold, ...]

    @property
    def width(self) -> float:
        return float(self.shown[-1])

    def place(self, seconds: Any) -> Any:
        """Where moments are on the axis."""
        return np.interp(np.asarray(seconds, dtype="float64"), self.real, self.shown)

    def ticks(self) -> tuple[list[float], list[str]]:
        """Places on the axis, and the time since the beginning that each of them is."""
        end = float(self.real[-1])
        unfolded = end - sum(fold.seconds for fold in self.folds)
        step = nice_step(unfolded, TICKS)
        edges = [0.0, *itertools.chain.from_iterable((fold.start, fold.end) for fold in self.folds), end]
        wanted: list[float] = []
        for start, stop in zip(edges[::2], edges[1::2], strict=True):
            first = np.ceil(start / step - 1e-9) * step
            wanted += [float(each) for each in np.arange(first, stop + step * 1e-6, step)]
        least = self.width / (1.4 * TICKS)
        places: list[float] = []
        labels: list[str] = []
        for moment, place in zip(wanted, self.place(wanted), strict=True):
            if not places or place - places[-1] >= least:
                places.append(float(place))
                labels.append(elapsed(moment, step, end))
        return places, labels


def elapsed(seconds: float, step: float, end: float) -> str:
    """A moment of a run as a clock that was started with it; steps of less than a second show."""
    if end < 60:
        return lasting(round(seconds, 6))
    decimals = 0 if step >= 1 else 1 if step >= 0.1 else 3
    minutes, rest = divmod(round(seconds, decimals), 60)
    hours, minutes = divmod(int(minutes), 60)
    days, hours = divmod(hours, 24)
    shown = f"{rest:0{3 + decimals if decimals else 2}.{decimals}f}"
    clock = f"{hours}:{minutes:02}:{shown}" if hours or days or end >= 3600 else f"{minutes}:{shown}"
    return f"{days} d {clock}" if days else clock


def folding(busy: Any, end: float) -> Folding:
    """Fold what lies between the given (start, end) rows of work, from 0 to `end`."""
    end = max(end, 1e-3)
    gaps = sorted(_gaps(np.asarray(busy, dtype="float64").reshape(-1, 2), end), key=lambda gap: gap[0] - gap[1])
    chosen: list[tuple[float, float]] = []
    left = end
    for number, (start, stop) in enumerate(gaps[:MOST_FOLDS], 1):
        rest = end - sum(until - since for since, until in gaps[:number])
        if stop - start >= max(SHORTEST_SECONDS, SHARE * rest):
            chosen, left = gaps[:number], rest
    if left > (1 - SAVING) * end:
        chosen, left = [], end
    width = WIDTH * max(left, end * 1e-9)
    real, shown = [0.0], [0.0]
    folds: list[Fold] = []
    for start, stop in sorted(chosen):
        near = shown[-1] + start - real[-1]
        real += [start, stop]
        shown += [near, near + width]
        folds.append(Fold(start, stop, near, near + width))
    real.append(end)
    shown.append(shown[-1] + end - real[-2])
    return Folding(np.array(real), np.array(shown), tuple(folds))


def _gaps(busy: Any, end: float) -> list[tuple[float, float]]:
    found, until = [], 0.0
    for start, stop in busy[np.argsort(busy[:, 0], kind="stable")]:
        if start > until:
            found.append((until, float(start)))
        until = max(until, float(stop))
    if end > until:
        found.append((until, end))
    return found
