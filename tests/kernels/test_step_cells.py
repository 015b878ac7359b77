"""Cells under `%%step`: run once, answered from the record from then on, and made one workflow."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.kernels.conftest import LOAD
from tests.kernels.driver import Kernel
from tests.waiting import eventually

HELP = """
import os, time
def note(word):
    with open("ran.txt", "a") as file:
        file.write(f"{word}\\n")
"""
FIT = "def fit(rows):\n    return sum(rows)"
RAW = "%%step raw\nnote('raw')\nraw = [1, 2, 3]"
MODEL = "%%step model --needs raw\nnote('model')\nmodel = fit(raw) * factor\nmodel"
FRAME = "%%step raw\nnote('raw')\nimport pandas as pd\nraw = pd.DataFrame({'a': [1, 2, 3], 'b': list('xyz')})"


def ran(folder: Path) -> list[str]:
    file = folder / "ran.txt"
    return file.read_text().split() if file.exists() else []


def run_all(notebook: Kernel, *changed: str) -> list[str]:
    """What each of these cells, the last ones given by a test, prints."""
    return [notebook.run(cell).stdout for cell in changed]


@pytest.fixture
def begun(notebook: Kernel) -> Kernel:
    run_all(notebook, HELP, FIT, "factor = 10", RAW, MODEL)
    return notebook


def test_an_unchanged_cell_is_answered_after_a_restart(begun: Kernel, tmp_path: Path) -> None:
    begun.restart()
    said = run_all(begun, LOAD, HELP, FIT, "factor = 10", RAW, MODEL)
    assert "raw: from" in said[-2]
    assert "code and inputs unchanged" in said[-2]
    assert "model: from" in said[-1]
    assert begun.run("raw, model").result == "([1, 2, 3], 60)"
    assert ran(tmp_path) == ["raw", "model"]


@pytest.mark.parametrize(
    ("change", "what"),
    [
        ("def fit(rows):\n    return max(rows)", "`fit`"),
        ("factor = 5", "`factor`"),
        ("raw.append(4)", "`raw`"),
        ("raw = [9]", "`raw`"),
        (RAW.replace("3]", "3, 4]"), "`raw`"),
    ],
)
def test_a_cell_is_stale_when_what_it_is_made_of_has_changed(
    begun: Kernel, tmp_path: Path, change: str, what: str
) -> None:
    run_all(begun, change)
    assert begun.run(MODEL).stdout.strip() == f"model: stale, {what} changed, so it runs"
    assert ran(tmp_path).count("model") == 2
    assert "from" in begun.run(MODEL).stdout
    assert ran(tmp_path).count("model") == 2


def test_what_its_functions_read_past_it_counts_too(notebook: Kernel, tmp_path: Path) -> None:
    scaled = "import functools\n@functools.cache\ndef scaled(x):\n    return inner(x)"
    inner = "def inner(x):\n    calls.append(x)\n    return x * config['factor']"
    cell = "%%step made\nnote('made')\nmade = scaled(2)"
    run_all(notebook, HELP, "config, calls = {'factor': 3}, []", inner, scaled, cell)
    assert "from" in notebook.run(cell).stdout, "what a function changes is its own memory"

    notebook.restart()
    run_all(notebook, LOAD, HELP, "config, calls = {'factor': 4}, []", inner, scaled)

    assert "made: stale, `config` changed, so it runs" == notebook.run(cell).stdout.strip()
    assert "8" == notebook.run("made").result
    notebook.run(scaled.replace("inner(x)", "-inner(x)"))
    assert "made: stale, `scaled` changed, so it runs" == notebook.run(cell).stdout.strip()
    assert "-8" == notebook.run("made").result


def test_comments_and_spaces_change_nothing(begun: Kernel, tmp_path: Path) -> None:
    assert "from" in begun.run(RAW.replace("raw = [", "# all of them\nraw  = [")).stdout
    assert ran(tmp_path) == ["raw", "model"]


def test_a_cell_can_be_run_again_on_purpose(begun: Kernel, tmp_path: Path) -> None:
    begun.run(RAW.replace("raw\n", "raw --again\n", 1))
    assert ran(tmp_path) == ["raw", "model", "raw"]
    assert "stale" in begun.run(MODEL).stdout, "what it gave may be another thing"


def test_frames_come_back_as_they_were(notebook: Kernel, tmp_path: Path) -> None:
    run_all(notebook, HELP, FRAME)
    notebook.restart()
    run_all(notebook, LOAD, HELP, FRAME)
    assert notebook.run("raw.dtypes.astype(str).tolist(), raw.a.sum()").result == "(['int64', 'str'], np.int64(6))"
    stored = "from dbos import DBOS\nimport base64\nrun = DBOS.list_workflows(name='notebook.raw')[0].workflow_id\n"
    stored += "b'PAR1' in base64.b64decode(DBOS.list_steps([run])[0].output)"
    assert notebook.run(stored).result == "True"
    assert ran(tmp_path) == ["raw"]


def test_a_cell_that_changes_what_it_takes_is_the_same_when_it_is_run_again(notebook: Kernel, tmp_path: Path) -> None:
    add = "%%step more\nnote('more')\nraw['c'] = raw.a * 2"
    run_all(notebook, HELP, FRAME, add, add, add)
    assert notebook.run("list(raw.columns)").result == "['a', 'b', 'c']"
    assert ran(tmp_path) == ["raw", "more"]


def test_a_killed_cell_goes_on_with_its_inputs(notebook: Kernel, tmp_path: Path) -> None:
    model = MODEL.replace("note('model')", "note('model')\nwhile not os.path.exists('go'):\n    time.sleep(0.01)")
    run_all(notebook, HELP, FIT, "factor = 10", RAW)
    notebook.start(model)
    eventually(lambda: ran(tmp_path) == ["raw", "model"])
    notebook.kill()
    notebook.revive()
    (tmp_path / "go").touch()
    said = run_all(notebook, LOAD, HELP, FIT, "factor = 10", RAW, model)
    assert "from" in said[-2]
    assert "goes on" in said[-1]
    assert notebook.run("model").result == "60"
    assert ran(tmp_path) == ["raw", "model", "model"]


def test_a_cell_that_failed_is_run_again(notebook: Kernel, tmp_path: Path) -> None:
    cell = "%%step load\nnote('load')\nassert os.path.exists('there'), 'not yet'\nload = 1"
    notebook.run(HELP)
    failed = notebook.attempt(cell)
    assert failed.error == "AssertionError"
    assert "dbos_notebook" not in failed.traceback
    (tmp_path / "there").touch()
    notebook.run(cell)
    assert notebook.run("load").result == "1"
    assert ran(tmp_path) == ["load", "load"]


def test_a_cell_is_tried_again_as_often_as_is_said(notebook: Kernel, tmp_path: Path) -> None:
    run_all(
        notebook,
        HELP,
        "%%step load --retry 2 --interval 0.01\nnote('load')\nassert open('ran.txt').read().count('load') > 2\nload = 1",
    )
    assert ran(tmp_path) == ["load"] * 3


def test_what_cannot_be_stored_is_named(notebook: Kernel) -> None:
    failed = notebook.attempt("%%step a\nimport threading\nlock = threading.Lock()\na = 1")
    assert "`lock` is a lock and cannot be stored" in failed.stderr
    assert "_lock" in failed.stderr
    notebook.run("%%step a\nimport threading\n_lock = threading.Lock()\na = 1")
    notebook.run("%dbos config most_megabytes=0.001")
    failed = notebook.attempt("%%step big --retry 5\nbig = bytes(5000)")
    assert "most of it `big`" in failed.stderr
    assert "most_megabytes" in failed.stderr


def test_what_is_needed_and_not_there_is_named(notebook: Kernel) -> None:
    assert "needs raw" in notebook.attempt("%%step model --needs raw\nmodel = 1").stderr


def test_a_cell_may_await(notebook: Kernel) -> None:
    notebook.run("import asyncio")
    notebook.run("%%step slow\nawait asyncio.sleep(0.01)\nslow = 5")
    assert notebook.run("slow").result == "5"


def test_the_last_line_is_shown_and_functions_stay(notebook: Kernel) -> None:
    cell = "%%step one\nimport math\ndef twice(x):\n    return 2 * x\none = twice(math.pi)\nround(one)"
    assert [each["text/plain"] for each in notebook.run(cell).bundles] == ["6"]
    assert notebook.run(cell.replace("round(one)", "round(one);")).bundles == []
    notebook.restart()
    run_all(notebook, LOAD, cell)
    assert notebook.run("round(math.e), twice(2)").result == "(3, 4)"


# -- flows -----------------------------------------------------------------------------------------------------


def test_cells_become_one_workflow(begun: Kernel, tmp_path: Path) -> None:
    assert "pipeline: raw -> model" in (begun.run("%dbos flow pipeline").result or "")
    assert begun.run("pipeline()").result == "60"
    assert begun.run("pipeline.start(factor=2).get_result()").result == "12"
    assert ran(tmp_path) == ["raw", "model"] * 3


def test_a_flow_is_forked_with_an_edited_cell(begun: Kernel, tmp_path: Path) -> None:
    begun.run("%dbos flow pipeline")
    begun.run("from dbos import DBOS, SetWorkflowID\nwith SetWorkflowID('one'):\n    pipeline()")
    begun.run(MODEL.replace("fit(raw) * factor", "fit(raw) + factor"))
    begun.run("%dbos flow pipeline")
    assert begun.run("run = %dbos fork one --from model\nrun.wait() if hasattr(run, 'wait') else None").error is None
    begun.run("forked = DBOS.list_workflows(forked_from='one')[0]")
    assert begun.run("DBOS.retrieve_workflow(forked.workflow_id).get_result()").result == "16"
    assert ran(tmp_path).count("raw") == 2, "once for its cell, once for the flow, and not for the fork"


def test_a_flow_can_be_scheduled(begun: Kernel) -> None:
    begun.run('%dbos flow pipeline --schedule "0 2 * * *"')
    begun.run("from dbos import DBOS\nhandle = DBOS.trigger_schedule('pipeline')")
    assert begun.run("handle.get_result()").result == "60"


def test_cells_run_out_of_order_are_put_in_order(notebook: Kernel) -> None:
    run_all(
        notebook,
        "b = 1\na = 1",
        "%%step c --needs b\nc = b + 1",
        "%%step b\nb = a + 1",
        "%%step c --needs b\nc = b + 1",
    )
    assert "pipeline: b -> c" in (notebook.run("%dbos flow pipeline").result or "")
    assert notebook.run("pipeline(a=5)").result == "7"


def test_what_a_flow_cannot_take_is_named(notebook: Kernel) -> None:
    run_all(notebook, "rows = {1: object}", "%%step n --needs rows\nn = len(rows)")
    assert "takes `rows`, a dict that no step cell gives" in notebook.attempt("%dbos flow pipeline").stderr
    assert "no step cell m" in notebook.attempt("%dbos flow pipeline m").stderr


PICTURES = """%%step drawn
from IPython.display import HTML, display
display(HTML("<b>first</b>"))
drawn = 1
HTML("<i>last</i>")"""


def test_what_a_cell_showed_is_shown_again(notebook: Kernel) -> None:
    shown = ["<b>first</b>", "<i>last</i>"]
    assert shown == [each.get("text/html") for each in notebook.run(PICTURES).bundles]
    assert shown == [each.get("text/html") for each in notebook.run(PICTURES).bundles]
    assert "1" == notebook.run("drawn").result

    notebook.restart()
    notebook.run(LOAD)
    answered = notebook.run(PICTURES)

    assert "code and inputs unchanged" in answered.stdout
    assert shown == [each.get("text/html") for each in answered.bundles]


def test_of_what_is_large_or_lives_in_a_kernel_the_text_is_kept(notebook: Kernel) -> None:
    notebook.run("import ipywidgets\nfrom IPython.display import HTML, display")
    cell = "%%step big\ndisplay(HTML('x' * 2_000_000))\ndisplay(ipywidgets.IntSlider())\nbig = 1"
    notebook.run(cell)

    again = notebook.run(cell)

    assert [["text/plain"]] * 2 == [list(each) for each in again.bundles]


def test_an_async_cell_is_shown_again(notebook: Kernel) -> None:
    cell = "%%step waited\nimport asyncio\nawait asyncio.sleep(0)\nwaited = 2\nwaited"
    notebook.run(cell)

    assert ["2"] == [each["text/plain"] for each in notebook.run(cell).bundles]
