"""`%dbos debug`: a failure happens again, and `%debug` opens its frames."""

from __future__ import annotations

import sys
from typing import Any

import pytest
from IPython.core.error import UsageError
from IPython.core.interactiveshell import InteractiveShell

from dbos import DBOS, SetWorkflowID
from dbos_notebook import door
from tests.notebook.shells import line, shell  # noqa: F401 - a fixture


@pytest.fixture(autouse=True)
def last_error() -> Any:
    names = ("exc", "type", "value", "traceback")
    yield
    for name in names:
        vars(sys).pop(f"last_{name}", None)


def failing(workflow: Any, *args: Any, as_id: str = "w") -> None:
    with SetWorkflowID(as_id), pytest.raises(Exception):  # noqa: B017 - whatever it is
        workflow(*args)


def mean(values: list[int]) -> float:
    number = len(values)
    return sum(values) / (number - 3)


def test_a_failed_step_fails_again(shell: InteractiveShell) -> None:  # noqa: F811
    @DBOS.step(name="score")
    def score(values: list[int]) -> float:
        return mean(values)

    @DBOS.workflow(name="nightly")
    def nightly() -> float:
        return score([1, 2, 3])

    door.session().launch()
    failing(nightly)

    found = line(shell, "debug w")

    assert found.is_reproduced
    assert ("nightly", 1, "score") == found.failure[1:]
    assert {"values": [1, 2, 3], "number": 3} == found.locals
    assert found.error is sys.last_value is vars(sys)["last_exc"]
    assert ["score", "mean"] == functions(sys.last_traceback)
    for form in found._repr_mimebundle_().values():
        for told in ("ZeroDivisionError", "reproduced here", "mean, line", "number", "%debug opens its frames"):
            assert told in form


def test_it_says_before_what_it_calls(shell: InteractiveShell, capsys: pytest.CaptureFixture[str]) -> None:  # noqa: F811
    told: list[str] = []

    @DBOS.step(name="pay")
    def pay(amount: int, to: str) -> None:
        told.append(capsys.readouterr().out)
        raise ValueError("no money")

    @DBOS.workflow(name="payday")
    def payday() -> None:
        pay(3, to="Ada")

    door.session().launch()
    failing(payday)
    told.clear()

    found = line(shell, "debug w")

    assert ["Calling pay(amount=3, to='Ada') here, as step 1 of w did.\n"] == told
    assert "called here: pay(amount=3, to='Ada')" in repr(found)
    told.clear()
    looked = line(shell, "debug w --no-call")
    assert [] == told
    assert "not tried here: only what is recorded was asked for" in repr(looked)
    assert "no money" in repr(looked)
    assert {"amount": 3, "to": "Ada"} == looked.moment.arguments


def functions(traceback: Any) -> list[str]:
    names = []
    while traceback is not None:
        names.append(traceback.tb_frame.f_code.co_name)
        traceback = traceback.tb_next
    return names


def test_an_async_step_fails_again(shell: InteractiveShell) -> None:  # noqa: F811
    import asyncio

    @DBOS.step(name="score")
    async def score(values: list[int]) -> float:
        await asyncio.sleep(0)
        return mean(values)

    @DBOS.workflow(name="nightly")
    async def nightly() -> float:
        return await score([1, 2, 3])

    door.session().launch()
    failing(lambda: asyncio.run(nightly()))

    found = line(shell, "debug w")

    assert found.is_reproduced
    assert ["score", "mean"] == functions(sys.last_traceback)


def test_the_deepest_child_is_the_cause(shell: InteractiveShell) -> None:  # noqa: F811
    @DBOS.step(name="score")
    def score(x: int) -> float:
        return 1 / x

    @DBOS.workflow(name="inner")
    def inner(x: int) -> float:
        return score(x)

    @DBOS.workflow(name="middle")
    def middle(x: int) -> float:
        return DBOS.start_workflow(inner, x).get_result()

    @DBOS.workflow(name="outer")
    def outer() -> float:
        return middle(0)

    door.session().launch()
    failing(outer)

    found = line(shell, "debug w")

    assert ("inner", 1, "score") == found.failure[1:]
    assert found.failure.workflow_id.startswith("w-")
    assert found.is_reproduced


def test_the_workflows_own_code_may_have_failed(shell: InteractiveShell) -> None:  # noqa: F811
    @DBOS.step(name="tries")
    def tries() -> None:
        raise ValueError("caught")

    @DBOS.workflow(name="nightly")
    def nightly(day: str) -> float:
        try:
            tries()
        except ValueError:
            missing = {}
        return missing[day]

    door.session().launch()
    failing(nightly, "monday")

    found = line(shell, "debug w")

    assert (None, "nightly") == found.failure[2:]
    assert found.is_reproduced
    assert "monday" == found.locals["day"]
    assert ["nightly"] == functions(sys.last_traceback)


def test_a_step_that_was_mended_fails_no_more(shell: InteractiveShell) -> None:  # noqa: F811
    divisor = [0]

    @DBOS.step(name="score")
    def score() -> float:
        if divisor[0] is None:
            raise TypeError("none")
        return 1 / divisor[0]

    @DBOS.workflow(name="nightly")
    def nightly() -> float:
        return score()

    door.session().launch()
    failing(nightly)

    divisor[0] = 1
    assert "not reproduced: here it does not fail" in repr(line(shell, "debug w"))
    divisor[0] = None
    assert "here it fails otherwise: TypeError: none" in repr(line(shell, "debug w"))


def test_what_has_not_failed_says_so(shell: InteractiveShell) -> None:  # noqa: F811
    @DBOS.workflow(name="good")
    def good() -> None: ...

    door.session().launch()
    with SetWorkflowID("w"):
        good()

    with pytest.raises(UsageError, match="nothing failed in good w, which is SUCCESS"):
        line(shell, "debug w")


def test_code_that_is_not_here_is_named(shell: InteractiveShell) -> None:  # noqa: F811
    @DBOS.step(name="score")
    def score() -> float:
        return 1 / 0

    @DBOS.workflow(name="nightly")
    def nightly() -> float:
        return score()

    door.session().launch()
    failing(nightly)
    DBOS.destroy(destroy_registry=True)
    door.session().launch()

    told = repr(line(shell, "debug w"))

    assert "ZeroDivisionError: division by zero   step 1 score of nightly w" in told
    assert "not tried here:" in told
    assert "'nightly' is not registered in this process" in told


class Debugger:
    """Stands in for the one that asks at the keyboard."""

    def __init__(self) -> None:
        self.opened: Any = None

    def reset(self) -> None: ...

    def interaction(self, frame: Any, error: Any) -> None:
        self.opened = error


def test_the_debugger_of_the_shell_opens_it(shell: InteractiveShell) -> None:  # noqa: F811
    @DBOS.step(name="score")
    def score(values: list[int]) -> float:
        return mean(values)

    @DBOS.workflow(name="nightly")
    def nightly() -> float:
        return score([1, 2, 3])

    door.session().launch()
    failing(nightly)
    found = line(shell, "debug w")

    shell.InteractiveTB.pdb = Debugger()
    shell.run_line_magic("debug", "")

    opened = shell.InteractiveTB.pdb.opened
    assert (found.error, found.error.__traceback__) in [(opened, opened.__traceback__), (sys.last_value, opened)]
