"""Which workflows a filter describes: its check, its conditions, their order and pages.

Whatever lists, counts, exports or repairs workflows asks here, so that one filter means one thing everywhere.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING, Any

from sqlalchemy import ColumnElement, and_, or_, select, text, union_all

from dbos._engine.attributes import attributes_text
from dbos._kernel.clock import epoch_ms_of
from dbos._kernel.model import DELAYED, ENQUEUED, PENDING, UNFINISHED, Words, WorkflowFilter, WorkflowStatusString
from dbos._kernel.naming import sought
from dbos._kernel.schema import OF_A_LISTING
from dbos._kernel.statement import FAILED, IN_FLIGHT, has_status, one_of

if TYPE_CHECKING:
    from sqlalchemy import Select

    from dbos._kernel.schema import Tables

QUEUED = (ENQUEUED, PENDING, DELAYED)
STATUSES = frozenset(each.value for each in WorkflowStatusString)

# The conditions that compare a column with words.
WORD_COLUMNS = {
    "workflow_ids": "workflow_uuid",
    "status": "status",
    "name": "name",
    "app_version": "application_version",
    "forked_from": "forked_from",
    "parent_workflow_id": "parent_workflow_id",
    "user": "authenticated_user",
    "queue_name": "queue_name",
    "executor_id": "executor_id",
}

# All conditions that are told in words.
WORD_KEYS = (*WORD_COLUMNS, "workflow_id_prefix")


def conditions(t: Tables, wanted: WorkflowFilter) -> list[ColumnElement[bool]]:
    c = t.status.c
    found: list[ColumnElement[bool]] = []
    for key, column in WORD_COLUMNS.items():
        words = words_of(wanted.get(key))  # type: ignore[arg-type]  # these keys all hold words
        if words is not None and key == "status":
            found.append(_has_one_of(t, words))
        elif words is not None:
            found.append(c[column] == words[0] if len(words) == 1 else c[column].in_(words))
    if not _are_few(wanted):
        found.append(and_(text(OF_A_LISTING)))
    prefixes = words_of(wanted.get("workflow_id_prefix"))
    if prefixes is not None:
        found.append(or_(*(_begins(t, each) for each in prefixes)))
    if (start := wanted.get("start_time")) is not None:
        found.append(c.created_at >= epoch_ms_of(start))
    if (end := wanted.get("end_time")) is not None:
        found.append(c.created_at <= epoch_ms_of(end))
    if wanted.get("queues_only"):
        found.append(c.queue_name.isnot(None))
        if wanted.get("status") is None:
            found.append(_has_one_of(t, QUEUED))
    if (was_forked_from := wanted.get("was_forked_from")) is not None:
        found.append(c.was_forked_from.is_(was_forked_from))
    if (has_parent := wanted.get("has_parent")) is not None:
        found.append(c.parent_workflow_id.isnot(None) if has_parent else c.parent_workflow_id.is_(None))
    if (attributes := wanted.get("attributes")) is not None:
        found.append(t.dialect.contains(t.attributes, attributes_text(attributes)))
    return found


def _moment(t: Tables, wanted: WorkflowFilter) -> ColumnElement[Any]:
    """The moment of creation, to sort by: where all that matches is before its end, the indexes of that are small."""
    return t.dialect.off_index(t.status.c.created_at) if _statuses(wanted) <= UNFINISHED else t.status.c.created_at


def _are_few(wanted: WorkflowFilter) -> bool:
    """Whether the statuses alone leave few: then the index of those is better than one of names or users."""
    return _statuses(wanted) <= {*UNFINISHED, *FAILED}


def _statuses(wanted: WorkflowFilter) -> set[str]:
    """All that a match may have."""
    asked = words_of(wanted.get("status"))
    if asked is None:
        return set(QUEUED) if wanted.get("queues_only") else set(STATUSES)
    return set(asked)


def _has_one_of(t: Tables, statuses: Iterable[str]) -> ColumnElement[bool]:
    """The workflow has one of these statuses; but for success they are told as their partial indexes tell them."""
    asked = set(statuses)
    if asked and asked <= set(FAILED):
        return and_(one_of(t.status.c.status, asked), one_of(t.status.c.status, FAILED))
    if not asked or not asked <= UNFINISHED:
        return t.status.c.status.in_(sorted(asked))
    running = asked & set(IN_FLIGHT)
    in_flight = and_(one_of(t.status.c.status, running), one_of(t.status.c.status, IN_FLIGHT))
    if DELAYED not in asked:
        return in_flight
    if not running:
        return has_status(t, DELAYED)
    if t.dialect.has_schemas:
        return or_(in_flight, has_status(t, DELAYED))
    # Looked up apart: for an OR of the two SQLite takes neither of their indexes.
    each = (select(t.status.c.workflow_uuid).where(one).correlate(None) for one in (in_flight, has_status(t, DELAYED)))
    return t.status.c.workflow_uuid.in_(union_all(*each))


def _begins(t: Tables, prefix: str) -> ColumnElement[bool]:
    c = t.status.c
    begins = c.workflow_uuid.startswith(prefix, autoescape=True)
    if t.dialect.has_schemas:
        return begins
    # SQLite takes no index for LIKE, which there means small and capital letters alike.
    return and_(c.workflow_uuid >= prefix, c.workflow_uuid < f"{prefix}\U0010ffff", begins)


def words_of(words: Words) -> list[str] | None:
    return [words] if isinstance(words, str) else words


def paged(query: Select[Any], limit: int | None, offset: int | None) -> Select[Any]:
    """At most `limit` rows after the first `offset`; 0 and None are no bounds, as such programs expect."""
    for what, number in (("limit", limit), ("offset", offset)):
        if number is not None and number < 0:
            raise ValueError(f"{what} must not be negative, but is {number}")
    return query.limit(limit or None).offset(offset or None)


def checked(wanted: WorkflowFilter) -> WorkflowFilter:
    """The filter, if all its words mean something. A misspelt one would list everything, or nothing."""
    unknown = sorted(set(wanted) - set(WorkflowFilter.__annotations__))
    if unknown:
        raise TypeError(f"a listing has no such condition: {', '.join(unknown)}")
    for key in WORD_KEYS:
        for word in words_of(wanted.get(key)) or ():  # type: ignore[arg-type]  # these keys all hold words
            sought(word, f"{key}:")
    strange = sorted(set(words_of(wanted.get("status")) or ()) - STATUSES)
    if strange:
        raise ValueError(f"there is no status {', '.join(strange)}; there are {', '.join(sorted(STATUSES))}")
    return wanted


def describes_none(wanted: WorkflowFilter) -> bool:
    """Whether the filter asks for one of none."""
    return [] in (words_of(wanted.get(key)) for key in WORD_KEYS)  # type: ignore[arg-type]  # these keys all hold words


def select_matching(t: Tables, wanted: WorkflowFilter, *columns: ColumnElement[Any]) -> Select[Any]:
    """These columns of the workflows that a filter describes, in its order, on its page."""
    c = t.status.c
    query = select(*columns).where(*conditions(t, wanted))
    # The id decides between workflows of one millisecond, so that pages neither overlap nor leave a gap.
    order = (_moment(t, wanted), c.workflow_uuid)
    query = query.order_by(*(each.desc() if wanted.get("sort_desc") else each.asc() for each in order))
    return paged(query, wanted.get("limit"), wanted.get("offset"))
