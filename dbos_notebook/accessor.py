"""`frame.dbos`: what can be drawn of a filtered frame of workflows, and done to them.

A frame knows the source it came from; one that has forgotten it (a CSV file knows nothing) belongs to the session of
this kernel. What destroys asks for `confirm=True`.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, cast

import pandas as pd
from pandas.api.extensions import register_dataframe_accessor

from dbos_notebook.origin import ORIGIN, origin_of

if TYPE_CHECKING:
    import plotly.graph_objects as go

    from dbos_notebook.figures.theme import Theme
    from dbos_notebook.source import Source

WORKFLOW = "workflow_id"
# A timeline of more runs at once would tell nothing; ask for those of interest.
MOST_RUNS = 200


class NotConfirmedError(Exception):
    """What was asked for destroys something, and was not confirmed."""


@register_dataframe_accessor("dbos")
class Workflows:
    """The workflows in the rows of a frame of runs or steps."""

    def __init__(self, frame: pd.DataFrame) -> None:
        self._frame = frame
        if WORKFLOW not in frame.index.names and WORKFLOW not in frame.columns:
            # pandas takes only this one for "there is no such attribute here".
            raise AttributeError(
                "this frame names no workflows: .dbos needs workflow_id in its index or as a column, as frames of runs "
                "and steps have it"
            )

    def __repr__(self) -> str:
        number = len(self.ids)
        return (
            f"{number:,} workflow{'' if number == 1 else 's'}: .runs() .steps() | .timeline() .tree() .rates() .queues() "
            "| .cancel() .resume() .fork() .delete()"
        )

    @property
    def ids(self) -> list[str]:
        """The ids of the workflows, each once, in the order of the frame."""
        frame = self._frame
        column = frame.index.get_level_values(WORKFLOW) if WORKFLOW in frame.index.names else frame[WORKFLOW]
        return list(dict.fromkeys(each for each in column if isinstance(each, str)))

    @property
    def source(self) -> Source:
        """Where the frame came from."""
        found = origin_of(self._frame)
        if found is not None:
            return found
        if ORIGIN in self._frame.attrs:
            raise LookupError("the source of this frame is gone: its client was closed; read the frame again")
        from dbos_notebook.session import current  # only now: a program may use frames without any session

        return current().source

    # -- frames ------------------------------------------------------------------------------------------------

    def runs(self) -> pd.DataFrame:
        """These workflows as they are now, in the order of the frame."""
        ids = self.ids
        found = self.source.runs(workflow_ids=ids)
        return found.reindex([each for each in ids if each in found.index]) if len(found) else found

    def steps(self) -> pd.DataFrame:
        """The steps of all of them, in one frame."""
        return self.source.steps(*self.ids)

    # -- figures -----------------------------------------------------------------------------------------------

    def timeline(self, *, theme: Theme | None = None) -> go.Figure:
        """Their steps over time; of one run with its children, of several with a lane for each."""
        from dbos_notebook.figures import timeline  # plotly takes a while to import

        ids = self.ids
        if len(ids) > MOST_RUNS:
            raise ValueError(f"a timeline of {len(ids):,} runs shows nothing; filter the frame to {MOST_RUNS} at most")
        runs = self.source.family(*ids) if len(ids) == 1 else self.source.runs(workflow_ids=ids, values=False)
        return timeline(self._frame if self._holds_steps else self.steps(), runs, theme=self._theme(theme))

    def tree(self, *, theme: Theme | None = None) -> go.Figure:
        """Them, what started them, what they started, and all forks."""
        from dbos_notebook.figures import tree  # as above

        return tree(self.source.family(*self.ids), theme=self._theme(theme))

    def rates(self, *, theme: Theme | None = None) -> go.Figure:
        """How many of them ended when, how long they took, and how many failed."""
        from dbos_notebook.figures import rates  # as above

        return rates(self._own_runs(), theme=self._theme(theme))

    def queues(self, *, theme: Theme | None = None) -> go.Figure:
        """How many of them waited and ran when, for each queue."""
        from dbos_notebook.figures import queues  # as above

        return queues(self._own_runs(), theme=self._theme(theme))

    def _theme(self, theme: Theme | None) -> Theme:
        if theme is not None:
            return theme
        from dbos_notebook.session import current  # as in `source`

        return cast("Theme", current().settings.theme)  # one of its words

    @property
    def _holds_steps(self) -> bool:
        return list(self._frame.index.names) == [WORKFLOW, "step"] and {"name", "started", "tries"} <= set(self._frame)

    def _own_runs(self) -> pd.DataFrame:
        """The frame as it is, if it has what figures need, and else what the database has of its workflows."""
        needed = {"created", "started", "completed", "status", "queue"}
        is_whole = self._frame.index.name == WORKFLOW and needed <= set(self._frame)
        return self._frame if is_whole else self.source.runs(workflow_ids=self.ids, values=False)

    # -- actions -----------------------------------------------------------------------------------------------

    def cancel(self, *, confirm: bool = False) -> list[str]:
        """Cancel them, and return their ids. For more than one, `confirm=True` is asked for."""
        return self.source.cancel(*self._confirmed("cancel", confirm=confirm, most=1))

    def resume(self) -> list[str]:
        """Let them go on at their first incomplete steps, and return their ids."""
        return self.source.resume(*self.ids)

    def fork(
        self,
        from_: int | str = "failed",
        *,
        version: str | None = None,
        outputs: dict[int, Any] | None = None,
    ) -> pd.DataFrame:
        """Fork each of them, and return the forks as a frame.

        `from_` is the number of the first step that is run anew, or the name of one; by default it is the step that
        failed, else the first that is not complete.
        """
        step = None if from_ == "failed" else from_
        source = self.source
        # All are looked up before the first is forked: a name that one of them lacks forks none.
        cuts = {each: source.step_to_fork_from(each, step) for each in self.ids}
        forks = [source.fork(each, cut, version=version, outputs=outputs) for each, cut in cuts.items()]
        return source.runs(workflow_ids=forks)

    def delete(self, *, confirm: bool = False) -> list[str]:
        """Delete them with everything that belongs to them, and return their ids; `confirm=True` is asked for."""
        return self.source.delete(*self._confirmed("delete", confirm=confirm, most=0))

    def _confirmed(self, verb: str, *, confirm: bool, most: int) -> Sequence[str]:
        ids = self.ids
        if len(ids) > most and not confirm:
            number = f"{len(ids):,} workflow{'s' if len(ids) > 1 else ''}"
            raise NotConfirmedError(f"this would {verb} {number}; if that is meant: .dbos.{verb}(confirm=True)")
        return ids
