"""The commands and their options: what `--help` shows, and what completion is made of.

A command is a parser with `run`, the name "module:function" of what it does. This file knows no database.
"""

from __future__ import annotations

import argparse
import re
from collections.abc import Sequence
from datetime import datetime
from typing import TYPE_CHECKING, Any

from dbos import WorkflowStatusString

if TYPE_CHECKING:
    Commands = argparse._SubParsersAction[argparse.ArgumentParser]  # noqa: SLF001 - what add_subparsers returns

EPILOG = """\
The database is given with --sys-db-url, in DBOS_SYSTEM_DATABASE_URL, or in dbos-config.yaml (extra `config`): better there when it has a password, because
others on the machine can read command lines. Nothing that is stored is decoded unless --values asks for it, because
pickled values can run code.

Exit codes: 0 done, 1 failed, 2 not understood or not confirmed.
"""
SHELLS = ("bash", "zsh", "fish")


# -- what options take -----------------------------------------------------------------------------------------


def moment(text: str) -> datetime:
    """A moment, as an ISO 8601 text; without a zone it is local time."""
    try:
        return datetime.fromisoformat(text).astimezone()
    except ValueError:
        raise argparse.ArgumentTypeError(f"not a moment such as 2030-12-31T23:59: {text!r}") from None


def at_least(least: int, most: int = 2**63 - 1) -> Any:
    """A whole number that is not too small, and not more than the database can hold."""

    def number(text: str) -> int:
        if not (text.isascii() and text.isdecimal()) or int(text) < least:
            raise argparse.ArgumentTypeError(f"not a whole number of at least {least}: {text!r}")
        if int(text) > most:
            raise argparse.ArgumentTypeError(f"not a whole number of at most {most}: {text!r}")
        return int(text)

    return number


def seconds(text: str) -> float:
    """A length of time."""
    try:
        found = float(text)
    except ValueError:
        found = -1.0
    if not 0 <= found < float("inf"):
        raise argparse.ArgumentTypeError(f"not a number of seconds: {text!r}")
    return found


def age(text: str) -> float:
    """A length of time with its unit, in seconds."""
    found = re.fullmatch(r"(\d{1,9})([smhdw])", text)
    if found is None:
        raise argparse.ArgumentTypeError(f"not an age such as 30d, 12h, 45m or 90s: {text!r}")
    return int(found[1]) * {"s": 1, "m": 60, "h": 3600, "d": 86_400, "w": 604_800}[found[2]]


class ShowVersion(argparse.Action):
    """Says the version and ends, whatever else the line says."""

    def __init__(self, option_strings: Sequence[str], dest: str, **rest: Any) -> None:
        super().__init__(option_strings, dest, nargs=0, **rest)

    def __call__(self, parser: argparse.ArgumentParser, *_: Any) -> None:
        from dbos.cli.versions import own  # what it needs, no other line needs before it is understood

        own(argparse.Namespace(json=False))
        parser.exit()


# -- options that several commands have ------------------------------------------------------------------------


def _parent() -> argparse.ArgumentParser:
    return argparse.ArgumentParser(add_help=False)


def _address() -> argparse.ArgumentParser:
    made = _parent()
    made.add_argument("-s", "--sys-db-url", metavar="URL", help="sqlite:///FILE or postgresql://USER@HOST/NAME")
    return made


def _database() -> argparse.ArgumentParser:
    made = argparse.ArgumentParser(add_help=False, parents=[_address()])
    made.add_argument("--schema", default="dbos", help="the Postgres schema of the tables (default: %(default)s)")
    return made


def _json() -> argparse.ArgumentParser:
    made = _parent()
    made.add_argument("--json", action="store_true", help="write one JSON document, for programs")
    return made


def _values() -> argparse.ArgumentParser:
    made = _parent()
    made.add_argument(
        "--values", action="store_true", help="decode inputs, outputs and errors: may run code from the database"
    )
    return made


def _application() -> argparse.ArgumentParser:
    made = _parent()
    made.add_argument("-D", "--db-url", metavar="URL", help="the database of transactions, if it is another one")
    return made


def _confirmed() -> argparse.ArgumentParser:
    made = _parent()
    made.add_argument("-y", "--yes", action="store_true", help="do not ask")
    return made


def _page() -> argparse.ArgumentParser:
    made = _parent()
    made.add_argument("-l", "--limit", type=at_least(1), default=10, help="at most so many (default: %(default)s)")
    made.add_argument("-o", "--offset", type=at_least(0), default=0, help="after passing over so many")
    return made


def _filters() -> argparse.ArgumentParser:
    made = _parent()
    statuses = [each.value for each in WorkflowStatusString]
    made.add_argument("-t", "--start-time", type=moment, metavar="TIME", help="created since then (ISO 8601)")
    made.add_argument("-e", "--end-time", type=moment, metavar="TIME", help="created until then (ISO 8601)")
    made.add_argument(
        "-S", "--status", action="append", type=str.upper, choices=statuses, help="may be given several times"
    )
    made.add_argument("-n", "--name", action="append", help="of the workflow function; may be given several times")
    made.add_argument("-q", "--queue-name", action="append", metavar="QUEUE", help="may be given several times")
    made.add_argument("-d", "--sort-desc", action="store_true", help="the newest first")
    return made


def _ids(verb: str) -> argparse.ArgumentParser:
    made = _parent()
    made.add_argument("ids", nargs="+", metavar="ID", help=f"of a workflow to {verb}; - reads ids from standard input")
    return made


# -- the commands ----------------------------------------------------------------------------------------------


def make_parser() -> argparse.ArgumentParser:
    """The whole command line."""
    made = argparse.ArgumentParser(
        prog="dbos",
        description="Durable workflows on SQLite or Postgres: run, watch and repair them.",
        epilog=EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    made.add_argument("-V", "--version", action=ShowVersion, help="say the version of this command")
    commands = made.add_subparsers(metavar="COMMAND", required=True)
    _add_programs(commands)
    _add_databases(commands)
    _add_assistants(commands)
    _add_workflow(commands)
    _add_archive(commands)
    _add_schedule(commands)
    _add_version(commands)
    notebook = _add(commands, "notebook", "others:run", "run a notebook as one durable run")
    notebook.set_defaults(brought="notebook")
    # Whatever comes after it, also what looks like an option, is for the other package.
    notebook.add_argument("words", nargs=argparse.REMAINDER, metavar="...", help="dbos notebook run --help tells more")
    completion = _add(commands, "completion", "completion:run", "write a script that completes `dbos` in a shell")
    completion.add_argument("shell", choices=SHELLS)
    return made


def _add(
    commands: Commands, name: str, run: str, help: str, *parents: argparse.ArgumentParser
) -> argparse.ArgumentParser:
    described = f"{help[0].upper()}{help[1:]}."
    made = commands.add_parser(name, help=help, description=described, parents=list(parents), allow_abbrev=False)
    made.set_defaults(run=run)
    return made


def _group(commands: Commands, name: str, help: str) -> Commands:
    made = commands.add_parser(name, help=help, description=f"{help[0].upper()}{help[1:]}.")
    return made.add_subparsers(metavar="COMMAND", required=True)


def _add_programs(commands: Commands) -> None:
    init = _add(commands, "init", "template:init", "write a small application into a new folder")
    init.add_argument("name", help="of the application and its folder: 3 to 30 of a-z, 0-9, - and _")

    start = _add(commands, "start", "programs:start", "run a command, pass signals on to it, and end as it ends")
    start.add_argument("-s", "--sys-db-url", metavar="URL", help="given to it in DBOS_SYSTEM_DATABASE_URL")
    start.add_argument(
        "command",
        nargs="*",
        metavar="-- COMMAND",
        help="for example: dbos start -- python main.py (default: those of runtimeConfig.start in dbos-config.yaml)",
    )

    worker = _add(
        commands, "worker", "programs:worker", "serve the workflows of a module until it is told to end", _database()
    )
    worker.add_argument("module", metavar="MODULE", help="a module that defines workflows, its file, or a notebook")
    worker.add_argument("-n", "--name", help="of the application, if the module configures none (default: its own)")
    worker.add_argument("-q", "--queue-name", action="append", metavar="QUEUE", help="serve only these queues")
    worker.add_argument(
        "--drain",
        type=seconds,
        default=30.0,
        metavar="SECONDS",
        help="on SIGTERM, SIGHUP or Ctrl-C let running workflows finish for so long, then hand over the rest "
        "(default: %(default)g); a second signal ends it at once",
    )


def _add_assistants(commands: Commands) -> None:
    mcp = _add(
        commands,
        "mcp",
        "assistants:mcp",
        "let an assistant look at workflows (MCP over stdio; extra `mcp`)",
        _database(),
    )
    which = mcp.add_mutually_exclusive_group()
    which.add_argument("--read-only", action="store_true", help="change nothing (the default)")
    which.add_argument("--allow-actions", action="store_true", help="fork and resume workflows, when confirmed")


def _add_databases(commands: Commands) -> None:
    database, as_json, application = _database(), _json(), _application()
    migrate = _add(
        commands,
        "migrate",
        "databases:migrate",
        "make the database and its tables, or complete them",
        database,
        application,
        as_json,
    )
    migrate.add_argument("-r", "--app-role", metavar="ROLE", help="grant this Postgres role what an application needs")
    _add(
        commands,
        "reset",
        "databases:reset",
        "delete the database with all workflows, and whatever else is in it",
        _address(),
        _confirmed(),
        as_json,
    )
    _add(
        commands,
        "schema",
        "databases:schema",
        "say whether the database has the tables that this release needs",
        database,
        as_json,
    )


def _add_workflow(commands: Commands) -> None:
    database, as_json, values = _database(), _json(), _values()
    common = (database, as_json)
    group = _group(commands, "workflow", "look at workflows and act on them")

    listed = _add(
        group, "list", "workflows:list_", "list workflows, the oldest first", _page(), _filters(), values, *common
    )
    listed.add_argument("-u", "--user", action="append", help="on whose behalf they run; may be given several times")
    listed.add_argument("-v", "--application-version", action="append", metavar="VERSION", help="of their code")

    get = _add(group, "get", "workflows:get", "show one workflow", values, *common)
    get.add_argument("id", metavar="ID")
    steps = _add(group, "steps", "workflows:steps", "list the recorded steps of a workflow", values, *common)
    steps.add_argument("id", metavar="ID")

    cancel = _add(group, "cancel", "workflows:cancel", "cancel workflows that have not ended", _ids("cancel"), *common)
    cancel.add_argument("--children", action="store_true", help="and all that they started")

    resume = _add(
        group, "resume", "workflows:resume", "let workflows go on after their last step", _ids("resume"), *common
    )
    resume.add_argument("-q", "--queue-name", metavar="QUEUE", help="on this queue, instead of at once")

    fork = _add(group, "fork", "workflows:fork", "start a copy of a workflow that keeps its first steps", *common)
    fork.add_argument("id", metavar="ID")
    fork.add_argument(
        "-S",
        "--step",
        type=at_least(1, 2**31 - 1),
        default=1,
        help="the first step that runs anew (default: %(default)s)",
    )
    fork.add_argument("-f", "--forked-workflow-id", metavar="NEW", help="the id of the copy (default: a new one)")
    fork.add_argument("-v", "--application-version", metavar="VERSION", help="of the code to run it (default: any)")

    delete = _add(
        group,
        "delete",
        "workflows:delete",
        "delete workflows with everything they recorded",
        _ids("delete"),
        _application(),
        _confirmed(),
        *common,
    )
    delete.add_argument("--children", action="store_true", help="and all that they started")

    queue = _group(group, "queue", "look at what waits or runs on queues")
    _add(
        queue,
        "list",
        "workflows:list_queued",
        "list workflows on queues, the oldest first",
        _page(),
        _filters(),
        *common,
    )


def _add_archive(commands: Commands) -> None:
    common = (_database(), _json())
    export = _add(
        commands, "export", "archive:export", "write workflows with all they own to a file", _filters(), *common
    )
    export.add_argument("file", metavar="FILE", help="where to; - writes to standard output")
    export.add_argument("ids", nargs="*", default=[], metavar="ID", help="of a workflow (default: all that match)")
    export.add_argument("--no-children", action="store_true", help="without what they started")
    export.set_defaults(limit=None, offset=0)

    into = _add(commands, "import", "archive:import_", "bring back workflows from such a file", *common)
    into.add_argument("file", metavar="FILE", help="where from; - reads standard input")
    into.add_argument("--new-ids", action="store_true", help="as copies: all ids are replaced")
    into.add_argument("--resume", action="store_true", help="let those go on that had not ended, instead of cancelling")

    collect = _add(
        commands,
        "gc",
        "archive:collect",
        "delete workflows that have ended and are old, with all they recorded",
        _application(),
        _confirmed(),
        *common,
    )
    collect.add_argument("--older-than", type=age, metavar="AGE", help="created before that: 30d, 12h, 45m or 90s")
    collect.add_argument("--keep", type=at_least(0), metavar="N", help="all but the newest so many")
    collect.add_argument("--dry-run", action="store_true", help="only say how many")


def _add_schedule(commands: Commands) -> None:
    common = (_database(), _json())
    name = _parent()
    name.add_argument("name", metavar="SCHEDULE")
    group = _group(commands, "schedule", "look at schedules and act on them")

    _add(group, "list", "schedules:list_", "list schedules and when they fire next", *common)
    _add(group, "get", "schedules:get", "show one schedule", name, *common)
    _add(group, "pause", "schedules:pause", "let a schedule not fire until it is resumed", name, *common)
    _add(group, "resume", "schedules:resume", "let a paused schedule fire again, from now on", name, *common)
    _add(group, "trigger", "schedules:trigger", "start the workflow of a schedule now", name, *common)
    backfill = _add(
        group,
        "backfill",
        "schedules:backfill",
        "start what a schedule would have started between two moments",
        name,
        *common,
    )
    backfill.add_argument("start", type=moment, help="ISO 8601; local time without a zone")
    backfill.add_argument("end", type=moment, help="ISO 8601; local time without a zone")
    _add(
        group,
        "delete",
        "schedules:delete",
        "delete a schedule; what it started stays",
        name,
        _confirmed(),
        *common,
    )


def _add_version(commands: Commands) -> None:
    common = (_database(), _json())
    made = commands.add_parser(
        "version",
        help="show the version of this command, or those of an application",
        description="Versions.",
        parents=[_json()],
    )
    made.set_defaults(run="versions:own")
    group = made.add_subparsers(metavar="COMMAND")
    _add(group, "list", "versions:list_", "list the versions of the application, the latest first", *common)
    _add(group, "latest", "versions:latest", "show the latest version of the application", *common)
    chosen = _add(group, "set", "versions:set_", "make a version the latest, to go back to it or forward", *common)
    chosen.add_argument("version", metavar="VERSION")
