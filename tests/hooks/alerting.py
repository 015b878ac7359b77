"""A program that is killed while it tells of a failure: `python -m tests.hooks.alerting URL`."""

from __future__ import annotations

import os
import signal
import sys
import threading
from contextlib import suppress

from dbos import DBOS, SetWorkflowID


@DBOS.alert_handler
def handler(rule: str, message: str, facts: dict[str, str]) -> None:
    os.kill(os.getpid(), signal.SIGKILL)


@DBOS.workflow(name="fails")
def fails() -> None:
    raise ValueError


if __name__ == "__main__":
    DBOS(config={"name": "alerting", "system_database_url": sys.argv[1], "run_admin_server": False})
    DBOS.launch()
    with SetWorkflowID("w"), suppress(ValueError):
        fails()
    threading.Event().wait(60)
