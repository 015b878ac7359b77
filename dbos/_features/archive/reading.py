"""Reading an archive: all of it is checked before any of it is written, and each workflow is one transaction.

What is there already with the same content is passed over, so an import that was interrupted is simply repeated. No
workflow runs by surprise: one that had not ended comes as CANCELLED, to be resumed by whoever wants that.
"""

from __future__ import annotations

import io
import json
import os
import shutil
import tempfile
import uuid
from collections import Counter
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any

from dbos._features.archive.lines import (
    FORMAT,
    OWNED,
    SORTS,
    VERSION,
    Group,
    Place,
    Progress,
    Values,
    defaults,
    read_groups,
    required,
    sorts_in,
    types_of,
    write_row,
)
from dbos._kernel.bell import done, queued
from dbos._kernel.job import Tx
from dbos._kernel.journal import refuse_in_transaction
from dbos._kernel.model import CANCELLED, DELAYED, ENQUEUED, INTERNAL_QUEUE, UNFINISHED, WorkflowStatusString
from dbos._kernel.naming import checked_id
from dbos._kernel.plan import op, perform
from dbos._kernel.scope import Here
from dbos._kernel.slot import slots_in
from dbos._kernel.store import PATIENCE_SECONDS, Blocking
from dbos.error import DBOSException, DBOSSchemaError, DBOSSerializationError

if TYPE_CHECKING:
    from dbos._kernel.bell import Channel
    from dbos._kernel.scope import Ground
    from dbos._kernel.slot import Slot
    from dbos._kernel.statement import Conn

STATUSES = frozenset(each.value for each in WorkflowStatusString)


@op("DBOS.importWorkflows")
async def import_workflows(
    here: Here,
    path_or_file: Place,
    *,
    new_ids: bool = False,
    resume: bool = False,
    progress: Progress | None = None,
) -> list[str]:
    """Write the workflows of an archive into this database; return the ids of those that were not there yet.

    The whole archive is checked first: its header, every line, its counts. Then each workflow is one transaction with
    all it owns. One that is there with the same content is passed over; with another content it raises DBOSException,
    and so does whatever is wrong in the archive, with the number of its line. `new_ids` makes copies: all ids in the
    archive are replaced, also where parents, forks and steps name them; values that are signed are signed anew, and
    refused where their keys are not known.

    A workflow that had not ended comes as CANCELLED, off its queue; with `resume` it is enqueued instead, on its queue
    or at once, and one that is delayed stays so. `progress` is called with the number of workflows done. Nothing is
    decoded, and nothing is recorded in a workflow.
    """
    refuse_in_transaction(here, "DBOS.importWorkflows")
    work = partial(_import, here.ground, path_or_file, new_ids, resume, progress)
    made: list[str] = await Blocking(here.ground.store, work)
    return made


def _import(ground: Ground, source: Place, new_ids: bool, resume: bool, progress: Progress | None) -> list[str]:
    made: list[str] = []
    with _twice(source) as file:
        check = _Check(ground)
        for group in check.groups(file):
            if new_ids:
                _ensure_ours(ground, group)
        check.finish()
        sorts = ground.store.read(sorts_in)
        lacking = sorted(set(check.counts) - set(sorts))
        if lacking or (check.has_attributes and ground.store.tables.layout.attributes == "nowhere"):
            raise DBOSSchemaError(
                f"The database has no place for what the archive holds ({', '.join(lacking) or 'attributes'}): "
                "launch the application once"
            )
        rename = _Renaming(ground, check.ids) if new_ids else None
        file.seek(0)
        for number, group in enumerate(_Check(ground).groups(file), 1):
            if rename is not None:
                rename.group(group)
            _settle(group, resume)
            if _write(ground, group, sorts):
                made.append(group.id)
            if progress is not None:
                progress(number)
    return made


@contextmanager
def _twice(source: Place) -> Iterator[IO[bytes]]:
    """The archive as a file that can be read twice."""
    if isinstance(source, str | os.PathLike):
        with Path(source).open("rb") as file:
            yield file
        return
    with tempfile.TemporaryFile() as copy:
        if isinstance(source, io.TextIOBase):
            for line in source:
                copy.write(line.encode())
        else:
            shutil.copyfileobj(source, copy)  # type: ignore[misc]  # what is no text file gives bytes
        copy.seek(0)
        yield copy


# -- checking --------------------------------------------------------------------------------------------------


class _Check:
    """Reads the lines of an archive, and refuses what is none."""

    def __init__(self, ground: Ground) -> None:
        t = ground.store.tables
        self.types = {sort: types_of(t, sort) for sort in SORTS}
        self.defaults = {sort: defaults(t, sort) for sort in SORTS}
        self.required = {sort: required(t, sort) for sort in SORTS}
        self.counts: Counter[str] = Counter()
        self.has_attributes = False
        #: Each workflow with its line, its parent and what it was forked from.
        self.ids: dict[str, tuple[int, str | None, str | None]] = {}
        self.number = 0

    def groups(self, file: IO[bytes]) -> Iterator[Group]:
        """The workflows, each with all it owns."""
        group: Group | None = None
        ended, sources = False, []
        for self.number, line in enumerate(file, 1):
            sort, values = self._parsed(line)
            if ended:
                raise self.wrong("there is something after the footer")
            if (sort == "header") != (self.number == 1):
                raise self.wrong("an archive begins with a header, and has one")
            if sort == "header":
                self._check_header(values)
            elif sort == "footer":
                ended = True
                self._check_counts(values)
            else:
                self._check_row(sort, values)
                if sort == "source":
                    sources.append(values)
                elif sort == "workflow":
                    if group is not None:
                        yield group
                    group = Group(values, {"source": sources} if sources else {}, self.number)
                    sources = []
                else:
                    self._add(group, sort, values)
        if not ended:
            raise self.wrong("the archive has no footer: the rest of it is missing")
        if group is not None:
            yield group

    def finish(self) -> None:
        """Refuse workflows that are their own ancestors."""
        for place, what in ((1, "parent_workflow_id"), (2, "forked_from")):
            harmless: set[str] = set()
            for workflow_id in self.ids:
                path: dict[str, None] = {}
                each: str | None = workflow_id
                while each in self.ids and each not in harmless:
                    if each in path:
                        self.number = int(self.ids[each][0])
                        raise self.wrong(f"workflow {each!r} is its own ancestor by {what}")
                    path[each] = None
                    each = self.ids[each][place]  # type: ignore[assignment]  # both are ids or None
                harmless.update(path)

    def wrong(self, why: str) -> DBOSException:
        return DBOSException(f"Line {self.number} of the archive: {why}")

    def _parsed(self, line: bytes) -> tuple[str, Values]:
        try:
            found = json.loads(line)
        except (ValueError, RecursionError) as error:
            raise self.wrong(f"it is no JSON ({error})") from None
        if not isinstance(found, dict) or len(found) != 1 or not isinstance(next(iter(found.values())), dict):
            raise self.wrong("it is not one row under the name of its sort")
        ((sort, values),) = found.items()
        if sort not in (*SORTS, "header", "footer"):
            raise self.wrong(f"there is no sort of row {sort!r}")
        return sort, values

    def _check_header(self, values: Values) -> None:
        if values.get("format") != FORMAT:
            raise self.wrong(f"this is no archive of workflows: its format is {values.get('format')!r}")
        if values.get("version") != VERSION:
            raise self.wrong(f"this release reads version {VERSION} of the format, and not {values.get('version')!r}")

    def _check_counts(self, values: Values) -> None:
        if values != dict(self.counts):
            raise self.wrong(f"the footer counts {values}, but there are {dict(self.counts)}")

    def _check_row(self, sort: str, values: Values) -> None:
        types = self.types[sort]
        for name, value in values.items():
            if name not in types:
                raise self.wrong(f"a {sort} has no column {name!r}")
            if type(value) is not types[name]:
                raise self.wrong(f"{name} must be of type {types[name].__name__}, not {type(value).__name__}")
            if isinstance(value, str) and not _is_storable(value):
                raise self.wrong(f"{name} contains a character that cannot be stored")
            if isinstance(value, int) and not -(2**63) <= value < 2**63:
                raise self.wrong(f"{name} is too large a number")
        missing = sorted(self.required[sort] - set(values))
        if missing:
            raise self.wrong(f"a {sort} must have {', '.join(missing)}")
        values |= {name: value for name, value in self.defaults[sort].items() if name not in values}
        self.counts[sort] += 1
        if sort == "workflow":
            self._check_workflow(values)

    def _check_workflow(self, values: Values) -> None:
        workflow_id = values["workflow_uuid"]
        try:
            checked_id(workflow_id, "The id of a workflow")
        except DBOSException as error:
            raise self.wrong(error.message) from None
        if values["status"] not in STATUSES:
            raise self.wrong(f"there is no status {values['status']!r}")
        if workflow_id in self.ids:
            raise self.wrong(f"workflow {workflow_id!r} is on line {self.ids[workflow_id][0]} already")
        if "attributes" in values:
            self.has_attributes = True
            try:
                is_object = isinstance(json.loads(values["attributes"]), dict)
            except (ValueError, RecursionError):
                is_object = False
            if not is_object:
                raise self.wrong("attributes must be a JSON object")
        self.ids[workflow_id] = (self.number, values.get("parent_workflow_id"), values.get("forked_from"))

    def _add(self, group: Group | None, sort: str, values: Values) -> None:
        if group is None or values[OWNED[sort].owner] != group.id:
            raise self.wrong(
                f"a {sort} of workflow {values[OWNED[sort].owner]!r} must follow the line of that workflow"
            )
        group.rows.setdefault(sort, []).append(values)


def _is_storable(text: str) -> bool:
    """Neither database can hold the rest."""
    if "\0" in text:
        return False
    try:
        text.encode()
    except UnicodeEncodeError:
        return False
    return True


# -- changing --------------------------------------------------------------------------------------------------


class _Renaming:
    """Gives everything in an archive ids that nobody has."""

    def __init__(self, ground: Ground, ids: Mapping[str, Any]) -> None:
        # Made from the old ids: a table of all pairs would be as large as the archive has workflows.
        self.ground, self.ids, self.namespace = ground, ids, uuid.uuid4()

    def group(self, group: Group) -> None:
        self._row("workflow", group.workflow)
        for sort in OWNED:
            for values in group.rows.get(sort, ()):
                self._row(sort, values)
                if sort == "message":
                    values["message_uuid"] = str(uuid.uuid5(self.namespace, f"message {values['message_uuid']}"))

    def _row(self, sort: str, values: Values) -> None:
        before = _slots(self.ground, sort, values)
        for name in (SORTS[sort].owner, *SORTS[sort].refers):
            if values.get(name) in self.ids:
                values[name] = str(uuid.uuid5(self.namespace, values[name]))
        for name, slot in _slots(self.ground, sort, values).items():
            values[name] = self.ground.codec.moved(values[name], values.get("serialization"), before[name], slot)


def _slots(ground: Ground, sort: str, values: Values) -> dict[str, Slot]:
    """The slots of a row's values that are bound to them."""
    if not ground.codec.is_bound(values.get("serialization")):
        return {}
    table = SORTS[sort].table(ground.store.tables).name
    return {name: slot for name, slot in slots_in(table, values).items() if name in values}


def _ensure_ours(ground: Ground, group: Group) -> None:
    """Refuse to copy what cannot be signed anew: it would be readable nowhere."""
    rows = [("workflow", group.workflow), *((sort, each) for sort in OWNED for each in group.rows.get(sort, ()))]
    for sort, values in rows:
        for name, slot in _slots(ground, sort, values).items():
            try:
                ground.codec.moved(values[name], values.get("serialization"), slot, slot)
            except DBOSSerializationError as error:
                raise DBOSException(
                    f"Workflow {group.id!r} (line {group.line} of the archive) cannot get a new id, because its values "
                    f"are signed: {error}"
                ) from error


def _settle(group: Group, resume: bool) -> None:
    """Let a workflow that has not ended not run, or only where that is wished."""
    row = group.workflow
    if row["status"] not in UNFINISHED:
        return
    for name in ("deduplication_id", "started_at_epoch_ms"):
        row.pop(name, None)
    if not resume:
        row.pop("queue_name", None)
        row["status"], row["completed_at"] = CANCELLED, row["updated_at"]
        return
    row.setdefault("queue_name", INTERNAL_QUEUE)
    row["recovery_attempts"] = 0
    row.pop("workflow_deadline_epoch_ms", None)
    if row["status"] != DELAYED:
        row["status"] = ENQUEUED


# -- writing ---------------------------------------------------------------------------------------------------


def _write(ground: Ground, group: Group, sorts: list[str]) -> bool:
    """Write a workflow with all it owns; False: it is there already."""
    rings: list[Channel] = []

    def work(conn: Conn) -> bool:
        if not write_row(conn, "workflow", group.workflow):
            (there,) = read_groups(conn, [group.id], sorts).values() or (None,)
            if there is not None and _content(conn, there) == _content(conn, group):
                return False
            raise DBOSException(
                f"Workflow {group.id!r} (line {group.line} of the archive) is there already with another content, or "
                "its place on a queue is taken; import it with new ids, or delete the one that is there"
            )
        for values in group.rows.get("source", ()):
            write_row(conn, "source", values)
        for sort in OWNED:
            for values in group.rows.get(sort, ()):
                if not write_row(conn, sort, values):
                    raise DBOSException(
                        f"A {sort} of workflow {group.id!r} (line {group.line} of the archive) is there already"
                    )
        rings[:] = [done(group.id), *([queued(group.workflow["queue_name"])] if "queue_name" in group.workflow else [])]
        return True

    return perform(Tx(ground.store.lane, work, rings, PATIENCE_SECONDS))


def _content(conn: Conn, group: Group) -> tuple[Any, ...]:
    """What two workflows have in common that are the same."""
    row = dict(group.workflow)
    if not conn.tables.layout.extended:
        row.pop("completed_at", None)  # there is no place for it
    attributes = row.pop("attributes", None)
    return row, attributes and json.loads(attributes), [_ordered(group, sort) for sort in OWNED]


def _ordered(group: Group, sort: str) -> list[str]:
    return sorted(json.dumps(values, sort_keys=True) for values in group.rows.get(sort, ()))
