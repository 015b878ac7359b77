"""Prints belong to their step, and to no cell that merely runs at the time."""

from __future__ import annotations

from tests.kernels.driver import Kernel
from tests.waiting import eventually

TALKS = """
@DBOS.step()
def part(n):
    print(f"part {n} begins")
    reached.set()
    go.wait(30)
    print(f"part {n} ends")

@DBOS.workflow()
def talks():
    print("at the start")
    for n in (1, 2):
        part(n)
    print("at the end")

reached, go = threading.Event(), threading.Event()
"""

PRINTED = "[tuple(n)[1:] for n in DBOS.list_notes(['w'], ['printed', 'printed_after'])]"


def test_what_runs_beside_prints_into_no_cell(notebook: Kernel) -> None:
    cells = [notebook.run(TALKS)]
    cells.append(notebook.run("with SetWorkflowID('w'):\n    handle = DBOS.start_workflow(talks)\nreached.wait(20)"))
    cells.append(notebook.run("print('meanwhile')\ngo.set()"))
    cells.append(notebook.run("handle.get_result()"))

    assert ["", "", "meanwhile\n", ""] == [cell.stdout for cell in cells]
    assert sorted(
        [
            (0, "printed_after", "at the start\n"),
            (1, "printed", "part 1 begins\npart 1 ends\n"),
            (2, "printed", "part 2 begins\npart 2 ends\n"),
            (2, "printed_after", "at the end\n"),
        ]
    ) == sorted(eval(notebook.run(PRINTED).result or ""))
    assert [] == [each for each in notebook.strays if each["msg_type"] == "stream"]


def test_a_workflow_that_is_called_prints_in_its_cell_too(notebook: Kernel) -> None:
    notebook.run(TALKS + "\ngo.set()")

    cell = notebook.run("with SetWorkflowID('w'):\n    talks()")

    assert "at the start\npart 1 begins\npart 1 ends\npart 2 begins\npart 2 ends\nat the end\n" == cell.stdout
    assert 4 == len(eval(notebook.run(PRINTED).result or ""))


def test_async_steps_side_by_side_keep_theirs_apart(notebook: Kernel) -> None:
    notebook.run("""
@DBOS.step()
async def part(n):
    for line in range(3):
        print(f"{n} says {line}")
        await asyncio.sleep(0)

@DBOS.workflow()
async def both():
    await asyncio.gather(part(1), part(2))
""")

    notebook.run("with SetWorkflowID('w'):\n    await both()")

    texts = {step: text for step, kind, text in eval(notebook.run(PRINTED).result or "") if kind == "printed"}
    assert {1: "1 says 0\n1 says 1\n1 says 2\n", 2: "2 says 0\n2 says 1\n2 says 2\n"} == texts


def test_what_a_step_printed_before_it_failed_is_kept(notebook: Kernel) -> None:
    notebook.run("""
@DBOS.step(retries_allowed=True, interval_seconds=0, max_attempts=3)
def fails():
    print("trying")
    raise ValueError("no good")

@DBOS.workflow()
def flow():
    fails()
""")
    notebook.attempt("with SetWorkflowID('w'):\n    flow()")

    notes = {(n[1], n[2]): n[3] for n in eval(notebook.run("[tuple(n) for n in DBOS.list_notes(['w'])]").result or "")}
    assert 3 * "trying\n" == notes[1, "printed"]
    assert 3 == notes[1, "attempts"].count("no good")
    assert "in fails" in notes[1, "error"]
    assert "exceeded its maximum" in notes[0, "error"]


def test_endless_prints_are_cut(notebook: Kernel) -> None:
    notebook.run("@DBOS.workflow()\ndef flow():\n    for _ in range(1000):\n        print('x' * 10_000)")
    notebook.run("with SetWorkflowID('w'):\n    h = DBOS.start_workflow(flow)\nh.get_result()")

    ((_, _, text),) = eval(notebook.run(PRINTED).result or "")
    assert len(text) < 70_000
    assert "more characters were printed and not kept" in text


def test_a_step_is_told_of_while_it_runs(notebook: Kernel) -> None:
    """Its name, what it was called with and has printed until now; and all of it when it has ended."""
    notebook.run(TALKS)
    notebook.run("with SetWorkflowID('w'):\n    handle = DBOS.start_workflow(talks)\nreached.wait(20)")
    view = "import dbos_notebook\nframe = dbos_notebook.steps('w')\nlist(frame[['name', 'status', 'printed']].itertuples(index=False, name=None))"
    eventually(lambda: "part 1 begins" in (notebook.run(view).result or ""))

    assert "[('part', 'PENDING', 'part 1 begins\\n')]" == notebook.run(view).result
    notebook.run("go.set()\nhandle.get_result()")
    assert "part 1 begins\\npart 1 ends" in (notebook.run(view).result or "")
    attempts = notebook.run("[n.text for n in DBOS.list_notes(['w'], ['attempts'])]").result or ""
    assert '"ended": null' not in attempts


def test_variables_of_a_failure_are_kept_when_that_is_asked_for(notebook: Kernel) -> None:
    notebook.run("@DBOS.step()\ndef ratio(a, b):\n    share = a * 2\n    return share / b")
    notebook.run("@DBOS.workflow()\ndef work(a):\n    return ratio(a, 0)")
    for name, setting in (("without", "False"), ("with", "True")):
        notebook.run(f"%dbos config keep_locals={setting}")
        notebook.attempt(f"with SetWorkflowID('{name}'):\n    work(21)")
    kept = notebook.run("[n.text for n in DBOS.list_notes(['without', 'with'], ['locals'])]").result or ""
    assert "share = 42" in kept
    assert kept.count("ratio:") == 2, "of the step, and of the workflow that it ended"
    notebook.restart()
    notebook.run("%load_ext dbos_notebook")
    assert "share = 42" in (notebook.run("%dbos debug with").result or ""), "although the code is not here"
