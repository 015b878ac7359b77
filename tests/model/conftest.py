"""An empty database for each of many examples."""

from __future__ import annotations

import itertools
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.conftest import App
from tests.databases import empty

pytest.register_assert_rewrite("tests.model.machine", "tests.model.laws")


@pytest.fixture
def clear(app: App, request: pytest.FixtureRequest) -> Callable[[], None]:
    """Give the application an empty database, cheaply."""
    if not app.database.startswith("sqlite"):
        return lambda: empty(app.database)
    folder = Path(app.database.removeprefix("sqlite:///")).parent
    template, numbers = request.getfixturevalue("sqlite_template"), itertools.count()
    used: list[Path] = []

    def take_another_file() -> None:
        # Never a file of the same name. A thread of a runtime that was killed may open the file while it is replaced,
        # and remove the new log when it closes the file: who has the new file open then meets nothing but I/O errors.
        while used:
            used.pop().unlink()
        used.append(folder / f"example-{next(numbers)}.sqlite")
        shutil.copy(template, used[0])
        app.database = f"sqlite:///{used[0]}"

    return take_another_file
