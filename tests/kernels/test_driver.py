"""The driver itself: outputs are known by the cell they came in, and a kernel can die and come back."""

from __future__ import annotations

from tests.kernels.driver import Kernel

THREAD = """
import contextvars, threading
go = threading.Event()
def work():
    go.wait(10)
    print("from the thread\\n", end="")
threading.Thread(target=contextvars.copy_context().run, args=(work,), daemon=True).start()
"""


def test_a_cell_has_its_result_its_prints_and_its_error(kernel: Kernel) -> None:
    good = kernel.run("import sys; print('out'); print('err', file=sys.stderr); 6 * 7")
    bad = kernel.attempt("1 / 0")

    assert ("out\n", "err\n", "42") == (good.stdout, good.stderr, good.result)
    assert "ZeroDivisionError" == bad.error
    assert "division by zero" in bad.traceback


def test_what_a_thread_prints_is_known_by_the_cell_that_it_came_in(kernel: Kernel) -> None:
    first = kernel.run(THREAD)
    second = kernel.run("go.set(); 1")

    assert first is kernel.cell_of("from the thread")
    assert "" == second.stdout


def test_a_kernel_can_be_interrupted_restarted_killed_and_revived(kernel: Kernel) -> None:
    waiting = kernel.start("print('waiting', flush=True); import threading; threading.Event().wait()")
    kernel.until(lambda: "waiting" in waiting.stdout)
    kernel.interrupt()
    assert "KeyboardInterrupt" == waiting.wait().error

    kernel.run("x = 1")
    kernel.restart()
    assert "NameError" == kernel.attempt("x").error

    kernel.kill()
    assert not kernel.is_alive()
    kernel.revive()
    assert "2" == kernel.run("1 + 1").result


def test_the_tabulator_key_completes(kernel: Kernel) -> None:
    kernel.run("longname = 1")

    assert "longname" in kernel.complete("longn")
