"""The explorer in a real kernel: it opens by name, is replaced by its cell, and leaves with the extension."""

from __future__ import annotations

from tests.kernels.driver import Kernel

THREADS = "import threading; print(sorted(t.name for t in threading.enumerate() if t.name.startswith('dbos-explorer')))"
ALL = "['dbos-explorer', 'dbos-explorer-actor', 'dbos-explorer-reader']"


def test_it_opens_with_percent_dbos_and_is_gone_with_the_extension(kernel: Kernel) -> None:
    kernel.run("%load_ext dbos_notebook")
    opened = kernel.run("%dbos")
    assert any("application/vnd.jupyter.widget-view+json" in bundle for bundle in opened.bundles)
    assert "%dbos runs" in str(opened.result)
    assert "" == opened.stderr
    assert f"{ALL}\n" == kernel.run(THREADS).stdout

    kernel.run("%unload_ext dbos_notebook")

    assert "[]\n" == kernel.run(THREADS).stdout


def test_its_python_calls_are_those_of_the_magic(kernel: Kernel) -> None:
    kernel.run("%load_ext dbos_notebook")
    kernel.run("import dbos_notebook; first = dbos_notebook.explorer()\nsecond = %dbos explorer")

    assert "['Explorer', 'Explorer']" == kernel.run("[type(each).__name__ for each in (first, second)]").result

    kernel.run("from dbos_notebook.explore import close_all; close_all()")
    assert "[]\n" == kernel.run(THREADS).stdout
