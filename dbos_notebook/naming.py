"""Which workflow is meant by what somebody wrote: an id, the beginning of one, or an id in short as views tell it.

Nothing is guessed: of several that could be meant none is taken, but for a parent before its children, whose ids begin
with that of the parent.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

from dbos_notebook.views.words import LEFT_OUT

if TYPE_CHECKING:
    from dbos import WorkflowStatus

# So many workflows whose id begins with a word are looked at, the oldest first: a parent is older than its children.
MOST_MATCHES = 200

Listed = Callable[..., "list[WorkflowStatus]"]


class NotFoundError(LookupError):
    """There is no workflow, step or schedule of that name, or several whose id begins so."""


def named(listed: Listed, word: str) -> WorkflowStatus:
    """The one workflow whose id begins with the word, or is it in short."""
    start, left_out, end = word.partition(LEFT_OUT)
    if left_out:
        return _in_short(listed, word, start, end)
    matches = listed(workflow_id_prefix=word, limit=MOST_MATCHES) if word else []
    return _only([each for each in matches if not _comes_of_another(each, word)], word)


def _in_short(listed: Listed, word: str, start: str, end: str) -> WorkflowStatus:
    matches = listed(workflow_id_prefix=start, limit=MOST_MATCHES)
    # A child, however many there are: they all begin with the shortest, which is of the oldest.
    wanted = [f"{each.workflow_id}{end}" for each in sorted(matches, key=lambda each: len(each.workflow_id))[:1]]
    exact = listed(workflow_ids=wanted) if wanted else []
    return exact[0] if exact else _only([each for each in matches if each.workflow_id.endswith(end)], word)


def _comes_of_another(found: WorkflowStatus, word: str) -> bool:
    """Whether its id was made of that of its parent, or of what it is a fork of, which is meant by the same word.

    It is the other that is meant, or none if that is gone.
    """
    of = (found.parent_workflow_id, found.forked_from)
    return any(each and each.startswith(word) and found.workflow_id.startswith(each) for each in of)


def _only(matches: list[WorkflowStatus], word: str) -> WorkflowStatus:
    if len(matches) == 1:
        return matches[0]
    if not matches:
        raise NotFoundError(f"there is no workflow {word!r}, and none whose id begins so")
    some = ", ".join(each.workflow_id for each in matches[:2])
    raise NotFoundError(f"several workflows have ids that begin with {word!r}: {some}, ...; write more of it")
