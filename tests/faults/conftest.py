"""Fixtures of the fault tests."""

from __future__ import annotations

import logging
from collections.abc import Callable

import pytest

from tests.compat.conftest import Log, clock, log, rows
from tests.coroner import coroner
from tests.crash.conftest import fresh

__all__ = ["clock", "coroner", "fresh", "log", "rows"]


@pytest.fixture
def complaints(log: Log, caplog: pytest.LogCaptureFixture) -> Callable[[], list[str]]:
    """The errors that were logged, by us and by those we use. Ours are not heard by `caplog`."""

    def heard() -> list[str]:
        records = (*log.records, *caplog.records)
        return [record.getMessage() for record in records if record.levelno >= logging.ERROR]

    return heard
