"""`dbos mcp`: lets an assistant look at workflows over standard input and output."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING

from dbos._hooks.mcp import make_server
from dbos.cli import database

if TYPE_CHECKING:
    from argparse import Namespace


def mcp(arguments: Namespace) -> None:
    """Serve until the assistant closes its end."""
    allowed: bool = arguments.allow_actions
    with database.onlooker(arguments, read_only=not allowed) as client:
        server = make_server(client, allows_actions=allowed)
        # Standard output is the protocol's.
        sys.stderr.write(f"dbos: serving {'actions and reads' if allowed else 'reads only'}\n")
        server.run()
