"""Out of the notebook: workflows as a module, a run as a page, as a notebook, and as a file of its rows."""
