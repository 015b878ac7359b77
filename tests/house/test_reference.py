"""The docstrings are the reference: nothing public is undocumented, and the examples run."""

from __future__ import annotations

import ast
import inspect
import pickle
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import create_engine

import dbos
from dbos import DBOS, DBOSClient, DBOSConfig, WorkflowHandle, WorkflowHandleAsync, WorkflowStatusString, error
from dbos._kernel.plan import Op
from dbos._kernel.schema import Tables
from dbos._kernel.store import dialect_of
from tests.house import pages

ROOT = Path(__file__).parents[2]
PAGES = sorted([ROOT / "README.md", *(ROOT / "docs").glob("*.md")])
EXAMPLES = [
    pytest.param(code, id=f"{page.name}-{number}")
    for page in PAGES
    for number, code in enumerate(re.findall(r"```python\n(.*?)```", page.read_text(), re.DOTALL), 1)
]
ERRORS = [each for each in vars(error).values() if isinstance(each, type) and issubclass(each, BaseException)]


def members(cls: type) -> list[str]:
    return [f"{cls.__name__}.{name}" for name in dir(cls) if not name.startswith("_")]


def looked_up(path: str) -> Any:
    """What is documented under a name; a property of the class is looked up and not read."""
    owner, name = path.split(".")
    found = inspect.getattr_static(getattr(dbos, owner), name)
    return found.__func__ if isinstance(found, staticmethod | classmethod) else found


@pytest.mark.parametrize("name", dbos.__all__)
def test_an_exported_name_is_documented(name: str) -> None:
    assert inspect.getdoc(getattr(dbos, name))


@pytest.mark.parametrize(
    "path", [*members(DBOS), *members(DBOSClient), *members(WorkflowHandle), *members(WorkflowHandleAsync)]
)
def test_a_member_is_documented(path: str) -> None:
    if path == "DBOS.logger":  # an object of the standard library; the comment beside it tells whose
        return
    assert looked_up(path).__doc__


@pytest.mark.parametrize("operation", Op.every, ids=lambda operation: operation.name)
def test_an_operation_says_what_it_returns_or_does(operation: Op[Any, ..., Any]) -> None:
    assert operation.doc.split("\n")[0].endswith((".", ":"))


@pytest.mark.parametrize("cls", ERRORS, ids=lambda cls: cls.__name__)
def test_an_error_is_documented(cls: type) -> None:
    assert cls.__doc__


@pytest.mark.parametrize("key", DBOSConfig.__annotations__)
def test_a_configuration_key_is_documented(key: str) -> None:
    assert key in commented_keys()


def commented_keys() -> set[str]:
    """The keys under a `#:` comment: one comment may tell of several that follow each other."""
    lines = inspect.getsource(DBOSConfig).splitlines()
    told, is_told = set(), False
    for line in lines:
        if line.strip().startswith("#:"):
            is_told = True
        elif match := re.match(r"    (\w+):", line):
            if is_told:
                told.add(match.group(1))
        else:
            is_told = False
    return told


@pytest.mark.parametrize("name", pages.PAGES)
def test_a_page_says_what_the_code_says(name: str) -> None:
    assert (pages.FOLDER / name).read_text() == pages.PAGES[name](), "python -m tests.house.pages writes it anew"


@pytest.mark.parametrize("status", WorkflowStatusString)
def test_a_status_is_documented(status: WorkflowStatusString) -> None:
    assert f"| `{status.value}` |" in (pages.FOLDER / "statuses.md").read_text()


def test_every_table_and_column_is_documented() -> None:
    told = (pages.FOLDER / "tables.md").read_text()
    for table in Tables(
        dialect_of(create_engine("postgresql+psycopg://nowhere/none")), "dbos"
    ).metadata.tables.values():
        (line,) = [line for line in told.splitlines() if line.startswith(f"| `{table.name}` |")]
        missing = [column.name for column in table.columns if f"`{column.name}`" not in line]
        assert missing in ([], [each for each in missing if "the same and" in line])


@pytest.mark.parametrize("code", EXAMPLES)
def test_an_example_runs(code: str, tmp_path: Path) -> None:
    ast.parse(code)
    (tmp_path / "example.py").write_text(code)
    ended = subprocess.run(
        [sys.executable, "-W", "error", "example.py"],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )

    assert 0 == ended.returncode, ended.stderr


def test_errors_survive_pickling() -> None:
    """They are stored as the outcomes of steps and workflows."""
    made = [
        error.DBOSException("m"),
        error.DBOSNonExistentWorkflowError("target", "w"),
        error.DBOSConflictingWorkflowError("w", "m"),
        error.DBOSMaxStepRetriesExceeded("s", 3, [ValueError("x")]),
        error.DBOSAwaitedWorkflowCancelledError("w"),
        error.DBOSUnexpectedStepError("w", 1, "a", "b"),
        error.DBOSQueueDeduplicatedError("w", "q", "d"),
        error.DBOSStepTimeoutError("s", 1.5),
        error.DBOSStepWorkerLostError("s", "it died"),
    ]
    for each in made:
        copy = pickle.loads(pickle.dumps(each))
        assert (type(each), str(each)) == (type(copy), str(copy))
        plain = {name: value for name, value in vars(each).items() if not isinstance(value, list)}
        assert plain == {name: vars(copy)[name] for name in plain}
