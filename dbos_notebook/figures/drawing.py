"""A plotly figure that JupyterLab shows at once.

Before it shows its first figure, plotly asks where it runs, and loads nbformat for that, which loads what it can find to
check formats with: seconds of a kernel that lives in one environment with JupyterLab. Under a Jupyter server there is
nothing to ask: the figure goes out in the one form that plotly would choose. Anywhere else plotly chooses.
"""

from __future__ import annotations

import json
import os
import sys

import plotly.graph_objects as go
from IPython.display import display

from dbos_notebook.signs import PLOTLY

# Set by a Jupyter server in its kernels.
SERVED = "JPY_SESSION_NAME"
# Set by whoever wants figures in another form: the user, and front ends that draw in a way of their own.
ELSEWHERE = (
    "PLOTLY_RENDERER",
    "VSCODE_PID",
    "COLAB_RELEASE_TAG",
    "KAGGLE_KERNEL_RUN_TYPE",
    "DATABRICKS_RUNTIME_VERSION",
)


class Drawing(go.Figure):  # type: ignore[misc]  # plotly has no types
    """A figure like any other, until it is shown."""

    def _ipython_display_(self) -> None:
        # Where the user has plotly choose already, it is there, and may have been told how.
        if (
            os.environ.get(SERVED)
            and "plotly.io._renderers" not in sys.modules
            and not any(map(os.environ.get, ELSEWHERE))
        ):
            display({PLOTLY: json.loads(self.to_json())}, raw=True)  # type: ignore[no-untyped-call]  # IPython's own
        else:
            super()._ipython_display_()
