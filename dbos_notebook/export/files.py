"""Writing a file that is there as a whole, or not at all, and over nobody's work."""

from __future__ import annotations

import uuid
from pathlib import Path

from dbos_notebook.export.module import ExportError


def check_free(file: Path, *, replace: bool) -> None:
    """Raise ExportError where a file cannot be written, or must not be replaced."""
    if file.exists() and not replace:
        raise ExportError(f"{file.name} is there already; --replace (replace=True) writes over it")
    if not file.parent.is_dir():
        raise ExportError(f"there is no folder {file.parent}")


def write(file: Path, text: str, *, replace: bool) -> None:
    """Write a text file. Raises ExportError where another one is there that must not be replaced."""
    check_free(file, replace=replace)
    made = file.with_name(f".{file.name}.{uuid.uuid4().hex[:8]}")
    try:
        made.write_text(text, "utf-8")
        made.replace(file)
    except BaseException:
        made.unlink(missing_ok=True)
        raise
