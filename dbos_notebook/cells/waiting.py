"""Runs that wait for their code: after a restart the work is there, and the functions are not yet.

The runtime takes up what waits as soon as the very code it began with is defined. Where the code has changed it
leaves the choice: go on with the new code, fork, cancel, or leave it.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from dbos import extension
from dbos_notebook.views.words import short

if TYPE_CHECKING:
    from dbos import DBOSClient

MOST_NAMED = 3
# So many that are ready to run are looked at after a cell.
MOST_LOOKED_AT = 200


@dataclass(frozen=True)
class Waiting:
    """The runs of one workflow that wait for one version of its code."""

    name: str
    version: str | None
    ids: tuple[str, ...]

    @property
    def is_known(self) -> bool:
        """Whether the workflow is defined here, in this or another version."""
        return self.name in extension.defined_versions()

    def __str__(self) -> str:
        some = ", ".join(short(each) for each in self.ids[:MOST_NAMED])
        more = len(self.ids) - MOST_NAMED
        return f"{self.name} {some}" + (f" and {more} more" if more > 0 else "")


def waiting(client: DBOSClient) -> list[Waiting]:
    """What is ready to run and finds no code in this kernel."""
    ready = client.list_workflows(status="ENQUEUED", limit=MOST_LOOKED_AT, load_input=False, load_output=False)
    groups: dict[tuple[str, str | None], list[str]] = {}
    for run in ready:
        if not run.name.startswith("<temp>") and not extension.is_defined(run.name, run.app_version):
            groups.setdefault((run.name, run.app_version), []).append(run.workflow_id)
    return [Waiting(name, version, tuple(ids)) for (name, version), ids in groups.items()]


def on_load(groups: list[Waiting]) -> str:
    """What to say of them when the extension is loaded; empty where nothing waits."""
    if not groups:
        return ""
    number = sum(len(each.ids) for each in groups)
    runs = f"{number} run{' waits' if number == 1 else 's wait'}"
    return f"{runs} for code: {'; '.join(map(str, groups))}. Run the cells that define it."


def on_change(group: Waiting) -> str:
    """What to say when the workflow of these runs is defined, but not as they began."""
    first = short(group.ids[0])
    return (
        f"{group.name} is defined with other code than these runs began with: {group}. They wait. "
        f"%dbos resume {first} --new-code | %dbos fork {first} | %dbos cancel {first} | or leave them."
    )
