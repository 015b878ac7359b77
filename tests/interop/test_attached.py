"""Databases that other releases wrote are attached read-only: listed, drawn, triaged and travelled in, and not touched."""

from __future__ import annotations

import hashlib
from pathlib import Path
from typing import Any

import psycopg
import pytest
from IPython.core.error import UsageError
from IPython.core.interactiveshell import InteractiveShell
from sqlalchemy import make_url

from dbos import DBOS
from dbos_notebook import door
from tests.interop.conftest import Begin
from tests.notebook.shells import line, shell

__all__ = ["shell"]

RELEASES = ["2.18.0", "3.4.0"]


def write(begin: Begin, release: str, place: str, folder: Path) -> None:
    """Let the application of another package run, and go."""
    (folder / "gate").touch()
    other = begin(release)
    other("launch", url=place)
    other("connect", url=place)
    for workflow_id in ("good", "other"):
        other("start", name="gated", workflow_id=workflow_id, args=[str(folder / "notes"), str(folder / "gate")])
        assert 3 == other("application_result", workflow_id=workflow_id)
    other("start", name="talks", workflow_id="talk", args=[])
    other("send", workflow_id="talk", message={"token": "t-1"}, topic="t", portable=False)
    other("send", workflow_id="talk", message="x", portable=False)
    other("application_result", workflow_id="talk")
    for number in range(3):
        other("start", name="fails", workflow_id=f"bad-{number}", args=[f"order {number} of email='a@b.org' is lost"])
        with pytest.raises(Exception, match="is lost"):
            other("application_result", workflow_id=f"bad-{number}")
    other("end")
    if place.startswith("postgres"):  # what only we have, so that it is theirs alone
        with psycopg.connect(place, autocommit=True) as conn:
            ours = conn.execute("SELECT tablename FROM pg_tables WHERE tablename LIKE 'notebook_%'").fetchall()
            for (name,) in ours:
                conn.execute(f"DROP TABLE dbos.{name} CASCADE")


def define() -> None:
    """The application's code, as it would be imported."""

    @DBOS.step(name="note")
    def note(file: str, x: int) -> int:
        raise AssertionError("no step runs")

    @DBOS.step(name="pass_gate")
    def pass_gate(gate: str) -> None:
        raise AssertionError("no step runs")

    @DBOS.workflow(name="gated")
    def gated(file: str, gate: str) -> int:
        first = note(file, 1)
        pass_gate(gate)
        return first + note(file, 2)

    @DBOS.workflow(name="fails")
    def fails(text: str) -> None:
        raise ValueError(text)


def state(place: str) -> Any:
    url = make_url(place)
    if url.get_backend_name() == "sqlite":
        return hashlib.sha256(Path(url.database or "").read_bytes()).hexdigest()
    with psycopg.connect(place, autocommit=True) as conn:
        tables = [name for (name,) in conn.execute("SELECT tablename FROM pg_tables WHERE schemaname = 'dbos'")]
        return {name: conn.execute(f"SELECT *, xmin FROM dbos.{name} ORDER BY 1").fetchall() for name in tables}


@pytest.mark.parametrize("release", RELEASES)
def test_what_another_release_wrote_is_looked_at_and_not_touched(
    shell: InteractiveShell, begin: Begin, place: str, release: str, tmp_path: Path
) -> None:
    write(begin, release, place, tmp_path)
    define()
    before, notes = state(place), (tmp_path / "notes").read_text()

    line(shell, f"attach {place} --mask token,email")
    made = {verb: line(shell, verb) for verb in (
        "status", "runs", "steps good", "show good", "show bad-0", "timeline good", "tree good", "events talk",
        "messages talk", "streams talk", "queues", "schedules", "versions", "value talk", "source good", "waiting",
        "at good pass_gate", "check gated", "check fails", "debug bad-0", "diff good other", "triage",
        "fork --group 1 --dry-run", "watch good", "tail talk s",
    )}  # fmt: skip

    assert {"good", "other", "talk", "bad-0", "bad-1", "bad-2"} == set(made["runs"].index)
    assert ["note", "pass_gate", "note"] == list(made["steps good"]["name"])
    assert {"token": "***"} in made["value talk"]
    assert "t-1" not in made["messages talk"].to_csv()
    assert "pass_gate" in made["show good"].text
    assert {"first": 1} == {name: made["at good pass_gate"].locals[name] for name in ("first",)}
    assert made["check gated"].fits
    assert made["check fails"].fits
    assert made["debug bad-0"].is_reproduced
    assert set() == set(made["diff good other"].changes["name"])
    (group,) = made["triage"].groups
    assert (3, "fails", "ValueError: order # of email=***") == (len(group.ids), group.workflow, group.error[:32])
    assert before == state(place)
    assert notes == (tmp_path / "notes").read_text()
    assert not door.session().is_launched
    for act in ("fork bad-0", "cancel good", "send talk 1", "fork --group 1 --confirm 3", "delete good --yes"):
        with pytest.raises(UsageError, match="--actions"):
            line(shell, act)
    assert before == state(place)


@pytest.mark.parametrize("release", RELEASES)
def test_actions_are_allowed_on_what_another_release_wrote(
    shell: InteractiveShell, begin: Begin, place: str, release: str, tmp_path: Path
) -> None:
    write(begin, release, place, tmp_path)
    line(shell, f"attach {place} --actions")
    line(shell, "triage")

    forks = line(shell, "fork --group 1 --confirm 3")
    fork = line(shell, "fork good --from 2")

    assert 3 == len(forks)
    assert "ENQUEUED" == line(shell, f"runs --prefix {fork.workflow_id}")["status"].iloc[0]
    line(shell, f"cancel {fork.workflow_id}")
    line(shell, f"resume {fork.workflow_id}")
    line(shell, f"delete {fork.workflow_id} --yes")
    other = begin(release)
    other("launch", url=place)
    other("connect", url=place)
    with pytest.raises(Exception, match="is lost"):
        other("result", workflow_id=forks.index[0])
    other("end")
