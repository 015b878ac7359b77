"""How figures reach a front end: at once under a Jupyter server, and as plotly chooses anywhere else."""

from __future__ import annotations

from pathlib import Path

import pytest

from dbos_notebook.signs import PLOTLY
from tests.kernels.driver import Kernel

RUN = """
%load_ext dbos_notebook
from dbos import DBOS, SetWorkflowID
@DBOS.step()
def double(x): return 2 * x
@DBOS.workflow()
def twice(x): return double(x)
with SetWorkflowID("w"):
    twice(1)
"""
# What takes seconds to load, where JupyterLab is installed too.
LOADED = "import sys; [name for name in ('nbformat', 'plotly.io._renderers') if name in sys.modules]"


@pytest.fixture
def shown(request: pytest.FixtureRequest, tmp_path: Path) -> tuple[list[dict[str, object]], str | None]:
    """What a figure sends in such a process, and which of the slow modules it loaded."""
    with Kernel(tmp_path, {"JPY_SESSION_NAME": "", "PLOTLY_RENDERER": "", **request.param}) as kernel:
        kernel.run(RUN)
        return kernel.run("%dbos timeline w").bundles, kernel.run(LOADED).result


@pytest.mark.parametrize("shown", [{"JPY_SESSION_NAME": "my.ipynb"}], indirect=True)
def test_under_a_server_nothing_slow_is_loaded(shown: tuple[list[dict[str, object]], str | None]) -> None:
    bundles, loaded = shown
    (figure,) = [bundle[PLOTLY] for bundle in bundles if PLOTLY in bundle]

    assert {"data", "layout"} == set(figure)  # type: ignore[arg-type]  # a figure is a dict
    assert "[]" == loaded


@pytest.mark.parametrize(
    "shown", [{}, {"JPY_SESSION_NAME": "my.ipynb", "PLOTLY_RENDERER": "plotly_mimetype"}], indirect=True
)
def test_elsewhere_plotly_chooses(shown: tuple[list[dict[str, object]], str | None]) -> None:
    bundles, loaded = shown

    assert [PLOTLY] == [kind for bundle in bundles for kind in bundle if kind == PLOTLY]
    assert "['nbformat', 'plotly.io._renderers']" == loaded
