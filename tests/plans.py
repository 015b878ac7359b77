"""What a database would do for a statement, in its words."""

from __future__ import annotations

from typing import Any

from sqlalchemy.sql.expression import Executable

from dbos._kernel.statement import Conn, Statement


def plan_of(conn: Conn, wanted: Statement | Executable, **parameters: Any) -> str:
    """Of a statement of ours, or of one that was built for the call."""
    compiled = conn.compiler.statement(wanted) if isinstance(wanted, Statement) else conn.compiler.once(wanted)
    given = conn.dialect.adapt({**compiled.fixed, **parameters})
    explain = "EXPLAIN QUERY PLAN " if conn.dialect.single_writer else "EXPLAIN "
    conn.cursor.execute(explain + compiled.text, given)
    return "\n".join(str(row[-1]) for row in conn.cursor.fetchall())
