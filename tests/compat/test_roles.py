"""Users and roles: who may run what, and how a workflow remembers for whom it runs."""

from __future__ import annotations

import pytest

from dbos import DBOS, DBOSConfiguredInstance, DBOSContextEnsure, DBOSContextSetAuth, SetWorkflowID
from dbos.error import DBOSNotAuthorizedError
from tests.compat.acts import again
from tests.compat.rows import Rows
from tests.conftest import App
from tests.hand import Hand, Inside


def me() -> list:
    return [DBOS.authenticated_user, DBOS.authenticated_roles, DBOS.assumed_role]


@pytest.mark.parametrize("order", ["above", "below"])
def test_a_user_without_the_role_is_refused(app: App, order: str) -> None:
    """Before anything is written; the decorator may stand above or below the other."""
    ran: list[int] = []

    def work() -> None:
        ran.append(1)

    required = DBOS.required_roles(["admin"])
    work = required(DBOS.workflow()(work)) if order == "above" else DBOS.workflow()(required(work))
    app.launch()

    for user, roles in (("me", ["user"]), ("me", []), (None, None)):
        with DBOSContextSetAuth(user, roles), pytest.raises(DBOSNotAuthorizedError) as caught:
            work()
        assert "DBOS Error 8" in str(caught.value)
        assert (8, 403) == (caught.value.dbos_error_code, caught.value.status_code)
    with pytest.raises(DBOSNotAuthorizedError):
        work()
    assert ([], []) == (ran, DBOS.list_workflows())


def test_a_user_assumes_the_first_required_role_they_have(app: App, hand: Hand) -> None:
    def tell(*roles: str):
        @DBOS.required_roles(list(roles))
        @DBOS.workflow(name="-".join(roles))
        def work() -> str | None:
            return DBOS.assumed_role

        return work

    app.launch()
    with DBOSContextSetAuth("me", ["user", "admin"]):
        assert ["admin", "user", "admin"] == [tell("admin", "user")(), tell("user", "admin")(), tell("x", "admin")()]


def test_user_and_roles_are_stored_with_the_workflow(app: App, hand: Hand, rows: Rows) -> None:
    @DBOS.workflow()
    @DBOS.required_roles(["admin"])
    def work() -> list:
        return me()

    app.launch()
    with DBOSContextSetAuth("me", ["user", "admin"]), SetWorkflowID("w"):
        assert ["me", ["user", "admin"], "admin"] == work()

    status = hand.do("get_workflow_status", "w")
    seen = (status.authenticated_user, status.authenticated_roles, status.assumed_role)
    assert ("me", ["user", "admin"], "admin") == seen
    assert '["user", "admin"]' == rows.workflow("w").authenticated_roles


def test_a_started_workflow_that_is_refused_ends_in_an_error(app: App) -> None:
    """It is checked when the body begins; the handle raises."""
    ran: list[int] = []

    @DBOS.required_roles(["admin"])
    @DBOS.workflow()
    def work() -> None:
        ran.append(1)

    app.launch()
    with DBOSContextSetAuth("me", ["user"]):
        handle = DBOS.start_workflow(work)

    with pytest.raises(DBOSNotAuthorizedError, match="DBOS Error 8"):
        handle.get_result()
    assert ("ERROR", []) == (handle.get_status().status, ran)


def test_a_started_workflow_runs_in_its_role(app: App) -> None:
    @DBOS.required_roles(["admin"])
    @DBOS.workflow()
    def work() -> list:
        return me()

    app.launch()
    with DBOSContextSetAuth("me", ["admin"]):
        handle = DBOS.start_workflow(work)

    assert ["me", ["admin"], "admin"] == handle.get_result()


def test_children_run_for_the_same_user(app: App, hand: Hand, rows: Rows) -> None:
    """Called and started."""

    @hand.workflow()
    async def child(do: Inside) -> list:
        return me()

    @hand.workflow()
    async def parent(do: Inside) -> list:
        return [await do(child()), await do((await do.start(child)).get_result())]

    app.launch()
    with DBOSContextSetAuth("me", ["admin"]), SetWorkflowID("p"):
        assert [["me", ["admin"], None]] * 2 == hand.call(parent)

    assert ["me", "me"] == [rows.workflow(each).authenticated_user for each in ("p-1", "p-3")]


def test_children_inherit_the_role_that_was_assumed(app: App, rows: Rows) -> None:
    @DBOS.workflow()
    def child() -> list:
        return me()

    @DBOS.required_roles(["admin"])
    @DBOS.workflow()
    def parent() -> list:
        return child()

    app.launch()
    with DBOSContextSetAuth("me", ["user", "admin"]), SetWorkflowID("p"):
        assert ["me", ["user", "admin"], "admin"] == parent()

    assert "admin" == rows.workflow("p-1").assumed_role


def test_a_child_that_needs_a_role_has_it_checked(app: App) -> None:
    """Of its parent's user."""

    @DBOS.required_roles(["admin"])
    @DBOS.workflow()
    def child() -> str | None:
        return DBOS.assumed_role

    @DBOS.workflow()
    def parent() -> str | None:
        return child()

    app.launch()
    with DBOSContextSetAuth("me", ["admin"]):
        assert "admin" == parent()
    with DBOSContextSetAuth("me", ["user"]), pytest.raises(DBOSNotAuthorizedError):
        parent()


def test_a_step_that_needs_a_role_has_it_checked(app: App) -> None:
    ran: list[int] = []

    @DBOS.required_roles(["admin"])
    @DBOS.step()
    def step() -> None:
        ran.append(1)

    @DBOS.workflow()
    def work() -> None:
        step()

    app.launch()
    with DBOSContextSetAuth("me", ["user"]), pytest.raises(DBOSNotAuthorizedError):
        work()
    assert [] == ran
    with DBOSContextSetAuth("me", ["admin"]):
        work()
    assert [1] == ran


@pytest.mark.parametrize("place", ["in-workflow", "alone"])
def test_a_transaction_that_needs_a_role_has_it_checked(app: App, place: str) -> None:
    ran: list[int] = []

    @DBOS.required_roles(["admin"])
    @DBOS.transaction()
    def txn() -> None:
        ran.append(1)

    @DBOS.workflow()
    def work() -> None:
        txn()

    call = work if place == "in-workflow" else txn
    app.launch()
    with DBOSContextSetAuth("me", ["user"]), pytest.raises(DBOSNotAuthorizedError):
        call()
    assert [] == ran
    with DBOSContextSetAuth("me", ["admin"]):
        call()
    assert [1] == ran


def test_a_class_has_roles_that_its_methods_may_replace(app: App) -> None:
    """An empty list opens a method to everybody."""

    @DBOS.default_required_roles(["admin"])
    @DBOS.dbos_class("Guarded")
    class Guarded(DBOSConfiguredInstance):
        @DBOS.workflow(name="default")
        def default(self) -> str:
            return "default"

        @DBOS.workflow(name="own")
        @DBOS.required_roles(["user"])
        def own(self) -> str:
            return "own"

        @DBOS.workflow(name="open")
        @DBOS.required_roles([])
        def open(self) -> str:
            return "open"

    guarded = Guarded("mine")
    app.launch()
    with DBOSContextSetAuth("me", ["user"]):
        assert ["own", "open"] == [guarded.own(), guarded.open()]
        with pytest.raises(DBOSNotAuthorizedError):
            guarded.default()
    with DBOSContextSetAuth("me", ["admin"]):
        assert ["default", "open"] == [guarded.default(), guarded.open()]
        with pytest.raises(DBOSNotAuthorizedError):
            guarded.own()
    assert "open" == guarded.open()


@pytest.mark.parametrize("kind", ["class_", "static"])
def test_the_roles_of_a_class_hold_for_all_its_methods(app: App, kind: str) -> None:
    @DBOS.default_required_roles(["admin"])
    @DBOS.dbos_class("Guarded")
    class Guarded:
        @classmethod
        @DBOS.workflow(name="class")
        def class_(cls) -> str:
            return "done"

        @staticmethod
        @DBOS.workflow(name="static")
        def static() -> str:
            return "done"

    call = getattr(Guarded, kind)
    app.launch()
    with DBOSContextSetAuth("me", ["user"]), pytest.raises(DBOSNotAuthorizedError):
        call()
    with DBOSContextSetAuth("me", ["admin"]):
        assert "done" == call()


def test_a_recovered_workflow_is_checked_with_its_own_user(app: App, rows: Rows) -> None:
    """Not with that of whoever recovers it."""

    @DBOS.required_roles(["admin"])
    @DBOS.workflow()
    def work() -> list:
        return me()

    app.launch()
    with DBOSContextSetAuth("me", ["admin"]), SetWorkflowID("w"):
        work()
    with DBOSContextSetAuth("you", ["user"]):
        assert ["me", ["admin"], "admin"] == again(rows, "w").get_result()


def test_an_enqueued_workflow_is_checked_when_it_begins(app: App, rows: Rows) -> None:
    @DBOS.required_roles(["admin"])
    @DBOS.workflow(name="work")
    def work() -> list:
        return me()

    for workflow_id, roles in (("yes", '["admin"]'), ("no", '["user"]')):
        whose = {"authenticated_user": "me", "authenticated_roles": roles}
        rows.add(workflow_id, "work", queue_name="_dbos_internal_queue", **whose)
    app.launch()

    assert ["me", ["admin"], "admin"] == DBOS.get_result("yes")
    with pytest.raises(Exception, match="DBOS Error 8"):
        DBOS.get_result("no")


# -- the context -----------------------------------------------------------------------------------------------


def test_outside_there_is_nobody() -> None:
    assert [None, None, None] == me()


def test_a_block_sets_the_user_and_gives_back_the_former() -> None:
    with DBOSContextSetAuth("me", ["admin"]):
        with DBOSContextSetAuth("you", None):
            assert ["you", None, None] == me()
        assert ["me", ["admin"], None] == me()
    assert [None, None, None] == me()


def test_authentication_is_set_for_a_context() -> None:
    """As a middleware does."""
    with DBOSContextEnsure():
        DBOS.set_authentication("me", ["admin"])
        assert ["me", ["admin"], None] == me()
        DBOS.set_authentication(None, None)
        assert [None, None, None] == me()
        DBOS.set_authentication("me", ["admin"])
    assert [None, None, None] == me()


def test_authentication_set_in_a_context_counts(app: App) -> None:
    @DBOS.required_roles(["admin"])
    @DBOS.workflow()
    def work() -> str | None:
        return DBOS.assumed_role

    app.launch()
    with DBOSContextEnsure():
        DBOS.set_authentication("me", ["admin"])
        assert "admin" == work()
    with pytest.raises(DBOSNotAuthorizedError):
        work()


def test_the_blocks_give_the_context() -> None:
    with DBOSContextEnsure() as ensured, DBOSContextSetAuth("me", ["admin"]) as authenticated:
        assert ensured is not None
        assert authenticated is not None
