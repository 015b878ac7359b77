"""The errors: their codes, their facts, and that each survives being stored."""

from __future__ import annotations

import pickle
from typing import Any

import pytest

from dbos import PortableWorkflowError, SetWorkflowID, WorkflowSerializationFormat, error
from tests.compat.rows import Rows
from tests.conftest import App
from tests.hand import Hand, Inside

# Class, arguments, code, and facts that are attributes.
ERRORS: list[tuple[str, tuple[Any, ...], int | None, dict[str, Any]]] = [
    ("DBOSWorkflowConflictIDError", ("w",), 1, {}),
    ("DBOSRecoveryError", ("w", "Workflow status not found"), 2, {}),
    ("DBOSInitializationError", ("no good",), 3, {}),
    ("DBOSWorkflowFunctionNotFoundError", ("w", "not registered"), 4, {}),
    ("DBOSNonExistentWorkflowError", ("target", "w"), 5, {"destination": "target", "destination_id": "w"}),
    ("MaxRecoveryAttemptsExceededError", ("w", 3), 6, {"workflow_id": "w", "max_retries": 3}),
    ("DBOSMaxStepRetriesExceeded", ("s", 2, [ValueError("a")]), 7, {"step_name": "s", "max_retries": 2}),
    ("DBOSNotAuthorizedError", ("not you",), 8, {"msg": "not you", "status_code": 403}),
    ("DBOSConflictingWorkflowError", ("w", "another function"), 9, {}),
    ("DBOSWorkflowCancelledError", ("cancelled",), 10, {}),
    ("DBOSUnexpectedStepError", ("w", 4, "expected", "recorded"), 11, {}),
    (
        "DBOSQueueDeduplicatedError",
        ("w", "q", "d"),
        12,
        {"workflow_id": "w", "queue_name": "q", "deduplication_id": "d"},
    ),
    ("DBOSAwaitedWorkflowCancelledError", ("w",), 13, {"workflow_id": "w"}),
    ("DBOSAwaitedWorkflowMaxRecoveryAttemptsExceeded", ("w",), 14, {"workflow_id": "w"}),
    ("DBOSConflictingRegistrationError", ("f",), 25, {}),
    ("DBOSException", ("anything",), None, {}),
    ("DBOSException", ("anything", 77), 77, {}),
    ("DBOSBaseException", ("anything",), None, {}),
]
NAMES = [each[0] for each in ERRORS]
CONTROL_FLOW = {"DBOSWorkflowConflictIDError", "DBOSWorkflowCancelledError", "DBOSBaseException"}


@pytest.mark.parametrize(("name", "arguments", "code", "facts"), ERRORS, ids=NAMES)
def test_an_error_has_its_code_and_facts(name: str, arguments: tuple, code: int | None, facts: dict) -> None:
    made = getattr(error, name)(*arguments)

    assert code == made.dbos_error_code
    assert facts == {key: getattr(made, key) for key in facts}
    assert f"DBOS Error{'' if code is None else f' {code}'}: {made.message}" == str(made)
    if "status_code" not in facts:
        assert made.status_code is None


@pytest.mark.parametrize(("name", "arguments", "code", "facts"), ERRORS, ids=NAMES)
def test_an_error_survives_being_pickled(name: str, arguments: tuple, code: int | None, facts: dict) -> None:
    made = getattr(error, name)(*arguments)
    read = pickle.loads(pickle.dumps(made))

    assert (type(made), str(made), made.dbos_error_code) == (type(read), str(read), read.dbos_error_code)
    assert facts == {key: getattr(read, key) for key in facts}


@pytest.mark.parametrize(("name", "arguments", "code", "facts"), ERRORS, ids=NAMES)
def test_an_error_is_caught_by_its_base(name: str, arguments: tuple, code: int | None, facts: dict) -> None:
    """Control flow passes through `except Exception`."""
    made = getattr(error, name)(*arguments)

    assert (name in CONTROL_FLOW) == isinstance(made, error.DBOSBaseException)
    assert (name not in CONTROL_FLOW) == isinstance(made, error.DBOSException)
    assert (name not in CONTROL_FLOW) == isinstance(made, Exception)


@pytest.mark.parametrize(("name", "arguments", "code", "facts"), ERRORS, ids=NAMES)
def test_an_error_is_found_where_other_programs_look_for_it(
    name: str, arguments: tuple, code: int | None, facts: dict
) -> None:
    """Their pickles name the module `dbos._error`."""
    assert b"dbos._error" in pickle.dumps(getattr(error, name)(*arguments))


@pytest.mark.parametrize("name", ["DBOSNonExistentWorkflowError", "MaxRecoveryAttemptsExceededError"])
def test_an_error_that_another_program_pickled_by_its_message_is_read(name: str) -> None:
    """Some releases store the finished message as the only argument."""
    read = getattr(error, name)("the whole message")

    assert "the whole message" in str(read)


def test_the_codes_are_an_enumeration() -> None:
    codes = {code for _, _, code, _ in ERRORS if code not in (None, 77)}

    assert codes <= {each.value for each in error.DBOSErrorCode}


def test_the_errors_of_all_tries_survive_being_pickled() -> None:
    made = error.DBOSMaxStepRetriesExceeded("step", 2, [ValueError("a"), KeyError("b", 1)])
    read = pickle.loads(pickle.dumps(made))

    assert [(ValueError, ("a",)), (KeyError, ("b", 1))] == [(type(each), each.args) for each in read.errors]


@pytest.mark.parametrize(
    ("name", "arguments", "part"),
    [
        ("DBOSMaxStepRetriesExceeded", ("s", 2, []), "Step s has exceeded its maximum of 2 retries"),
        ("DBOSNonExistentWorkflowError", ("send", "w"), "Non-existent `send` destination workflow ID: w"),
        ("DBOSAwaitedWorkflowCancelledError", ("w",), "was cancelled"),
        ("MaxRecoveryAttemptsExceededError", ("w", 3), "has exceeded its maximum of"),
        ("DBOSNotAuthorizedError", ("m",), "DBOS Error 8"),
    ],
)
def test_a_message_has_the_words_that_programs_match(name: str, arguments: tuple, part: str) -> None:
    assert part in str(getattr(error, name)(*arguments))


@pytest.mark.parametrize("kind", ["nobody", "given-up"])
def test_an_error_of_ours_is_an_outcome_like_any_other(app: App, hand: Hand, rows: Rows, kind: str) -> None:
    """A workflow that fails with one is read as such, by another process too."""

    @hand.workflow()
    async def work(do: Inside) -> None:
        await do.retrieve_workflow("nobody") if kind == "nobody" else await do.get_result("given-up")

    rows.add("given-up", "work", status="MAX_RECOVERY_ATTEMPTS_EXCEEDED", executor_id="other")
    app.launch()
    with SetWorkflowID("w"), pytest.raises(error.DBOSException) as caught:
        hand.call(work)
    app.relaunch()

    with pytest.raises(type(caught.value)) as read:
        hand.do("get_result", "w")
    assert str(caught.value) == str(read.value)


def test_an_error_of_ours_in_portable_form_has_its_name(app: App, hand: Hand) -> None:
    @hand.step(retries_allowed=True, interval_seconds=0)
    def fail() -> None:
        raise ValueError("no")

    @hand.workflow(serialization_type=WorkflowSerializationFormat.PORTABLE)
    async def work(do: Inside) -> None:
        await do(fail())

    app.launch()
    with SetWorkflowID("w"), pytest.raises(error.DBOSMaxStepRetriesExceeded):
        hand.call(work)
    app.relaunch()

    with pytest.raises(PortableWorkflowError, match="has exceeded its maximum of 3 retries") as caught:
        hand.do("get_result", "w")
    assert ("DBOSMaxStepRetriesExceeded", None) == (caught.value.name, caught.value.code)


def test_a_portable_error_survives_being_pickled() -> None:
    made = PortableWorkflowError("bad thing", "Custom", 42, {"k": "v"})
    read = pickle.loads(pickle.dumps(made))

    assert b"dbos._serialization" in pickle.dumps(made)
    assert ("bad thing", "Custom", 42, {"k": "v"}) == (read.message, read.name, read.code, read.data)
    assert "bad thing" == str(read)


def test_a_status_survives_being_pickled(app: App, hand: Hand) -> None:
    """Under the name by which other programs know it."""

    @hand.workflow()
    async def work(do: Inside) -> int:
        return 7

    app.launch()
    held = hand.start(work)
    held.result()
    status = held.status()

    assert b"dbos._sys_db" in pickle.dumps(status)
    assert status == pickle.loads(pickle.dumps(status))
