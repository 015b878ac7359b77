"""Workflows that are methods: static, of a class, of a configured instance; in both colours."""

from __future__ import annotations

import asyncio

import pytest

from dbos import DBOS, DBOSConfiguredInstance, SetWorkflowID
from dbos.error import DBOSWorkflowFunctionNotFoundError
from tests.compat.acts import again
from tests.compat.conftest import Log
from tests.compat.rows import Rows
from tests.conftest import App


def define() -> tuple[type, list[str]]:
    """A class with workflows of every kind, and what ran."""
    ran: list[str] = []

    @DBOS.dbos_class("Greeter")
    class Greeter(DBOSConfiguredInstance):
        def __init__(self, config_name: str, greeting: str) -> None:
            self.greeting = greeting
            super().__init__(config_name)

        @DBOS.step(name="note")
        def note(self, name: str) -> str:
            ran.append(name)
            return f"{self.greeting} {name}"

        @DBOS.workflow(name="instance")
        def instance(self, name: str) -> str:
            return self.note(name)

        @DBOS.workflow(name="async-instance")
        async def async_instance(self, name: str) -> str:
            return self.note(name)

        @classmethod
        @DBOS.workflow(name="class")
        def class_(cls, name: str) -> str:
            return f"{cls.__name__} {name}"

        @staticmethod
        @DBOS.workflow(name="static")
        def static(name: str) -> str:
            return f"static {name}"

        @staticmethod
        @DBOS.workflow(name="async-static")
        async def async_static(name: str) -> str:
            return f"static {name}"

        @classmethod
        @DBOS.workflow(name="async-class")
        async def async_class(cls, name: str) -> str:
            return f"{cls.__name__} {name}"

    return Greeter, ran


EXPECTED = {
    "instance": ("hello you", "Greeter", "polite"),
    "async_instance": ("hello you", "Greeter", "polite"),
    "class_": ("Greeter you", "Greeter", None),
    "async_class": ("Greeter you", "Greeter", None),
    "static": ("static you", None, None),
    "async_static": ("static you", None, None),
}


@pytest.mark.parametrize("way", ["call", "start"])
@pytest.mark.parametrize("kind", EXPECTED)
def test_a_method_is_a_workflow_and_recovered(app: App, rows: Rows, kind: str, way: str) -> None:
    """Its row names class and instance; neither is among the inputs."""
    Greeter, _ = define()
    method = getattr(Greeter("polite", "hello"), kind)
    result, class_name, config_name = EXPECTED[kind]

    async def call() -> str:
        return await method("you")

    app.launch()
    with SetWorkflowID("w"):
        if way == "start":
            assert result == DBOS.start_workflow(method, "you").get_result()
        else:
            assert result == (asyncio.run(call()) if "async" in kind else method("you"))

    status = DBOS.get_workflow_status("w")
    assert (class_name, config_name) == (status.class_name, status.config_name)
    assert {"args": ("you",), "kwargs": {}} == status.input
    assert result == again(rows, "w").get_result()


def test_recovery_finds_the_right_instance(app: App, rows: Rows) -> None:
    """After a new start with new objects of the same names."""
    Greeter, ran = define()
    made = [Greeter("polite", "hello"), Greeter("rude", "hey")]
    app.launch()
    for workflow_id, instance in zip("ab", made, strict=True):
        with SetWorkflowID(workflow_id):
            instance.instance("you")
        rows.run("DELETE FROM {}operation_outputs")
        rows.interrupt(workflow_id)
    app.crash()
    DBOS.destroy(destroy_registry=True)
    Greeter, ran = define()
    Greeter("rude", "hey"), Greeter("polite", "hello")
    app.launch()

    assert ["hello you", "hey you"] == [DBOS.get_result(each) for each in "ab"]
    assert ["you", "you"] == ran


def test_an_unregistered_instance_is_waited_for(app: App, rows: Rows) -> None:
    """Its workflow is not found, is left as it is, and runs when the instance has been made."""
    Greeter, _ = define()
    rows.add("w", "instance", status="PENDING", class_name="Greeter", config_name="late", executor_id="other")
    rows.change("w", inputs='{"positionalArgs":["you"]}')
    app.launch()

    with pytest.raises(DBOSWorkflowFunctionNotFoundError, match="configured class instance 'late' is not registered"):
        DBOS._execute_workflow_id("w")
    assert "PENDING" == rows.workflow("w").status
    Greeter("late", "hello")
    assert "hello you" == DBOS._execute_workflow_id("w").get_result()


def test_an_unregistered_class_is_waited_for(app: App, rows: Rows) -> None:
    """The same for a class."""
    _, _ = define()
    rows.add("w", "class", status="PENDING", class_name="Unheard", executor_id="other")
    app.launch()

    with pytest.raises(DBOSWorkflowFunctionNotFoundError, match="class 'Unheard' is not registered"):
        DBOS._execute_workflow_id("w")
    assert "PENDING" == rows.workflow("w").status


def test_a_launch_waits_for_an_instance_that_comes_later(app: App, rows: Rows) -> None:
    """What it finds unfinished does not fail for want of its instance."""
    Greeter, _ = define()
    whose = {"executor_id": "local", "application_version": "v1"}
    rows.add("w", "instance", status="PENDING", class_name="Greeter", config_name="late", **whose)
    rows.change("w", inputs='{"positionalArgs":["you"]}')
    app.launch()
    DBOS.start_workflow(Greeter.static, "anybody").get_result()
    Greeter("late", "hello")

    assert "hello you" == DBOS.get_result("w")


def test_a_class_name_is_given_once() -> None:
    """Another class may take another name."""

    def make(class_name: str | None) -> None:
        @DBOS.dbos_class(class_name)
        class Same:
            pass

    make(None)
    name = "test_a_class_name_is_given_once.<locals>.make.<locals>.Same"
    with pytest.raises(Exception, match=f"Duplicate type registration for class '{name}'"):
        make(None)
    make("other")


def test_an_instance_name_is_given_once_in_a_class() -> None:
    Greeter, _ = define()

    @DBOS.dbos_class("Other")
    class Other(DBOSConfiguredInstance):
        pass

    Greeter("same", "hello")
    Other("same")
    with pytest.raises(Exception, match="Duplicate instance registration for class 'Greeter' instance 'same'"):
        Greeter("same", "hey")


def test_the_same_class_or_instance_may_be_registered_twice() -> None:
    Greeter, _ = define()
    instance = Greeter("same", "hello")

    DBOS.register_instance(instance)
    assert Greeter is DBOS.dbos_class("Greeter")(Greeter)


def test_an_instance_made_after_launch_is_noted(app: App, log: Log) -> None:
    import logging

    Greeter, _ = define()
    app.launch(log_level="WARNING")
    log.records.clear()
    Greeter("late", "hello")

    assert log.says("", logging.WARNING)


def test_an_instance_can_be_registered_without_inheriting(app: App, rows: Rows) -> None:
    @DBOS.dbos_class("Plain")
    class Plain:
        def __init__(self) -> None:
            self.config_name = "mine"

        @DBOS.workflow(name="work")
        def work(self) -> str:
            return self.config_name

    instance = Plain()
    DBOS.register_instance(instance)
    app.launch()
    with SetWorkflowID("w"):
        assert "mine" == instance.work()

    assert ("Plain", "mine") == tuple(rows.workflow("w")._mapping[key] for key in ("class_name", "config_name"))
    assert "mine" == again(rows, "w").get_result()


def test_an_instance_without_a_name_cannot_be_called(app: App) -> None:
    @DBOS.dbos_class("Nameless")
    class Nameless:
        @DBOS.workflow()
        def work(self) -> None:
            return None

    app.launch()

    said = "appears to be a class instance, but does not have `config_name` set"
    with pytest.raises(Exception, match=said):
        Nameless().work()
    with pytest.raises(Exception, match=said):
        DBOS.start_workflow(Nameless().work)


def test_methods_of_an_undecorated_class_cannot_be_called(app: App) -> None:
    class Undecorated:
        def __init__(self) -> None:
            self.config_name = "mine"

        @DBOS.workflow(name="of-instance")
        def of_instance(self) -> None:
            return None

        @classmethod
        @DBOS.workflow(name="of-class")
        def of_class(cls) -> None:
            return None

    app.launch()

    with pytest.raises(Exception, match="class instance, but is not properly registered"):
        Undecorated().of_instance()
    with pytest.raises(Exception, match="appears to be a class, but is not properly registered"):
        Undecorated.of_class()


def test_steps_of_an_instance_need_no_name(app: App) -> None:
    """Nor a decorated class."""

    class Undecorated:
        @DBOS.step(name="step")
        def step(self, x: int) -> int:
            return 2 * x

    instance = Undecorated()

    @DBOS.workflow()
    def work() -> int:
        return instance.step(4) + DBOS.run_step(None, instance.step, 1)

    app.launch()

    assert 10 == work()


def test_transactions_may_be_methods(app: App, rows: Rows) -> None:
    @DBOS.dbos_class("Keeper")
    class Keeper(DBOSConfiguredInstance):
        @DBOS.transaction(name="txn")
        def txn(self, x: int) -> list:
            return [self.config_name, x, DBOS.sql_session is not None]

        @DBOS.workflow(name="work")
        def work(self, x: int) -> list:
            return self.txn(x)

    keeper = Keeper("mine")
    app.launch()
    with SetWorkflowID("w"):
        assert ["mine", 4, True] == keeper.work(4)

    assert ["mine", 5, True] == keeper.txn(5)
    assert ["mine", 4, True] == again(rows, "w").get_result()


def test_a_step_of_an_instance_can_be_started(app: App, rows: Rows) -> None:
    """Its hidden workflow knows the instance."""
    Greeter, _ = define()
    polite = Greeter("polite", "hello")
    app.launch()
    with SetWorkflowID("w"):
        assert "hello you" == DBOS.start_workflow(polite.note, "you").get_result()

    assert ("<temp>.note", "polite") == (rows.workflow("w").name, rows.workflow("w").config_name)
    rows.run("DELETE FROM {}operation_outputs")
    assert "hello you" == again(rows, "w").get_result()


def test_an_inherited_workflow_belongs_to_the_class_of_the_instance(app: App, rows: Rows) -> None:
    class Base(DBOSConfiguredInstance):
        @DBOS.workflow(name="tell")
        def tell(self) -> str:
            return f"{type(self).__name__} {self.config_name}"

    @DBOS.dbos_class("A")
    class A(Base):
        pass

    @DBOS.dbos_class("B")
    class B(Base):
        pass

    made = [A("same"), B("same")]
    app.launch()
    for workflow_id, instance in zip("ab", made, strict=True):
        with SetWorkflowID(workflow_id):
            instance.tell()

    assert [("A", "same"), ("B", "same")] == [(rows.workflow(w).class_name, rows.workflow(w).config_name) for w in "ab"]
    assert ["A same", "B same"] == [again(rows, each).get_result() for each in "ab"]


def test_an_id_belongs_to_one_class_and_one_instance(app: App) -> None:
    class Base(DBOSConfiguredInstance):
        @DBOS.workflow(name="tell")
        def tell(self) -> str:
            return self.config_name

    @DBOS.dbos_class("A")
    class A(Base):
        pass

    @DBOS.dbos_class("B")
    class B(Base):
        pass

    first, second, other = A("first"), A("second"), B("first")
    app.launch()
    with SetWorkflowID("w"):
        first.tell()

    with SetWorkflowID("w"), pytest.raises(Exception, match="already exists with a different config name"):
        second.tell()
    with SetWorkflowID("w"), pytest.raises(Exception, match="already exists with a different class name"):
        other.tell()
