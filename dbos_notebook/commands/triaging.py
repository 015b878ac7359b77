"""Triage: what failed lately, in groups of one cause; and forking or resuming a whole group."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import timedelta
from typing import TYPE_CHECKING

from dbos_notebook import door, repair
from dbos_notebook.failures import AGE, STATUSES, Asked, Triage
from dbos_notebook.failures import triage as grouped
from dbos_notebook.source import span_of

if TYPE_CHECKING:
    import pandas as pd

    from dbos_notebook.source import Source
    from dbos_notebook.views.view import View


def triage(
    since: str | timedelta = AGE,
    *,
    name: str | Sequence[str] = (),
    status: str | Sequence[str] = STATUSES,
    at: Source | None = None,
) -> Triage:
    """What failed, was given up or ran out of its time since a moment, in groups of one cause, the largest first."""
    here = at or door.source()
    wanted = Asked(span_of(since), _several(name), tuple(each.upper() for each in _several(status)))
    unknown = sorted(set(wanted.statuses) - set(STATUSES))
    if unknown:
        raise ValueError(
            f"{unknown[0]} is no failure; there are {', '.join(STATUSES)} (of these what ran out of its time)"
        )
    found = here.triaged = grouped(here, wanted)
    return found


def fork_group(
    group: int | str,
    step: int | str | None = None,
    *,
    dry_run: bool = False,
    confirm: int | None = None,
    version: str | None = None,
    at: Source | None = None,
) -> pd.DataFrame | View:
    """Fork every run of a group of the last triage, from the step that failed or another, if `confirm` is their number.

    Without it, it is said what would be done. What is forked already is left out.
    """
    here = at or door.source()
    return repair.fork_group(here, group, step, dry_run=dry_run, confirm=confirm, version=version)


def resume_group(
    group: int | str,
    *,
    dry_run: bool = False,
    confirm: int | None = None,
    new_code: bool = False,
    at: Source | None = None,
) -> pd.DataFrame | View:
    """Resume every run of a group that can be, with those that follow them, if `confirm` is their number."""
    here = at or door.source()
    return repair.resume_group(here, group, dry_run=dry_run, confirm=confirm, new_code=new_code)


def _several(words: str | Sequence[str]) -> tuple[str, ...]:
    return (words,) if isinstance(words, str) else tuple(words)
