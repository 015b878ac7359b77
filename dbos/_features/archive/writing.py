"""Writing an archive: workflows are read some at a time, each with all it owns as of one moment.

The memory that it takes depends on the largest workflow and not on how many there are (besides the ids of those that
were written, where children are taken along). A file appears whole or not at all.
"""

from __future__ import annotations

import errno
import io
import os
import tempfile
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any, cast

from sqlalchemy import and_, or_

from dbos._engine.many import with_descendants
from dbos._engine.selection import checked, describes_none, select_matching
from dbos._features.archive.lines import (
    FORMAT,
    OWNED,
    READ,
    SIZES,
    VERSION,
    Place,
    Progress,
    line_of,
    read_groups,
    sorts_in,
    types_of,
    values_of,
)
from dbos._kernel.journal import refuse_in_transaction
from dbos._kernel.model import WorkflowFilter
from dbos._kernel.plan import op
from dbos._kernel.scope import Here
from dbos._kernel.store import Blocking
from dbos.error import DBOSException, DBOSNonExistentWorkflowError

if TYPE_CHECKING:
    from dbos._features.archive.lines import Group
    from dbos._kernel.statement import Conn
    from dbos._kernel.store import Store

# So many workflows are looked up at once, and of those so many characters read.
PAGE, MOST_CHARACTERS = 100, 8_000_000


@op("DBOS.exportWorkflows")
async def export_workflows(
    here: Here,
    /,
    path_or_file: Place,
    workflow_ids: list[str] | None = None,
    *,
    with_children: bool = True,
    progress: Progress | None = None,
    **filters: Any,
) -> dict[str, int]:
    """Write workflows with all they own to a file, as lines of JSON; return how many rows of each sort.

    All workflows, or those of `workflow_ids`, or those that match the `filters` of `list_workflows`; `with_children`
    takes along what they started, and so on. What goes along: inputs and outcome, steps, messages, events and their
    history, streams, attributes, and the notes and sources that an extension kept. Nothing is decoded. A file that is
    given by its path appears when it is whole, readable by its owner only. `progress` is called with the number of
    workflows written. Raises DBOSNonExistentWorkflowError for an unknown id. Nothing is recorded in a workflow.
    """
    refuse_in_transaction(here, "DBOS.exportWorkflows")
    if isinstance(workflow_ids, str):
        raise TypeError(f"export_workflows takes a list of ids, not one: [{workflow_ids!r}]")
    # Any, because the ids are one of the conditions that a filter can have, and stand here by themselves.
    wanted = checked(cast("WorkflowFilter", filters))
    if workflow_ids is not None and wanted:
        raise DBOSException("An export is of these ids or of what matches conditions: give one of both")
    if wanted.get("offset"):
        raise DBOSException("An export has no offset: give other conditions, or the ids")
    export = _Export(here.ground.store, workflow_ids, wanted, with_children, progress)
    counts: dict[str, int] = await Blocking(here.ground.store, partial(_to_target, path_or_file, export))
    return counts


class _Export:
    """One export: which workflows, and how far it is."""

    def __init__(
        self,
        store: Store,
        workflow_ids: list[str] | None,
        wanted: WorkflowFilter,
        with_children: bool,
        progress: Progress | None,
    ) -> None:
        self.store, self.workflow_ids, self.wanted = store, workflow_ids, wanted
        self.with_children, self.progress = with_children, progress
        self.counts: Counter[str] = Counter()
        self.sorts = store.read(sorts_in)
        self._written: set[str] = set()
        self._versions: set[str] = set()

    def lines(self) -> Iterator[str]:
        """The whole archive."""
        yield line_of("header", {"format": FORMAT, "version": VERSION})
        for ids in self._pages():
            for some in self._portions(ids):
                groups = self.store.snapshot(partial(read_groups, workflow_ids=some, sorts=self.sorts))
                for each in some:
                    if each in groups:  # else it was deleted just now
                        yield from self._lines_of(groups[each])
            if self.progress is not None:
                self.progress(self.counts["workflow"])
        yield line_of("footer", dict(self.counts))

    def _lines_of(self, group: Group) -> Iterator[str]:
        version = group.workflow.get("application_version")
        if version is not None and version not in self._versions and "source" in self.sorts:
            self._versions.add(version)
            for row in self.store.read(lambda conn: conn.run(READ["source"], workflow_ids=[version])):
                yield self._line("source", values_of(row, types_of(self.store.tables, "source")))
        yield self._line("workflow", group.workflow)
        for sort in OWNED:
            for values in group.rows.get(sort, ()):
                yield self._line(sort, values)

    def _line(self, sort: str, values: dict[str, Any]) -> str:
        self.counts[sort] += 1
        return line_of(sort, values)

    # -- which ---------------------------------------------------------------------------------------------------

    def _pages(self) -> Iterator[list[str]]:
        """The ids of what is exported, each once."""
        found = self._matching() if self.workflow_ids is None else self._named(self.workflow_ids)
        # Without a condition children come by themselves.
        takes_children = self.with_children and (self.workflow_ids is not None or bool(self.wanted))
        for page in found:
            if not takes_children:
                yield page
                continue
            family = self.store.read(partial(with_descendants, workflow_ids=page))
            new = [each for each in family if each not in self._written]
            self._written.update(new)
            for first in range(0, len(new), PAGE):
                yield new[first : first + PAGE]

    def _named(self, workflow_ids: list[str]) -> Iterator[list[str]]:
        ids = list(dict.fromkeys(workflow_ids))
        for first in range(0, len(ids), PAGE):
            some = ids[first : first + PAGE]
            known = {each for page in self._matching(some) for each in page}
            for each in some:
                if each not in known:
                    raise DBOSNonExistentWorkflowError("export", each)
            yield [each for each in some if each in known]

    def _matching(self, among: list[str] | None = None) -> Iterator[list[str]]:
        """The workflows that the filter describes, a page at a time: each begins where the last one ended."""
        wanted: WorkflowFilter = {**self.wanted} if among is None else {"workflow_ids": among}
        left, newest_first = wanted.get("limit") or None, bool(wanted.get("sort_desc"))
        if describes_none(wanted):
            return
        last: tuple[int, str] | None = None
        while left is None or left > 0:
            size = PAGE if left is None else min(PAGE, left)
            rows = self.store.read(
                partial(_page, wanted={**wanted, "limit": size}, last=last, newest_first=newest_first)
            )
            if not rows:
                return
            left = None if left is None else left - len(rows)
            last = (rows[-1].created_at, rows[-1].workflow_uuid)
            yield [row.workflow_uuid for row in rows]

    def _portions(self, ids: list[str]) -> Iterator[list[str]]:
        """The workflows of a page in portions that are not too large to be held."""
        sizes: Counter[str] = Counter()
        for row in self.store.read(lambda conn: conn.run(SIZES, workflow_ids=ids)):
            sizes[row.id] += int(row.size or 0)
        portion: list[str] = []
        characters = 0
        for each in ids:
            if portion and characters + sizes[each] > MOST_CHARACTERS:
                yield portion
                portion, characters = [], 0
            portion.append(each)
            characters += sizes[each]
        if portion:
            yield portion


def _page(conn: Conn, wanted: WorkflowFilter, last: tuple[int, str] | None, *, newest_first: bool) -> list[Any]:
    c = conn.tables.status.c
    query = select_matching(conn.tables, wanted, c.workflow_uuid, c.created_at)
    if last is not None:
        at, workflow_id = last
        if newest_first:
            query = query.where(and_(c.created_at <= at, or_(c.created_at < at, c.workflow_uuid < workflow_id)))
        else:
            query = query.where(and_(c.created_at >= at, or_(c.created_at > at, c.workflow_uuid > workflow_id)))
    return conn.run_once(query)


# -- where to --------------------------------------------------------------------------------------------------


def _to_target(target: Place, export: _Export) -> dict[str, int]:
    if isinstance(target, str | os.PathLike):
        with _appearing(Path(target)) as file:
            for line in export.lines():
                file.write(line)
    elif isinstance(target, io.TextIOBase):
        for line in export.lines():
            target.write(line)
    else:
        for line in export.lines():
            cast("IO[bytes]", target).write(line.encode())
    return dict(export.counts)


@contextmanager
def _appearing(path: Path) -> Iterator[IO[str]]:
    """A file that takes its name only when all of it is on the disk."""
    if path.exists() and not path.is_file():
        # A pipe or a device is written to: a file in its place would take it from everybody. A folder is refused by this.
        with path.open("w", encoding="utf-8", newline="\n") as file:
            yield file
        return
    path = path.resolve()  # what a link names is replaced, and not the link
    if not path.parent.is_dir():
        raise FileNotFoundError(errno.ENOENT, os.strerror(errno.ENOENT), str(path))
    handle, name = tempfile.mkstemp(prefix=f".{path.name[:100]}.", dir=path.parent, text=False)
    try:
        with os.fdopen(handle, "w", encoding="utf-8", newline="\n") as file:
            yield file
            file.flush()
            os.fsync(file.fileno())
        Path(name).replace(path)
    except BaseException:
        Path(name).unlink(missing_ok=True)
        raise
