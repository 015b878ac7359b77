"""The archive: workflows with all they own as lines of JSON, to keep, to move or to look at elsewhere.

Values stay the texts that are stored: nothing is decoded on the way out or in, so moving an archive runs no code. Only
under another id a value that is signed gets another signature.
"""

from dbos._features.archive.reading import import_workflows
from dbos._features.archive.writing import export_workflows

__all__ = ["export_workflows", "import_workflows"]
