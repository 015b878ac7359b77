"""One life of a program, and everything that can be found afterwards."""

from __future__ import annotations

from contextlib import AbstractContextManager

from dbos import DBOS, DBOSConfig
from dbos.testing import Ledger
from tests.compat.acts import beside
from tests.compat.rows import Rows
from tests.faults.programs import Act
from tests.hand import LIMIT_SECONDS

FOUND = (
    """
    SELECT workflow_uuid, status, name, output, error, recovery_attempts, owner_xid IS NULL AS is_free
    FROM {}workflow_status ORDER BY workflow_uuid
    """,
    """
    SELECT workflow_uuid, function_id, function_name, child_workflow_id, error,
           CASE function_name WHEN 'DBOS.getStatus' THEN '' ELSE output END
    FROM {}operation_outputs ORDER BY workflow_uuid, function_id
    """,
    "SELECT 1 FROM {}notebook_leases",
)


def live(act: Act, config: DBOSConfig, ledger: Ledger, trouble: AbstractContextManager[None]) -> list[object]:
    """Launch, act, end, all in trouble: what came back, how often each step body ran, and every row that is left."""
    ledger.clear()
    system = Rows(str(config["system_database_url"]))
    application = Rows(str(config.get("application_database_url") or config["system_database_url"]))
    with trouble:
        DBOS(config={**config, "log_level": "ERROR"})
        try:
            DBOS.launch()
            result = beside(act, system).result(LIMIT_SECONDS)
        finally:
            DBOS.destroy()
    found = [*(system.run(sql) for sql in FOUND), application.run("SELECT x FROM effects")]
    return [result, ledger.counts(), *([tuple(row) for row in each] for each in found)]


def differences(expected: list[object], found: list[object]) -> list[object]:
    """What is missing and what is too much."""
    pairs = [pair for pair in zip(expected, found, strict=True) if pair[0] != pair[1]]
    return [
        ([row for row in wanted if row not in got], [row for row in got if row not in wanted], len(wanted), len(got))
        if isinstance(wanted, list) and isinstance(got, list)
        else (wanted, got)
        for wanted, got in pairs
    ]
