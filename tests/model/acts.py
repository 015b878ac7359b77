"""What may be done to workflows, as strategies: an act is the name of a method of the machine, and its arguments.

One choice among all of them, with weights, and not a Hypothesis rule for each: rules are switched on and off for whole
examples, which is good for finding, but lets forty examples miss half of what they should meet.
"""

from __future__ import annotations

from typing import Any

from hypothesis import strategies as st

from tests.model.records import DEAD_LETTER
from tests.model.reference import INTERNAL_QUEUE
from tests.model.scripts import SCRIPTS, SERIAL, TALKING

UNSERVED = "served-by-nobody"

Act = tuple[Any, ...]


def _ids(machine: Any) -> list[str]:
    return sorted(machine.reference.workflows) or ["nobody"]


names = st.sampled_from(["stages", "family", "household", *SCRIPTS])
timeouts = st.sampled_from([None, None, 3, 30])
#: The workflows at the start of an example, and how many of their steps have returned.
beginnings = st.lists(st.tuples(names, timeouts, st.integers(0, 4)), min_size=3, max_size=4)

first_ids, fork_ids, delayed_ids = st.sampled_from("abcd"), st.sampled_from("uvwxyzab"), st.sampled_from("pqr")
ids_there = st.runner().flatmap(lambda machine: st.sampled_from(_ids(machine)))
ids = st.runner().flatmap(lambda machine: st.sampled_from([*_ids(machine) * 4, "nobody"]))
one_id = ids_there.map(lambda each: [each])
lists_of_ids = st.lists(ids_there, min_size=1, max_size=3)
several_ids = one_id | one_id | lists_of_ids | lists_of_ids.map(lambda each: [*each, "nobody"])
queues = st.sampled_from([None, None, UNSERVED])
seconds = st.sampled_from([0, 0.01, 2, 5, 40])
booleans = st.booleans()

statuses = st.sampled_from(["PENDING", "ENQUEUED", "DELAYED", "SUCCESS", "ERROR", "CANCELLED", DEAD_LETTER])
conditions: dict[str, st.SearchStrategy[Any]] = {
    "workflow_ids": several_ids,
    "status": statuses | st.lists(statuses, min_size=1, max_size=3),
    "name": names,
    "app_version": st.just("v1"),
    "forked_from": ids,
    "parent_workflow_id": ids,
    "queue_name": st.sampled_from([INTERNAL_QUEUE, UNSERVED]),
    "workflow_id_prefix": first_ids,
    "was_forked_from": booleans,
    "has_parent": booleans,
    "queues_only": booleans,
    "sort_desc": booleans,
    "limit": st.integers(0, 4),
    "offset": st.integers(0, 2),
}
filters = st.lists(st.sampled_from(sorted(conditions)), max_size=3, unique=True).flatmap(
    lambda keys: st.fixed_dictionaries({key: conditions[key] for key in keys})
)


def _act(name: str, *arguments: st.SearchStrategy[Any], weight: int = 2) -> list[st.SearchStrategy[Act]]:
    return [st.tuples(st.just(name), *arguments)] * weight


acts: st.SearchStrategy[Act] = st.one_of(
    *_act("go_on", ids_there, st.integers(1, 4), weight=4),
    *_act("let_a_fenced_step_return", st.integers(0, 3), weight=3),
    *_act("start", first_ids, names, timeouts),
    *_act("start_again", ids_there, weight=1),
    *_act("enqueue_with_a_delay", delayed_ids, st.sampled_from(["at_once", "stages"]), queues, seconds, weight=1),
    *_act("cancel", several_ids, booleans),
    *_act("resume", several_ids, queues),
    *_act("fork", ids, st.integers(0, 5), fork_ids, queues, st.none() | ids_there),
    *_act("delete", several_ids, booleans, weight=1),
    *_act("set_delay", ids, seconds, weight=1),
    *_act("pass_time", seconds),
    *_act("die_and_relaunch", seconds, weight=1),
    *_act("recover", weight=1),
    *_act("wait_by_an_old_handle"),
    *_act("look", filters, ids, st.integers(1, 4), st.integers(0, 3)),
)


# -- those of workflows that talk, and of queues -------------------------------------------------------------------

talkers = st.sampled_from(["listener", "listener", "speaker", "speaker", "asker", "chatterer", *TALKING])
no_timeout = st.none()
#: Who is told and asked is there at the beginning.
talking_beginnings = st.lists(st.tuples(talkers, no_timeout, st.integers(0, 4)), min_size=3, max_size=4)
queued_ids = st.sampled_from("efghijk")
#: Several at once, so that some wait behind others: a topic and perhaps a key of each.
letters = st.lists(
    st.tuples(st.sampled_from(["news", "news", "gossip"]), st.sampled_from([None, None, "one"])), min_size=2, max_size=3
)
#: A queue, with what can be said of a place on it: a priority, a deduplication id, a partition.
places = st.one_of(
    st.tuples(st.just("serial"), st.none(), st.sampled_from([None, "one", "one", "two"]), st.none()),
    st.tuples(st.just("ranked"), st.sampled_from([None, 1, 2, 3]), st.sampled_from([None, None, "one"]), st.none()),
    st.tuples(st.just("parted"), st.none(), st.none(), st.sampled_from(["left", "right"])),
)
soon = st.sampled_from([0.01, 2, 5])
queued_names = st.sampled_from(["errand", "errand", "at_once", "speaker", "listener", "foreman"])
orders = st.lists(
    st.tuples(queued_ids, queued_names, places, st.sampled_from([None, None, None, 0.01, 2])), min_size=2, max_size=4
)
#: Some forks take the place of a workflow that was deleted.
talking_fork_ids = st.sampled_from("uvwbc")
fork_queues = st.sampled_from([None, None, "serial"])

talks: st.SearchStrategy[Act] = st.one_of(
    *_act("go_on", ids_there, st.integers(1, 4), weight=7),
    *_act("let_a_fenced_step_return", st.integers(0, 3), weight=1),
    *_act("start", first_ids, talkers, no_timeout),
    *_act("enqueue_several", orders, weight=7),
    *_act("serve", st.sampled_from(SERIAL), weight=9),
    *_act("send_several", ids | first_ids, letters, weight=7),
    *_act("wait_for_event", ids | talking_fork_ids, st.sampled_from(["stage", "mood"])),
    *_act("cancel", several_ids, booleans, weight=1),
    *_act("resume", several_ids, st.sampled_from([None, "serial", "ranked"])),
    *_act("fork", ids_there, st.integers(2, 9), talking_fork_ids, fork_queues, st.none(), weight=5),
    *_act("delete", several_ids, booleans, weight=1),
    *_act("set_delay", ids, soon, weight=1),
    *_act("pass_time", seconds),
    *_act("die_and_relaunch", soon, weight=2),
    *_act("recover", weight=1),
    *_act("wait_by_an_old_handle", weight=1),
)
