"""The explorer: find a run, look into it, and repair it, with buttons."""

from dbos_notebook.explore.live import Explorer, close_all, explorer

__all__ = ["Explorer", "close_all", "explorer"]
