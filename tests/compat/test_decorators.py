"""Registration: names, what is registered twice, and functions that are wrapped once more."""

from __future__ import annotations

import asyncio
import functools
import inspect
import logging

import pytest

from dbos import DBOS, SetWorkflowID
from dbos.error import DBOSConflictingRegistrationError, DBOSException, DBOSWorkflowFunctionNotFoundError
from tests.compat.acts import again, step_names
from tests.compat.conftest import Log
from tests.compat.rows import Rows
from tests.conftest import App

DECORATORS = {"workflow": DBOS.workflow, "step": DBOS.step, "transaction": DBOS.transaction}


def shout(fn):
    """A decorator of the user's, as anybody writes one."""

    @functools.wraps(fn)
    def wrapped(*args, **kwargs):
        return f"{fn(*args, **kwargs)}!"

    return wrapped


@pytest.mark.parametrize("kind", DECORATORS)
def test_a_decorated_function_keeps_its_looks(kind: str) -> None:
    @DECORATORS[kind]()
    def greet(name: str) -> str:
        """Say hello."""
        return name

    assert ("greet", "Say hello.") == (greet.__name__, greet.__doc__)
    assert "test_a_decorated_function_keeps_its_looks.<locals>.greet" == greet.__qualname__ == greet.dbos_function_name
    assert greet.__module__ == __name__
    assert {"name": "str", "return": "str"} == greet.__annotations__


def test_a_function_is_registered_under_its_qualified_name_or_another(app: App) -> None:
    @DBOS.workflow()
    def plain() -> None:
        return None

    @DBOS.workflow(name="another")
    def named() -> None:
        return None

    app.launch()
    names = [DBOS.start_workflow(each).get_status().name for each in (plain, named)]

    here = "test_a_function_is_registered_under_its_qualified_name_or_another.<locals>.plain"
    assert [here, "another"] == names == [plain.dbos_function_name, named.dbos_function_name]


@pytest.mark.parametrize("kind", DECORATORS)
def test_a_name_registered_twice_is_noted(log: Log, kind: str) -> None:
    for _ in range(2):
        assert not log.says("Duplicate registration")
        DECORATORS[kind](name="same")(lambda: None)

    assert log.says("Duplicate registration of function 'same'", logging.WARNING)


def test_the_later_of_two_registrations_counts(app: App, rows: Rows) -> None:
    @DBOS.workflow(name="same")
    def first() -> str:
        return "first"

    @DBOS.workflow(name="same")
    def second() -> str:
        return "second"

    app.launch()
    with SetWorkflowID("w"):
        second()

    assert "second" == again(rows, "w").get_result()


@pytest.mark.parametrize("first", DECORATORS)
@pytest.mark.parametrize("second", DECORATORS)
def test_a_name_is_of_one_kind(first: str, second: str) -> None:
    DECORATORS[first](name="same")(lambda: None)
    if first == second:
        DECORATORS[second](name="same")(lambda: None)
        return

    with pytest.raises(
        DBOSConflictingRegistrationError, match="is already registered with a conflicting function type"
    ) as caught:
        DECORATORS[second](name="same")(lambda: None)
    assert 25 == caught.value.dbos_error_code


def test_a_function_is_not_decorated_as_two_kinds() -> None:
    with pytest.raises(DBOSConflictingRegistrationError):

        @DBOS.workflow()
        @DBOS.step()
        def both() -> None:
            return None


def test_a_function_decorated_twice_is_noted(log: Log) -> None:
    @DBOS.workflow()
    @DBOS.workflow()
    def twice() -> None:
        return None

    assert log.says("Duplicate registration", logging.WARNING)


def test_an_undecorated_function_cannot_be_started(app: App) -> None:
    def plain() -> None:
        return None

    app.launch()

    with pytest.raises(DBOSWorkflowFunctionNotFoundError) as caught:
        DBOS.start_workflow(plain)
    assert 4 == caught.value.dbos_error_code
    with pytest.raises(DBOSWorkflowFunctionNotFoundError):
        asyncio.run(DBOS.start_workflow_async(plain))


def test_a_transaction_must_not_be_async() -> None:
    with pytest.raises(DBOSException, match="is a coroutine function"):

        @DBOS.transaction()
        async def txn() -> None:
            return None


def test_an_async_function_gives_an_awaitable(app: App) -> None:
    @DBOS.step()
    async def step() -> int:
        return 1

    @DBOS.workflow()
    async def work() -> int:
        return await step()

    app.launch()
    for function in (step, work):
        assert inspect.iscoroutinefunction(function)
        assert 1 == asyncio.run(function())


def test_a_wrapped_function_can_be_a_workflow(app: App, rows: Rows) -> None:
    """The user's decorator stands below ours: it is part of the body."""

    @DBOS.workflow()
    @shout
    def greet(name: str) -> str:
        return f"hello {name}"

    app.launch()
    with SetWorkflowID("w"):
        assert "hello you!" == greet("you")

    assert "hello you!" == DBOS.start_workflow(greet, "you").get_result()
    assert "hello you!" == again(rows, "w").get_result()


def test_a_workflow_can_be_wrapped(app: App, rows: Rows) -> None:
    """The user's decorator stands above ours: it is around the call, and still starts the workflow."""

    @shout
    @DBOS.workflow()
    def greet(name: str) -> str:
        return f"hello {name}"

    app.launch()
    with SetWorkflowID("w"):
        assert "hello you!" == greet("you")

    assert "hello you" == DBOS.get_result("w")
    assert "hello you" == DBOS.start_workflow(greet, "you").get_result()
    assert "hello you" == again(rows, "w").get_result()


def test_steps_can_be_wrapped_on_both_sides(app: App) -> None:
    @shout
    @DBOS.step(name="step")
    @shout
    def greet(name: str) -> str:
        return f"hello {name}"

    @DBOS.workflow()
    def work() -> str:
        return greet("you")

    app.launch()
    with SetWorkflowID("w"):
        assert "hello you!!" == work()

    assert ["hello you!"] == [step["output"] for step in DBOS.list_workflow_steps("w")]
    assert ["step"] == step_names("w")


def test_a_wrapped_method_can_be_a_workflow(app: App, rows: Rows) -> None:
    """A decorator that hides the first parameter does not hide the instance."""
    from dbos import DBOSConfiguredInstance

    @DBOS.dbos_class("Greeter")
    class Greeter(DBOSConfiguredInstance):
        @DBOS.workflow(name="greet")
        @shout
        def greet(self, name: str) -> str:
            return f"{self.config_name} {name}"

    greeter = Greeter("mine")
    app.launch()
    with SetWorkflowID("w"):
        assert "mine you!" == greeter.greet("you")

    assert "mine" == rows.workflow("w").config_name
    assert "mine you!" == again(rows, "w").get_result()


def test_roles_hold_for_a_wrapped_function(app: App) -> None:
    """Wherever the user's decorator stands."""
    from dbos.error import DBOSNotAuthorizedError

    @DBOS.required_roles(["admin"])
    @DBOS.workflow(name="below")
    @shout
    def below() -> str:
        return "ran"

    @DBOS.workflow(name="between")
    @shout
    @DBOS.required_roles(["admin"])
    def between() -> str:
        return "ran"

    @shout
    @DBOS.required_roles(["admin"])
    @DBOS.workflow(name="above")
    def above() -> str:
        return "ran"

    app.launch()
    for function in (below, between, above):
        with pytest.raises(DBOSNotAuthorizedError):
            function()


def test_a_function_may_be_decorated_before_there_is_an_instance(app: App) -> None:
    """And after the launch."""

    @DBOS.workflow()
    def before() -> str:
        return "before"

    app.launch()

    @DBOS.workflow()
    def after() -> str:
        return before()

    assert "before" == after()
