"""Cells are run again: what they define is replaced without a word, and runs in flight keep the code they began with."""

from __future__ import annotations

import json

from tests.kernels.conftest import LOAD
from tests.kernels.driver import Kernel
from tests.waiting import eventually

DEFINITIONS = """
from dbos import DBOSConfiguredInstance

def helper(n):
    return n + 1

@DBOS.step()
def add(n):
    return helper(n)

@DBOS.workflow()
def adds(n):
    return add(n)

@DBOS.dbos_class()
class Adder(DBOSConfiguredInstance):
    def __init__(self):
        super().__init__("one")

    @DBOS.workflow()
    def run(self, n):
        return add(n)

adder = Adder()
line = Queue("line", concurrency=1)
DBOS.create_schedule(schedule_name="daily", workflow_fn=adds, schedule="0 0 * * *")
"""


def test_every_definition_may_be_run_again(notebook: Kernel) -> None:
    for _ in range(3):
        cell = notebook.run(DEFINITIONS)
        assert "" == cell.stderr
        assert "" == cell.stdout

    assert "(2, 2, 2)" == notebook.run("adds(1), adder.run(1), line.enqueue(adds, 1).get_result()").result
    assert "1" == notebook.run("len(DBOS.list_schedules())").result


GATED = """
@DBOS.step()
def first():
    return "{word} first"

@DBOS.step()
def second():
    return helper()

def helper():
    return "{word} second"

@DBOS.workflow()
def gated():
    one = first()
    began.set()
    go.wait(30)
    return one, second(), label(), "{word}"

def label():
    return "{word} label"
"""


def test_a_run_in_flight_stays_on_its_code(notebook: Kernel) -> None:
    notebook.run("began, go = threading.Event(), threading.Event()")
    notebook.run(GATED.format(word="old"))
    notebook.run("old = DBOS.start_workflow(gated)\nbegan.wait(20)")
    notebook.run(GATED.format(word="new"))

    notebook.run("go.set()")

    assert "('old first', 'old label', 'old')" == notebook.run("r = old.get_result(); (r[0], r[2], r[3])").result
    assert "('new first', 'new label', 'new')" == notebook.run("r = gated(); (r[0], r[2], r[3])").result


def test_what_is_enqueued_keeps_its_code(notebook: Kernel) -> None:
    notebook.run("began, go = threading.Event(), threading.Event()\nline = Queue('line', concurrency=1)")
    notebook.run(GATED.format(word="old"))
    notebook.run("handles = [line.enqueue(gated) for _ in range(2)]\nbegan.wait(20)")
    notebook.run(GATED.format(word="new"))
    notebook.run("handles.append(line.enqueue(gated))\ngo.set()")

    assert "['old', 'old', 'new']" == notebook.run("[each.get_result()[3] for each in handles]").result


def versions(notebook: Kernel) -> list[str]:
    return list(
        eval(notebook.run("[each.app_version for each in DBOS.list_workflows(sort_desc=False)]").result or "[]")
    )


def test_the_version_is_that_of_the_workflow_and_its_helpers(notebook: Kernel) -> None:
    cells = {
        "helper": "def helper(n):\n    return n + 1",
        "class": "class Scale:\n    def of(self, n):\n        return n * 2",
        "step": "@DBOS.step()\ndef add(n):\n    return n",
        "workflow": "@DBOS.workflow()\ndef flow(n):\n    return add(Scale().of(helper(n)))",
    }
    for cell in cells.values():
        notebook.run(cell)
    notebook.run("flow(1)")
    for changed in (
        "def helper(n):  # a comment\n    return n + 1",
        "@DBOS.step()\ndef add(n):\n    return n + 100",
        cells["workflow"],
    ):
        notebook.run(changed)
        notebook.run("flow(1)")
    assert 1 == len(set(versions(notebook)))

    for changed in (
        "def helper(n):\n    return n + 2",
        "class Scale:\n    def of(self, n):\n        return n * 3",
        "@DBOS.workflow()\ndef flow(n):\n    return add(Scale().of(helper(n))) + 1",
    ):
        notebook.run(changed)
        notebook.run("flow(1)")

    assert 4 == len(set(versions(notebook)))


def test_each_run_knows_the_exact_source_it_ran(notebook: Kernel) -> None:
    notebook.run("@DBOS.step()\ndef part():\n    return 1")
    notebook.run("@DBOS.workflow()\ndef whole():  # as it was\n    return part()")
    notebook.run("with SetWorkflowID('a'):\n    whole()")
    notebook.run("@DBOS.step()\ndef part():\n    return 2")
    notebook.run("with SetWorkflowID('b'):\n    whole()")

    codes = eval(notebook.run("{n.workflow_id: n.text for n in DBOS.list_notes(['a', 'b'], ['code'])}").result or "")
    assert codes["a"] != codes["b"]
    found = eval(notebook.run(f"{{s.version: s.text for s in DBOS.list_sources({list(codes.values())})}}").result or "")
    sources = {name: json.loads(found[code]) for name, code in codes.items()}
    assert "# as it was" in sources["a"]["whole"]
    assert "return 1" in sources["a"]["part"]
    assert "return 2" in sources["b"]["part"]


WORKFLOW_CELL = """%%workflow --name nightly --queue line --retries 2 --interval 0.01 --schedule "0 2 * * *"
def load(n):
    tries.append(n)
    if len(tries) < 3:
        raise ValueError("not yet")
    return n

def nightly_run(n):
    return load(n) * 10
"""


def test_a_cell_of_plain_functions_is_a_workflow(notebook: Kernel) -> None:
    notebook.run("tries = []")
    for _ in range(2):
        cell = notebook.run(WORKFLOW_CELL)
        assert "" == cell.stderr

    assert "40" == notebook.run("nightly_run(4)").result
    assert (
        "['load']"
        == notebook.run(
            "[s['function_name'] for s in DBOS.list_workflow_steps(DBOS.list_workflows()[0].workflow_id)]"
        ).result
    )
    started = "h = nightly_run.start(5); (h.get_result(), h.get_status().queue_name, h.get_status().name)"
    assert "(50, 'line', 'nightly')" == notebook.run(started).result
    assert "['0 2 * * *']" == notebook.run("[each['schedule'] for each in DBOS.list_schedules()]").result


def test_a_workflow_cell_without_functions_says_so(notebook: Kernel) -> None:
    cell = notebook.attempt("%%workflow\nx = 1")

    assert "UsageError" in cell.text + cell.stderr + (cell.error or "")
    assert "no function" in cell.text + cell.stderr + cell.traceback
    assert "--retries" in notebook.run("%%workflow --help\n1").stdout
    wrong = notebook.attempt("%%workflow --schedule often\ndef other():\n    return 1")
    assert "'often' is no cron expression" in wrong.stderr
    assert "other is defined, and has no new schedule" in wrong.stderr
    assert "Traceback" not in wrong.stderr


OLD = """
@DBOS.step()
def load():
    return [2, 1]

@DBOS.step()
def normalise(numbers):
    return sorted(numbers)

@DBOS.workflow()
def report():
    numbers = load()
    DBOS.recv("go")
    return numbers
"""
NEW = OLD.replace("    numbers = load()\n", "    numbers = load()\n    numbers = normalise(numbers)\n")


def test_a_patch_lets_runs_in_flight_go_on_with_new_code(notebook: Kernel) -> None:
    """It says which fit, puts a cell with the guard below, and moves those that fit then."""
    notebook.run(OLD)
    notebook.run("with SetWorkflowID('night'):\n    DBOS.start_workflow(report)")
    eventually(
        lambda: (
            "'load'" in (notebook.run("[s['function_name'] for s in DBOS.list_workflow_steps('night')]").result or "")
        )
    )
    notebook.kill()
    notebook.revive()
    notebook.run(LOAD)
    notebook.run("from dbos import DBOS, SetWorkflowID")
    notebook.run(NEW)

    cell = notebook.run("%dbos patch report")
    assert "in flight: 0 of 1 run fit" in cell.text
    assert cell.reply is not None
    (put,) = [each["text"] for each in cell.reply["payload"] if each["source"] == "set_next_input"]
    assert 'if DBOS.patch("normalise"):' in put
    notebook.run(put)
    assert "1 run go" in notebook.run("%dbos patch report --resume").text.replace("1 run goes", "1 run go")
    notebook.run("DBOS.send('night', 1, topic='go')")

    assert "[2, 1]" == notebook.run("DBOS.get_result('night')").result


def test_a_mask_knows_arguments_by_the_code_that_ran(notebook: Kernel) -> None:
    notebook.run(
        "@DBOS.workflow()\ndef pay(email, n):\n    return n\nwith SetWorkflowID('paid'): pay('ada@example.org', 'three')"
    )
    notebook.run("@DBOS.workflow()\ndef pay(n, email):\n    return n")
    notebook.run("%dbos attach sqlite:///dbos.sqlite --mask email")

    told = notebook.run("from dbos_notebook import door\ndoor.source().arguments('paid')['args']").result

    assert "('***', 'three')" == told


def test_a_cached_helper_is_part_of_the_version(notebook: Kernel) -> None:
    helper = "import functools\n@functools.lru_cache(maxsize=None)\ndef helper(x):\n    return x + {}"
    notebook.run(helper.format(1))
    notebook.run("@DBOS.workflow()\ndef work(x):\n    return helper(x)")
    notebook.run("work(1)")
    notebook.run(helper.format(2))
    notebook.run("work(1)")

    versions = notebook.run("runs = %dbos runs --name work\nprint(*runs['version'])").stdout.split()

    assert 2 == len(set(versions))
