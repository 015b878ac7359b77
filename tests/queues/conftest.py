"""The fixtures that tests of queues share with others."""

from tests.compat.conftest import log, rows

__all__ = ["log", "rows"]
