"""The logger `dbos`: to the console, with time, level and place."""

from __future__ import annotations

import logging

FORMAT = "%(asctime)s [%(levelname)8s] (%(name)s:%(filename)s:%(lineno)s) %(message)s"

logger = logging.getLogger("dbos")


def set_up(level: str) -> None:
    """Write what is at least that important to the console, once however often this is called."""
    logger.setLevel(level)
    logger.propagate = False
    if not any(getattr(handler, "is_of_dbos", False) for handler in logger.handlers):
        handler = logging.StreamHandler()
        handler.is_of_dbos = True  # type: ignore[attr-defined]  # to know it again
        handler.setFormatter(logging.Formatter(FORMAT, datefmt="%H:%M:%S"))
        logger.addHandler(handler)
