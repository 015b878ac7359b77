"""What is masked is seen nowhere: not within values of any kind, not in errors and frames, not in what is printed."""

from __future__ import annotations

import collections
import io
import pickle
import types
from base64 import b64encode
from dataclasses import dataclass
from datetime import UTC, datetime, time, timedelta, timezone
from pathlib import Path
from typing import Any
from zoneinfo import ZoneInfo

import numpy as np
import pandas as pd
import pyarrow as pa
import pytest
from IPython.core.debugger import Pdb
from IPython.core.interactiveshell import InteractiveShell

from dbos import DBOS, KafkaMessage, SetWorkflowID
from dbos_notebook.masking import Mask
from dbos_notebook.stored import preview
from tests.notebook.shells import line, shell

__all__ = ["shell"]

SECRET = "ada@example.org"


class Slots:
    __slots__ = ("__inner", "email")

    def __init__(self) -> None:
        self.email, self.__inner = SECRET, {"email": SECRET}

    def __repr__(self) -> str:
        return f"{self.email} {self.__inner}"


class Raises:
    def __getattribute__(self, name: str) -> Any:
        raise KeyboardInterrupt if name == "columns" else RuntimeError(name)


@dataclass
class Held:
    value: Any


FRAME = pd.DataFrame({"email": [SECRET] * 2, "n": [1, 2]})
VALUES: dict[str, Any] = {
    "an index": FRAME.set_index("email"),
    "an index of two": FRAME.set_index(["n", "email"]),
    "a column": FRAME["email"],
    "a row": pd.Series({"email": SECRET, "n": 1}),
    "columns in two rows": pd.DataFrame({("user", "email"): [SECRET], ("user", "n"): [1]}),
    "dicts in a column": pd.DataFrame({"payload": [{"email": SECRET}]}),
    "texts in a column": pd.DataFrame({"payload": [f'{{"email": "{SECRET}"}}']}),
    "an index alone": pd.Index([SECRET], name="email"),
    "a table of another library": pa.table({"email": [SECRET]}),
    "a table in a table": pa.table({"payload": [{"email": SECRET}]}),
    "an array with fields": np.array([(SECRET, 1)], dtype=[("email", "U20"), ("n", int)]),
    "an array of objects": np.array([{"email": SECRET}, 1], dtype=object),
    "bytes": f'{{"email": "{SECRET}"}}'.encode(),
    "a key of bytes": {b"email": SECRET},
    "a proxy": types.MappingProxyType({"email": SECRET}),
    "items": {"email": SECRET}.items(),
    "values": {"email": SECRET}.values(),
    "a deque": collections.deque([{"email": SECRET}]),
    "a pair": [("Email", SECRET), ("n", 1)],
    "slots": Slots(),
    "a namespace": types.SimpleNamespace(email=SECRET),
    "a message": KafkaMessage([("email", SECRET)], None, 0.0, 0, 1, 0, (1, 2), "t", f'{{"email": "{SECRET}"}}'),
    "what holds any of them": Held([Held(Slots())]),
}


def seen(value: Any) -> str:
    """All that somebody may see of a value."""
    return f"{value!r} {value.to_string()}" if isinstance(value, pd.DataFrame | pd.Series) else repr(value)


@pytest.mark.parametrize("what", VALUES)
def test_no_kind_of_value_shows_it(what: str) -> None:
    before = seen(VALUES[what])

    made = Mask(["email"]).value(VALUES[what])

    assert SECRET in before
    assert SECRET not in seen(made)
    assert "***" in seen(made)
    assert before == seen(VALUES[what])
    assert Mask(["other"]).value(VALUES[what]) is VALUES[what]


def test_the_rest_of_a_frame_stays() -> None:
    frame = FRAME.assign(at=datetime(2026, 1, 1, tzinfo=UTC), note=["a", f"email={SECRET}"])

    made = Mask(["email"]).value(frame)

    assert {"email": ["***"] * 2, "n": [1, 2], "note": ["a", "email=***"]} == made.drop(columns="at").to_dict("list")
    assert [frame.dtypes["at"], frame.dtypes["n"]] == [made.dtypes["at"], made.dtypes["n"]]


def test_what_is_no_data_stays_what_it_is() -> None:
    held = {"pd": pd, "fn": seen, "generator": (each for each in "ab"), "raises": Raises()}

    made = Mask(["email", "dataframe"]).fields(held)

    assert all(made[name] is value for name, value in held.items())
    assert Mask(["email"]).arguments((held["raises"],), None)[0] is held["raises"]


def test_a_text_that_is_masked_stays_so() -> None:
    once = Mask(["email"]).text(f"{{'email': '{SECRET}'}}")

    assert once == Mask(["email"]).text(once)
    assert "{'email': '***'}" == Mask(["email"]).text("{'email': '***'}")


# -- stored values -------------------------------------------------------------------------------------------------


@dataclass
class ByPlace:
    value: str

    def __reduce__(self) -> Any:
        return ByPlace, (self.value,)


def pickled(value: Any) -> str:
    return b64encode(pickle.dumps(value)).decode()


STORED: dict[str, Any] = {
    "datetime.datetime(2026, 1, 1, 0, 0, tzinfo=datetime.timezone.utc)": datetime(2026, 1, 1, tzinfo=UTC),
    "datetime.datetime(2026, 1, 1, 0, 0, tzinfo=Europe/Berlin)": datetime(2026, 1, 1, tzinfo=ZoneInfo("Europe/Berlin")),
    "datetime.time(2, 0, tzinfo=datetime.timezone(datetime.timedelta(seconds=3600)))": time(
        2, tzinfo=timezone(timedelta(hours=1))
    ),
    "deque(1)": collections.deque([1]),
}


@pytest.mark.parametrize("told", STORED)
def test_moments_in_zones_and_deques_are_told(told: str) -> None:
    assert told == preview(pickled(STORED[told]), None)


def test_what_a_class_got_by_place_has_no_name() -> None:
    assert "ByPlace('***')" == preview(pickled(ByPlace(SECRET)), None, Mask(["email"]))
    assert "PosixPath('/', 'a')" == preview(pickled(Path("/a")), None, Mask(["email"]))


# -- what is run on what was recorded ------------------------------------------------------------------------------


class Refused(Exception):
    def __init__(self, email: str, amount: int) -> None:
        super().__init__(f"{amount} refused")
        self.email, self.amount = email, amount

    def __reduce__(self) -> Any:
        return Refused, (self.email, self.amount)

    def __str__(self) -> str:
        return f"email={self.email} {self.amount}"


@pytest.fixture
def shop(shell: InteractiveShell, tmp_path: Path) -> InteractiveShell:
    """An application that has failed, attached with a mask; its code is here."""

    @DBOS.step(name="charge")
    def charge(account: dict[str, Any], amount: int) -> dict[str, Any]:
        email = account["email"]
        print("email =", email)
        if amount < 0:
            try:
                raise KeyError(f"email={email}")
            except KeyError as cause:
                raise Refused(email, amount) from cause
        return {"email": email}

    @DBOS.workflow(name="bill")
    def bill(account: dict[str, Any], amount: int) -> Any:
        return charge(account, amount)

    @DBOS.workflow(name="month")
    def month() -> Any:
        return DBOS.start_workflow(bill, {"email": SECRET}, 1).get_result()

    line(shell, "launch other.sqlite".replace("other", str(tmp_path / "other")))
    for name, amount in (("good", 1), ("bad", -1)):
        with SetWorkflowID(name):
            handle = DBOS.start_workflow(bill, {"email": SECRET}, amount)
        if amount < 0:
            pytest.raises(Refused, handle.get_result)
        handle.get_status()
    with SetWorkflowID("all"):
        month()
    line(shell, f"attach {tmp_path / 'other.sqlite'} --mask email")
    return shell


def test_handles_of_children_are_among_the_variables(shop: InteractiveShell) -> None:
    then = line(shop, "at all 2")

    assert "<WorkflowHandle all-1>" in then.view.text


def test_a_step_that_is_called_shows_nothing_of_it(shop: InteractiveShell, capsys: pytest.CaptureFixture[str]) -> None:
    then = line(shop, "at good charge")

    assert {"email": "***"} == then.call()
    assert "email = ***\n" == capsys.readouterr().out
    with pytest.raises(Refused) as failed:
        line(shop, "at bad charge").call()
    assert "email=*** -1" == str(failed.value)


def test_the_frames_that_debug_opens_are_masked(shop: InteractiveShell, capsys: pytest.CaptureFixture[str]) -> None:
    found = line(shop, "debug bad")
    out = io.StringIO()
    # Not the shell's, which would read from the keyboard.
    debugger = Pdb(stdin=io.StringIO("p email, account, amount\np cause\nw\nq\n"), stdout=out)
    debugger.use_rawinput = False
    debugger.reset()
    debugger.botframe = found.error.__traceback__.tb_frame

    debugger.interaction(None, found.error)

    assert found.is_reproduced
    assert "('***', {'email': '***'}, -1)" in out.getvalue()
    assert "charge" in out.getvalue()
    texts = [out.getvalue(), *capsys.readouterr(), repr(found.locals), repr(found.error), str(found.error)]
    texts += [str(found.error.__cause__), found.view.text, found.view.html]
    assert not [text for text in texts if SECRET in text]
