"""`dbos export`, `import` and `gc`: workflows leave, come back, and are forgotten."""

from __future__ import annotations

import io
import json
import os
import sys
import threading
from pathlib import Path

import pytest

from tests.cli.conftest import Run
from tests.compat.rows import Rows


@pytest.fixture
def rows(database: str) -> Rows:
    made = Rows(database)
    for number in range(1, 4):
        made.add(f"w-{number}", "work", status="SUCCESS", created_at=1000 * number)
    made.add("waits", "work", queue_name="nowhere", created_at=500)
    return made


def delete(dbos: Run, *ids: str) -> None:
    assert 0 == dbos("workflow", "delete", *ids, "--yes").code


def test_workflows_leave_and_come_back(dbos: Run, rows: Rows, tmp_path: Path) -> None:
    said = dbos("export", "archive.jsonl", "w-1", "w-2")
    assert (0, "Exported 2 workflows to archive.jsonl.\n", "") == said
    delete(dbos, "w-1", "w-2")

    assert ["w-1", "w-2"] == dbos("import", "archive.jsonl", "--json").document["imported"]
    assert [] == dbos("import", "archive.jsonl", "--json").document["imported"]
    copies = dbos("import", "archive.jsonl", "--new-ids", "--json").document["imported"]

    assert 2 == len(set(copies) - {"w-1", "w-2"})
    assert (tmp_path / "archive.jsonl").exists()


def test_conditions_choose_and_what_waited_comes_back_cancelled(dbos: Run, rows: Rows) -> None:
    assert {"workflow": 1} == dbos("export", "waiting", "-S", "ENQUEUED", "-n", "work", "--json").document["rows"]
    delete(dbos, "waits")
    assert 0 == dbos("import", "waiting").code
    assert "CANCELLED" == rows.workflow("waits").status
    delete(dbos, "waits")
    assert 0 == dbos("import", "waiting", "--resume").code
    assert ("ENQUEUED", "nowhere") == (rows.workflow("waits").status, rows.workflow("waits").queue_name)


def test_an_archive_goes_through_a_pipe(dbos: Run, rows: Rows, monkeypatch: pytest.MonkeyPatch) -> None:
    said = dbos("export", "-", "w-3")
    assert ["header", "workflow", "footer"] == [next(iter(json.loads(line))) for line in said.out.splitlines()]
    delete(dbos, "w-3")

    monkeypatch.setattr(sys, "stdin", io.StringIO(said.out))
    assert ["w-3"] == dbos("import", "-", "--json").document["imported"]


def test_what_cannot_be_exported_or_imported_is_told_in_one_line(dbos: Run, rows: Rows, tmp_path: Path) -> None:
    (tmp_path / "broken").write_text('{"header":{"format":"dbos-archive","version":9}}\n')

    for words, code, says in (
        (("export", "x", "nobody"), 1, "nobody"),
        (("export", "x", "w-1", "-n", "work"), 2, "ids or conditions"),
        (("export", "no/such/folder/x"), 1, "no/such/folder/x"),
        (("export", "."), 1, "Is a directory"),
        (("import", "nothing"), 1, "No such file"),
        (("import", "broken"), 1, "Line 1 of the archive"),
    ):
        said = dbos(*words)
        assert code == said.code, said
        assert says in said.err
        assert 1 == said.err.count("\n")
    assert not (tmp_path / "x").exists()


def test_a_pipe_is_written_to_and_stays_one(dbos: Run, rows: Rows, tmp_path: Path) -> None:
    """A file in the place of a pipe or a device would take it from everybody."""
    pipe = tmp_path / "pipe"
    os.mkfifo(pipe)
    read: list[str] = []
    reader = threading.Thread(target=lambda: read.append(pipe.read_text()))
    reader.start()

    assert 0 == dbos("export", str(pipe), "w-1").code
    reader.join()

    assert 3 == len(read[0].splitlines())
    assert pipe.is_fifo()


def test_a_link_stays_and_what_it_names_is_replaced(dbos: Run, rows: Rows, tmp_path: Path) -> None:
    (tmp_path / "link").symlink_to("real")

    assert 0 == dbos("export", "link", "w-1").code

    assert (tmp_path / "link").is_symlink()
    assert 3 == len((tmp_path / "real").read_text().splitlines())


def test_nothing_is_older_than_all_time(dbos: Run, rows: Rows) -> None:
    assert 0 == dbos("gc", "--older-than", "999999999w", "--dry-run", "--json").document["would_delete"]


def test_old_workflows_are_forgotten(dbos: Run, rows: Rows) -> None:
    assert {"deleted": 0, "would_delete": 3} == dbos("gc", "--older-than", "30d", "--dry-run", "--json").document
    assert 2 == dbos("gc", "--older-than", "30d").code
    assert "Deleted 1 workflow.\n" == dbos("gc", "--keep", "2", "--yes").out
    assert "Deleted 2 workflows.\n" == dbos("gc", "--older-than", "30d", "--keep", "1000", "-y").out
    assert "Deleted 0 workflows.\n" == dbos("gc", "--older-than", "30d").out
    assert ["waits"] == [each["workflow_id"] for each in dbos("workflow", "list", "--json").document]


@pytest.mark.parametrize("words", [(), ("--older-than", "soon"), ("--older-than", "5"), ("--keep", "-1")])
def test_forgetting_needs_a_bound_that_makes_sense(dbos: Run, rows: Rows, words: tuple[str, ...]) -> None:
    assert 2 == dbos("gc", *words).code
