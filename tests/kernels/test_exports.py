"""Out of the notebook: a worker that finishes its runs, a run as a page, and as a notebook."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from html.parser import HTMLParser
from pathlib import Path

import pytest

from tests.kernels.conftest import LOAD
from tests.kernels.driver import Kernel
from tests.waiting import eventually

PARTS = """
import os.path
from dataclasses import dataclass
from dbos import DBOS
import time as clock

@dataclass
class Row:
    n: int

FACTOR = {"a": 2}
GO = os.path.abspath("go")

def weight(row: Row) -> int:
    return row.n * FACTOR["a"]
"""
STEPS = """
@DBOS.step()
def load(day):
    with open("ran.txt", "a") as file:
        file.write("load\\n")
    return [Row(n) for n in range(3)]

@DBOS.step()
def fit(rows):
    while not os.path.exists(GO):
        clock.sleep(0.01)
    return sum(weight(row) for row in rows)

@DBOS.workflow()
def nightly(day):
    rows = load(day)
    return Row(fit(rows))
"""
BEGIN = "with SetWorkflowID('night'):\n    handle = DBOS.start_workflow(nightly, 'monday')"


@pytest.fixture
def begun(notebook: Kernel, tmp_path: Path) -> Kernel:
    """A run that waits in its second step."""
    for cell in (PARTS, STEPS, BEGIN):
        notebook.run(cell)
    eventually(lambda: (tmp_path / "ran.txt").exists())
    return notebook


@contextmanager
def worker(folder: Path, file: str = "worker.py") -> Iterator[None]:
    words = [sys.executable, "-m", "dbos", "worker", file, "-s", f"sqlite:///{folder}/dbos.sqlite"]
    process = subprocess.Popen(
        words, cwd=folder, env={**os.environ}, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
    )
    try:
        yield
    finally:
        process.terminate()
        process.wait(30)


def status(kernel: Kernel) -> str | None:
    return kernel.run("DBOS.get_workflow_status('night').status").result


def test_a_worker_finishes_what_the_notebook_began(begun: Kernel, tmp_path: Path) -> None:
    begun.run("%dbos export worker worker.py nightly")
    begun.kill()
    (tmp_path / "go").touch()
    begun.revive()
    begun.run(LOAD)
    begun.run("from dbos import DBOS")
    begun.run("%dbos launch")
    with worker(tmp_path):
        eventually(lambda: status(begun) == "'SUCCESS'")
    begun.run("from dataclasses import dataclass\n@dataclass\nclass Row:\n    n: int")
    assert begun.run("DBOS.retrieve_workflow('night').get_result()").result == "Row(n=6)"
    assert (tmp_path / "ran.txt").read_text() == "load\n", "the worker took it up after its first step"


def test_a_notebook_is_served_without_being_run(notebook: Kernel, tmp_path: Path) -> None:
    """A worker has the versions of the notebook, and runs nothing but what defines."""
    flow = [
        "factor = int(3)",
        "%%step raw\nopen('ran.txt', 'a').write('raw ')\nraw = [1, 2, 3]",
        "%%step model --needs raw\nmodel = sum(raw) * factor",
        "%dbos flow pipeline",
    ]
    plain = "%%workflow --name daily\ndef one(x):\n    return x + 1\ndef all(x):\n    return one(x)"
    cells = [LOAD, PARTS, STEPS, BEGIN, *flow, plain, "import time\ntime.sleep(1000)", "raise ValueError"]
    for cell in cells[:-2]:
        notebook.run(cell)
    document = {
        "nbformat": 4, "nbformat_minor": 5, "metadata": {},
        "cells": [{"cell_type": "code", "metadata": {}, "source": cell, "outputs": [], "execution_count": None} for cell in cells],
    }  # fmt: skip
    (tmp_path / "night.ipynb").write_text(json.dumps(document))
    notebook.kill()
    (tmp_path / "go").touch()
    (tmp_path / "ran.txt").write_text("")
    notebook.revive()
    notebook.run(LOAD)
    notebook.run("from dbos import DBOS, DBOSClient, SetWorkflowID\n%dbos launch")
    enqueue = "client = DBOSClient(system_database_url='sqlite:///dbos.sqlite')\nhandles = [client.enqueue({'queue_name': '_dbos_internal_queue', "
    enqueue += "'workflow_name': name}, *args) for name, args in (('pipeline', [5]), ('daily', [6]))]"
    with worker(tmp_path, "night.ipynb"):
        eventually(lambda: status(notebook) == "'SUCCESS'", 60)
        notebook.run(enqueue)
        assert notebook.run("[handle.get_result() for handle in handles]").result == "[30, 7]"
    assert (tmp_path / "ran.txt").read_text() == "raw ", "the cell itself was not run, the flow ran it once"


def test_an_edited_worker_is_a_version_of_its_own(begun: Kernel, tmp_path: Path) -> None:
    begun.run("%dbos export worker worker.py nightly")
    file = tmp_path / "worker.py"
    versions = "from dbos import DBOS, extension\nimport worker\nprint(extension.defined_versions())"

    def served() -> str:
        return subprocess.run(
            [sys.executable, "-c", versions], cwd=tmp_path, capture_output=True, text=True, check=True
        ).stdout

    mine = begun.run("from dbos import extension\nextension.defined_versions()['nightly']").result
    assert mine is not None
    assert mine in served()
    file.write_text(file.read_text().replace("# As exported", "# Commented, as exported"))
    assert mine in served(), "comments are no code"
    file.write_text(file.read_text().replace("'a': 2", "'a': 3"))
    assert "None" in served()


def test_a_cell_of_plain_functions_is_exported_with_its_decorators(notebook: Kernel, tmp_path: Path) -> None:
    notebook.run(
        "%%workflow --name daily --retries 2 --queue jobs\ndef one(x):\n    return x\ndef all(x):\n    return one(x)"
    )
    notebook.run("%dbos export worker worker.py")
    text = (tmp_path / "worker.py").read_text()
    assert "@DBOS.step(interval_seconds=1.0, retries_allowed=True, max_attempts=3)\ndef one" in text
    assert "@DBOS.workflow(name='daily')" in text
    assert "Queue('jobs')" in text
    assert "from dbos import DBOS" in text


def test_a_flow_of_cells_is_exported(notebook: Kernel, tmp_path: Path) -> None:
    notebook.run("factor = 3")
    notebook.run("%%step raw\nimport math\nraw = [1, 2, math.floor(3.5)]")
    notebook.run("%%step model\nmodel = sum(raw) * factor")
    notebook.run("%dbos flow pipeline")
    notebook.run("%dbos export worker worker.py pipeline")
    program = "import worker\nfrom dbos import DBOS\nDBOS(config={'name': 'flow'})\nDBOS.launch()\nprint(worker.pipeline(factor=2))"
    ran = subprocess.run([sys.executable, "-c", program], cwd=tmp_path, capture_output=True, text=True, check=True)
    assert ran.stdout.strip() == "12"


def test_what_cannot_be_exported_is_named(notebook: Kernel, tmp_path: Path) -> None:
    notebook.run("import pandas as pd\nframe = pd.DataFrame({'a': [1]})")
    notebook.run("@DBOS.workflow()\ndef nightly():\n    return len(frame)")
    assert (
        "uses `frame`, a DataFrame that cannot be written" in notebook.attempt("%dbos export worker worker.py").stderr
    )
    notebook.run("@DBOS.workflow()\ndef nightly():\n    files = !ls\n    return files")
    assert "only a notebook has" in notebook.attempt("%dbos export worker worker.py").stderr
    assert "there is no workflow daily here" in notebook.attempt("%dbos export worker worker.py daily").stderr
    notebook.run("@DBOS.workflow()\ndef nightly():\n    return 1")
    (tmp_path / "mine.py").write_text("precious = 1")
    assert "is there already" in notebook.attempt("%dbos export worker mine.py").stderr
    assert (tmp_path / "mine.py").read_text() == "precious = 1"


class Tags(HTMLParser):
    def __init__(self) -> None:
        super().__init__()
        self.seen: set[str] = set()
        self.attributes: set[str] = set()

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.seen.add(tag)
        self.attributes |= {name for name, _ in attrs}


def test_a_report_is_one_page_without_scripts(begun: Kernel, tmp_path: Path) -> None:
    begun.run(
        "@DBOS.step()\ndef hostile(x):\n    print('<script>alert(1)</script>')\n    return '<img src=x onerror=alert(1)>'"
    )
    begun.run(
        "@DBOS.workflow()\ndef many():\n    DBOS.set_event('at', 1)\n    for n in range(150):\n        hostile(n)"
    )
    begun.run("with SetWorkflowID('many'):\n    many()")
    begun.run("%dbos export report many many.html")
    page = (tmp_path / "many.html").read_text()
    tags = Tags()
    tags.feed(page)
    assert not tags.seen & {"script", "img", "iframe", "link", "object"}
    assert not [each for each in tags.attributes if each.startswith("on") or each in {"src", "href"}]
    assert "default-src &#x27;none&#x27;" in page or "default-src 'none'" in page
    assert page.count("&lt;img") >= 150, "all steps are in it"
    assert "left out" not in page
    assert "its code" in page
    assert "events" in page


def test_a_run_becomes_a_notebook_that_runs(begun: Kernel, tmp_path: Path) -> None:
    (tmp_path / "go").touch()
    begun.run("handle.get_result()")
    begun.run("%dbos export notebook night night.ipynb")
    document = json.loads((tmp_path / "night.ipynb").read_text())
    cells = ["".join(cell["source"]) for cell in document["cells"] if cell["cell_type"] == "code"]
    begun.restart()
    results = [begun.run(cell).result for cell in cells]
    assert results[-2:] == ["[Row(n=0), Row(n=1), Row(n=2)]", "6"]
    assert begun.run("len(DBOS.list_workflows())").result == "1", "nothing is recorded"


def test_a_run_goes_to_another_database(begun: Kernel, tmp_path: Path) -> None:
    (tmp_path / "go").touch()
    begun.run("handle.get_result()")
    begun.run("%dbos export run night night.jsonl")
    begun.run("%dbos launch other.sqlite")
    assert begun.run("found = %dbos import night.jsonl\nlist(found.index)").result == "['night']"
    assert begun.run("DBOS.retrieve_workflow('night').get_result()").result == "Row(n=6)"
    assert begun.run("again = %dbos import night.jsonl\nlen(again)").result == "0", "it is there already"
    assert (
        begun.run("copy = %dbos import night.jsonl --new-ids\nlen(copy), copy.index[0] != 'night'").result
        == "(1, True)"
    )
    assert "is there already" in begun.attempt("%dbos export run night night.jsonl").stderr
