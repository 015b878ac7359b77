"""Figures: pure functions from frames to plotly figures."""

from dbos_notebook.figures.queues import queues
from dbos_notebook.figures.rates import rates
from dbos_notebook.figures.timeline import timeline
from dbos_notebook.figures.tree import tree

__all__ = ["queues", "rates", "timeline", "tree"]
