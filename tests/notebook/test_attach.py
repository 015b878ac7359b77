"""Attaching: another database is looked at with all that looks, and nothing of it is touched."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pandas as pd
import psycopg
import pytest
from IPython.core.error import UsageError
from IPython.core.interactiveshell import InteractiveShell
from sqlalchemy import make_url

import dbos_notebook
from dbos import DBOS, SetWorkflowID
from dbos_notebook import commands, door, session
from dbos_notebook.attachment import NotAttachableError, address
from dbos_notebook.masking import Mask, places
from dbos_notebook.source import parameters_in
from tests.notebook.shells import line, result, shell

__all__ = ["shell"]

SECRET = "ada@example.org"


@DBOS.dbos_class()
class Account:
    pass


def define() -> Any:
    """An application: a parent, a child that fails, and one that ends well."""

    @DBOS.step(name="charge")
    def charge(email: str, amount: int) -> dict[str, Any]:
        print(f"email={email}")
        if amount < 0:
            raise ValueError(f"amount {amount} of email={email!r} is too small")
        return {"email": email, "amount": amount, "lines": [{"token": "tok-4711", "n": 1}]}

    @DBOS.workflow(name="bill")
    def bill(email: str, amount: int) -> Any:
        DBOS.set_event("email", email)
        DBOS.write_stream("log", {"token": "t-2"})
        charged = charge(email, amount)
        return charged["lines"]

    @DBOS.workflow(name="month")
    def month(amounts: list[int]) -> int:
        for number, amount in enumerate(amounts):
            with SetWorkflowID(f"bill-{number}"):
                bill(email=SECRET, amount=amount)
        return len(amounts)

    return month


def fill(url: str) -> None:
    """Let the application run on a database, and end; its code stays defined."""
    DBOS.destroy(destroy_registry=True)
    month = define()
    DBOS(config={"name": "shop", "system_database_url": url, "run_admin_server": False, "log_level": "ERROR"})
    DBOS.launch()
    with SetWorkflowID("good"):
        month([1, 2])
    with SetWorkflowID("bad"), pytest.raises(ValueError):
        month([1, 2, -1])
    DBOS.destroy()


class Shop:
    """A database that an application has filled, and what its own clients see of it."""

    def __init__(self, url: str, reader: str) -> None:
        self.url, self.reader = url, reader

    def state(self) -> Any:
        """Something that any write changes."""
        parsed = make_url(self.url)
        if parsed.get_backend_name() == "sqlite":
            file = Path(parsed.database or "")
            return [hashlib.sha256(each.read_bytes()).hexdigest() for each in sorted(file.parent.glob("shop.sqlite"))]
        with psycopg.connect(self.url, autocommit=True) as conn:
            tables = [name for (name,) in conn.execute("SELECT tablename FROM pg_tables WHERE schemaname = 'dbos'")]
            return {name: conn.execute(f"SELECT *, xmin FROM dbos.{name} ORDER BY 1").fetchall() for name in tables}


@pytest.fixture
def shop(request: pytest.FixtureRequest, tmp_path: Path, database: str) -> Iterator[Shop]:
    """An application's database; on Postgres it is read as a role that may only SELECT."""
    if database.startswith("sqlite"):
        url = f"sqlite:///{tmp_path}/shop.sqlite"
        fill(url)
        yield Shop(url, url)
        return
    fill(database)
    with psycopg.connect(database, autocommit=True) as conn:
        conn.execute("DROP ROLE IF EXISTS viewer")
        conn.execute("CREATE ROLE viewer LOGIN")
        conn.execute("GRANT USAGE ON SCHEMA dbos TO viewer")
        conn.execute("GRANT SELECT ON ALL TABLES IN SCHEMA dbos TO viewer")
    yield Shop(database, make_url(database).set(username="viewer").render_as_string(hide_password=False))
    with psycopg.connect(database, autocommit=True) as conn:
        conn.execute("DROP OWNED BY viewer")
        conn.execute("DROP ROLE viewer")


@pytest.fixture
def attached(shell: InteractiveShell, shop: Shop) -> InteractiveShell:
    line(shell, f"attach {shop.reader}")
    return shell


def shown(made: Any) -> str:
    """All that is shown of something, in whatever form."""
    view = getattr(made, "view", made)
    if hasattr(view, "html"):
        return f"{view.html}\n{view.text}"
    if hasattr(made, "to_plotly_json"):
        return str(made.to_json())
    return made.to_csv() if hasattr(made, "to_csv") else repr(made)


READS = [
    "attach", "status", "runs", "runs --status ERROR --since 24h", "steps bad", "show bad", "show bill-2", "timeline bad", "tree bad",
    "events bill-2", "messages bad", "streams bill-1", "value bill-1", "value bill-1 3", "source bad", "queues", "schedules",
    "versions", "waiting", "at bill-2 charge", "at bad 1", "check month", "check bill", "debug bad", "diff good bad",
    "diff bill-1 bill-2 --decode", "watch good", "tail bill-1 log", "triage", "fork --group 1 --dry-run",
]  # fmt: skip


def test_whatever_reads_reads_there_and_writes_nothing(attached: InteractiveShell, shop: Shop) -> None:
    before = shop.state()

    for each in READS:
        line(attached, each)
    runs = line(attached, "runs")
    runs.dbos.steps(), runs.dbos.timeline(), runs.dbos.rates(), runs.dbos.queues(), runs.dbos.tree()
    door.source().runs(decode=True), door.source().steps("bad", decode=True)

    assert {"good", "bad", "bill-0", "bill-1", "bill-2"} == set(runs.index)
    assert before == shop.state()
    assert not door.session().is_launched


ACTS = [
    "fork bad", "resume bad", "cancel bad", "delete bad --yes", "send bad 1", "fork --group 1 --confirm 1",
]  # fmt: skip


@pytest.mark.parametrize("act", ACTS)
def test_what_acts_says_how_it_would_be_allowed(attached: InteractiveShell, shop: Shop, act: str) -> None:
    before = shop.state()

    with pytest.raises(UsageError, match="--actions"):
        line(attached, act)

    assert before == shop.state()


def test_actions_can_be_allowed_and_nothing_runs_here(shell: InteractiveShell, shop: Shop) -> None:
    line(shell, f"attach {shop.url} --actions")

    fork = line(shell, "fork bad")

    assert "ENQUEUED" == line(shell, f"runs --prefix {fork.workflow_id}")["status"].iloc[0]
    assert not door.session().is_launched


def test_detaching_goes_back_to_the_own_database(attached: InteractiveShell) -> None:
    assert 5 == len(line(attached, "runs"))

    said = line(attached, "detach")

    assert "own database" in said.text
    assert "Nothing is attached." == line(attached, "detach").text
    assert 0 == len(line(attached, "runs"))


def test_definitions_and_calls_belong_to_the_own_database(attached: InteractiveShell, shop: Shop) -> None:
    line(attached, "detach")
    line(attached, "launch")
    line(attached, f"attach {shop.reader}")
    before = shop.state()

    code = "from dbos import DBOS\n@DBOS.workflow(name='mine')\ndef mine():\n    return 1\nmine()"
    assert 1 == result(attached, code)

    assert before == shop.state()
    assert "mine" not in set(line(attached, "runs")["name"])
    assert "goes on" in line(attached, "attach").text
    line(attached, "detach")
    assert ["mine"] == list(line(attached, "runs")["name"])


def test_what_is_attached_is_said(attached: InteractiveShell, shop: Shop) -> None:
    said = line(attached, "attach").text

    assert "read-only" in said
    assert "--actions" in said
    assert "read-only" in line(attached, "status").text


# -- masking -------------------------------------------------------------------------------------------------------


def test_named_fields_are_masked_wherever_they_are_shown(shell: InteractiveShell, shop: Shop) -> None:
    line(shell, f"attach {shop.reader} --mask EMAIL,token")

    made = [line(shell, each) for each in READS]
    source = door.source()
    made += [source.runs(decode=True), source.steps("bad", "bill-1", decode=True), source.arguments("bill-1")]
    made += [source.runs(), source.steps("bad", "bill-1", "bill-2"), source.events("bill-1"), source.streams("bill-1")]

    for each, found in zip([*READS, *range(9)], made, strict=False):
        assert SECRET not in shown(found), each
        assert "tok-4711" not in shown(found), each
        assert "t-2" not in shown(found), each
    assert [{"token": "***", "n": 1}] == line(shell, "value bill-1")
    assert "email='***'" in source.runs(workflow_ids=["bill-1"])["input"].iloc[0]
    assert "***" in line(shell, "events bill-2")["value"].tolist()


def test_arguments_by_place_are_masked_by_the_names_of_the_function(shell: InteractiveShell, shop: Shop) -> None:
    line(shell, f"attach {shop.reader} --mask amounts")
    assert "***" == line(shell, "runs --prefix good")["input"].iloc[0].strip("'")
    assert ("***",) == door.source().arguments("good")["args"]

    line(shell, f"attach {shop.reader} --mask other")
    assert "[1, 2]" == line(shell, "runs --prefix good")["input"].iloc[0]


def test_texts_by_place_are_hidden_where_the_function_is_not_here() -> None:
    mask = Mask(["email"])

    assert ("***", 3, {"email": "***"}) == mask.arguments((SECRET, 3, {"email": SECRET}), None)
    assert ("***", "b", "c") == mask.arguments((SECRET, "b", "c"), ["email", "to"])
    assert (SECRET,) == Mask().arguments((SECRET,), None)


def test_what_is_gathered_is_masked_by_the_name_of_all() -> None:
    def send(to: str, *email: str, note: str = "") -> None: ...

    assert ("to", "email") == places(send)
    assert ("Ada", "***", "***") == Mask(["email"]).arguments(("Ada", SECRET, SECRET), places(send))
    assert places(None) is None


TEXTS = {
    "email='a@b', n=1": "email=***, n=1",
    '{"email": "x\\"y", "z": 1}': '{"email": ***, "z": 1}',
    "{'token': {'a': [1, ')']}, 'b': 2}": "{'token': ***, 'b': 2}",
    "User(email=Secret('x', k=3), n=1)": "User(email=***, n=1)",
    "token=abc&x=1": "token=***&x=1",
    "Token: Bearer xyz, q": "Token: ***, q",
    '{\\"email\\": \\"a\\", \\"n\\": 1}': '{\\"email\\": ***, \\"n\\": 1}',
    "email='cut of": "email=***",
    "user_email=5, email == x": "user_email=5, email == x",
    "token=b'ab', email=": "token=***, email=",
}


@pytest.mark.parametrize("text", TEXTS)
def test_what_a_text_says_of_a_field_is_masked(text: str) -> None:
    assert TEXTS[text] == Mask(["Email", "token"]).text(text)


@dataclass(frozen=True, slots=True)
class User:
    email: str
    number: int


def test_values_are_masked_in_copies() -> None:
    held = [
        User(SECRET, 1),
        {"TOKEN": [1]},
        (ValueError(f"email={SECRET}"), 2.5),
        pd.DataFrame({"email": [1], "n": [2]}),
    ]
    circle: list[Any] = [held[0]]
    circle.append(circle)

    made = Mask(["email", "token"]).value(held)

    assert [User("***", 1), {"TOKEN": "***"}] == made[:2]
    assert "email=***" == str(made[2][0])
    assert [["***", 2]] == made[3].to_numpy().tolist()
    assert SECRET == held[0].email
    assert SECRET not in repr(Mask(["email"]).value(circle))
    assert held is Mask(["other"]).value(held)


def test_a_masked_step_is_called_on_what_it_was_given(shell: InteractiveShell, shop: Shop) -> None:
    line(shell, f"attach {shop.reader} --mask amount")

    then = line(shell, "at bill-1 charge")

    assert {"email": SECRET, "amount": "***"} == then.arguments
    # Called on "***" it would fail: it compares the amount.
    assert {"email": SECRET, "amount": "***", "lines": [{"token": "tok-4711", "n": 1}]} == then.call()


def test_what_a_moment_holds_is_masked_by_name_and_by_place(shell: InteractiveShell, shop: Shop) -> None:
    line(shell, f"attach {shop.reader} --mask email")
    names: dict[str, Any] = {}

    then = line(shell, "at bill-1 charge")
    commands.enter("bill-1", "charge", into=names)

    assert ("***", 2) == then.args
    assert {"email": "***", "amount": 2} == then.arguments == names
    assert "***" == then.locals["email"]
    assert SECRET not in repr((then.kwargs, then.locals, then.frames))


def test_parameters_are_those_of_the_code_that_ran() -> None:
    source = {
        "helper": "def helper(x): ...",
        "bill": "    @DBOS.workflow()\n    def bill(self, email, /, n, *rest): ...",
    }

    assert ("email", "n", "rest") == parameters_in(json.dumps(source))
    assert parameters_in("{}") is parameters_in("no source") is parameters_in(json.dumps({"a": "x = ("})) is None


# -- addresses -----------------------------------------------------------------------------------------------------


def test_a_password_in_a_cell_is_refused_with_advice(shell: InteractiveShell, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(door.session(), "shell", shell)
    for cell in (
        "%dbos attach postgresql://me:hunter2@localhost:1/app",
        "import dbos_notebook; dbos_notebook.attach('postgresql://me@localhost:1/app?password=hunter2')",
    ):
        ran = shell.run_cell(cell, store_history=True)

        said = str(ran.error_in_exec)
        assert "environment" in said
        assert "--ask" in said
        assert "hunter2" not in said
    assert door.session().attachment is None


def test_an_address_comes_from_the_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("APP_DATABASE", "postgresql://me:hunter2@localhost/app")

    for form in ("$APP_DATABASE", "${APP_DATABASE}"):
        assert "hunter2" == address(form, cell=f"%dbos attach {form}").password
    with pytest.raises(NotAttachableError, match="no environment variable NONE"):
        address("$NONE")


def test_a_password_can_be_asked_for(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("getpass.getpass", lambda prompt: "hunter2" if "localhost" in prompt else "sqlite:///x.sqlite")

    assert "hunter2" == address("postgresql://me@localhost/app", ask=True).password
    assert "x.sqlite" == address(None, ask=True).database


@pytest.mark.parametrize(
    "wrong", ["mysql://me:hunter2@localhost/app", "postgresql+x:/me:hunter2@host://x", "://hunter2"]
)
def test_what_is_no_address_is_said_without_its_secret(wrong: str) -> None:
    with pytest.raises(NotAttachableError) as told:
        address(wrong)

    assert "hunter2" not in str(told.value)


def test_a_file_that_is_not_there_is_not_made(shell: InteractiveShell, tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="no system database"):
        line(shell, f"attach {tmp_path}/none.sqlite")

    assert not (tmp_path / "none.sqlite").exists()
    assert door.session().attachment is None


def test_a_failed_attachment_leaves_the_present_one(attached: InteractiveShell, tmp_path: Path) -> None:
    with pytest.raises(UsageError):
        line(attached, f"attach {tmp_path}/none.sqlite")

    assert 5 == len(line(attached, "runs"))


def test_nothing_can_be_read_only_and_acted_on(shell: InteractiveShell) -> None:
    with pytest.raises(UsageError, match="not both"):
        line(shell, "attach x.sqlite --read-only --actions")


def test_it_is_a_python_call_too(shell: InteractiveShell, shop: Shop) -> None:
    dbos_notebook.attach(shop.reader, mask=["email"], timeout="5s")

    assert {"email"} == door.source().mask.names
    assert 5 == len(dbos_notebook.runs())
    assert session.current().attachment is not None
