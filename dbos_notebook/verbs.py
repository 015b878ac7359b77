"""The verbs of `%dbos`: what each is called, takes and does. Parser, help and completion are all made of this table.

An argument names what completes it (`kind`), so that nothing is said twice.
"""

from __future__ import annotations

import argparse
import difflib
from collections.abc import Callable, Mapping, MutableMapping
from dataclasses import dataclass
from typing import Any, NoReturn

from IPython.display import display

from dbos_notebook import commands
from dbos_notebook.fingerprints import FINGERPRINT_SIGNS
from dbos_notebook.frames import STATUSES
from dbos_notebook.typed import value_of

Variables = MutableMapping[str, Any]
Act = Callable[[argparse.Namespace, Variables], Any]


class HelpAskedError(Exception):
    """`--help` was given: its text, instead of an end of the program."""


class WrongWordsError(ValueError):
    """What was typed is not how the verb is used."""


class Parser(argparse.ArgumentParser):
    """An argparse parser for a cell: it raises instead of printing and leaving."""

    def __init__(self, prog: str, description: str, examples: tuple[str, ...] = ()) -> None:
        super().__init__(
            prog=prog,
            description=description,
            epilog="examples:\n" + "\n".join(f"  {each}" for each in examples) if examples else None,
            formatter_class=argparse.RawDescriptionHelpFormatter,
            add_help=False,
            allow_abbrev=False,
        )
        self.add_argument("-h", "--help", action=_Help, nargs=0, help="say this")

    def error(self, message: str) -> NoReturn:
        raise WrongWordsError(f"{self.prog}: {message}; {self.prog} --help tells more")


class _Help(argparse.Action):
    def __call__(self, parser: argparse.ArgumentParser, *_: Any) -> None:
        raise HelpAskedError(parser.format_help())


@dataclass(frozen=True)
class Argument:
    """One argument of a verb."""

    names: tuple[str, ...]
    #: What completes it: id, name, status, step, queue, stream, schedule, setting, or nothing.
    kind: str
    options: Mapping[str, Any]

    @property
    def is_flag(self) -> bool:
        return self.names[0].startswith("-")

    @property
    def takes_value(self) -> bool:
        return self.options.get("action") != "store_true"


def arg(*names: str, kind: str = "", **options: Any) -> Argument:
    return Argument(names, kind, options)


@dataclass(frozen=True)
class Verb:
    """One verb: its examples are run by a test."""

    name: str
    help: str
    act: Act
    arguments: tuple[Argument, ...] = ()
    examples: tuple[str, ...] = ()

    def parser(self) -> Parser:
        made = Parser(f"%dbos {self.name}", self.help, self.examples)
        for each in self.arguments:
            made.add_argument(*each.names, **each.options)
        return made


ID = arg("id", kind="id", help="an id, the beginning of one, or a variable that holds a handle")
IDS = arg("id", kind="id", nargs="+", help="ids, beginnings of them, or variables that hold handles or frames of runs")
YES = arg("--yes", action="store_true", help="do it; without it is said what would be done")
SCHEDULE = arg("schedule", kind="schedule", help="the name of a schedule")
MANY: dict[str, Any] = {"action": "extend", "nargs": "+", "metavar": "WORD"}


def meant(text: str, variables: Variables) -> Any:
    """A run that is named by a variable which holds a handle, a frame of runs, or a list of handles; else the text."""
    value = variables.get(text)
    several = value if isinstance(value, list | tuple) else [value]
    is_named = bool(several) and all(hasattr(each, "workflow_id") or hasattr(each, "columns") for each in several)
    return value if is_named else text


def understood(given: argparse.Namespace, variables: Variables) -> argparse.Namespace:
    """What was parsed, with runs for the variables that name them."""
    named = getattr(given, "id", None)
    if isinstance(named, list):
        given.id = [meant(each, variables) for each in named]
    elif isinstance(named, str):
        given.id = meant(named, variables)
    return given


def _status(text: str) -> str:
    if text.upper() not in STATUSES:
        raise argparse.ArgumentTypeError(f"there is no status {text}; there are {', '.join(STATUSES)}")
    return text.upper()


def _count(text: str) -> int:
    """How many; without a number the parser says of what."""
    if not text.isdecimal() or not int(text):
        raise argparse.ArgumentTypeError(f"{text!r} is no number from 1 on")
    return int(text)


def _runs(given: argparse.Namespace, _: Variables) -> Any:
    filters = {key: value for key, value in vars(given).items() if value not in (None, False)}
    if filters.pop("all", False):
        filters["limit"] = 0
    if filters.pop("roots", False):
        filters["has_parent"] = False
    return commands.runs(**filters)


def _step_of(given: argparse.Namespace) -> int | str | None:
    """A step's number or name; `failed` is what is meant without one."""
    step: str | None = given.step
    if step is None or step == "failed":
        return None
    return int(step) if step.isdigit() else step


def _fork(given: argparse.Namespace, variables: Variables) -> Any:
    if given.group is not None:
        _alone(given, "fork", given.id or given.set or given.same_code)
        how = {"dry_run": given.dry_run, "confirm": given.confirm, "version": given.version}
        return commands.fork_group(given.group, _step_of(given), **how)
    if given.id is None:
        raise WrongWordsError("%dbos fork: say which run, or --group; %dbos fork --help tells more")
    if given.confirm is not None:
        raise WrongWordsError("%dbos fork: --confirm is about a --group")
    outputs = {}
    for each in given.set or ():
        step, equals, text = each.partition("=")
        if not equals or not step.isdigit():
            raise WrongWordsError(f"%dbos fork: --set wants STEP=VALUE, such as 2=clean, not {each!r}")
        outputs[int(step)] = value_of(text, variables)
    found = commands.preflight(given.id, _step_of(given), outputs=outputs)
    if given.dry_run:
        return found
    code = {"version": given.version, "same_code": given.same_code}
    made = commands.fork(given.id, _step_of(given), outputs=outputs, force=given.force, **code)
    if not (given.same_code or given.version):
        display(found)  # type: ignore[no-untyped-call]  # IPython's
    return made


def _resume(given: argparse.Namespace, _: Variables) -> Any:
    if given.group is not None:
        _alone(given, "resume", given.id)
        how = {"dry_run": given.dry_run, "confirm": given.confirm, "new_code": given.new_code}
        return commands.resume_group(given.group, **how)
    if not given.id:
        raise WrongWordsError("%dbos resume: say which runs, or --group; %dbos resume --help tells more")
    if given.dry_run or given.confirm is not None:  # never do what was only to be said
        raise WrongWordsError("%dbos resume: --dry-run and --confirm are about a --group")
    return commands.resume(*given.id, new_code=given.new_code)


def _alone(given: argparse.Namespace, verb: str, others: Any) -> None:
    """A group is acted on as a whole."""
    if others:
        raise WrongWordsError(f"%dbos {verb}: --group {given.group} is all of it; give no run and nothing about one")


def _group(text: str) -> int | str:
    return int(text) if text.isdigit() and len(text) < FINGERPRINT_SIGNS else text


def _triage(given: argparse.Namespace, _: Variables) -> Any:
    chosen = {"name": given.name, "status": given.status}
    return commands.triage(given.since, **{key: value for key, value in chosen.items() if value})


def _config(given: argparse.Namespace, variables: Variables) -> Any:
    settings = {}
    for each in given.setting:
        name, equals, text = each.partition("=")
        if not equals:
            raise WrongWordsError(f"%dbos config: a setting is NAME=VALUE, not {each!r}")
        try:
            settings[name] = value_of(text, variables)
        except ValueError:
            settings[name] = text
    return commands.config(**settings)


def _attach(given: argparse.Namespace, _: Variables) -> Any:
    if given.actions and given.read_only:
        raise WrongWordsError("%dbos attach: give --read-only or --actions, not both")
    how = {"mask": given.mask or "", "timeout": given.timeout, "schema": given.schema}
    return commands.attach(given.url, read_only=not given.actions, ask=given.ask, **how)


def _export(given: argparse.Namespace, variables: Variables) -> Any:
    if given.what == "worker":
        file, *names = given.word
        return commands.export_worker(file, *names, replace=given.replace)
    if len(given.word) != 2:
        raise WrongWordsError(f"%dbos export {given.what} wants RUN FILE")
    run, file = given.word
    return getattr(commands, f"export_{given.what}")(meant(run, variables), file, replace=given.replace)


LOOKING = (
    Verb("status", "Where the runtime stores, what runs and waits.", lambda _, __: commands.status(), (), ("%dbos status",)),
    Verb(
        "runs",
        "Runs as a frame, the newest first.",
        _runs,
        (
            arg("--status", kind="status", type=_status, help="in one of these states", **MANY),
            arg("--name", kind="name", help="of these workflows", **MANY),
            arg("--since", metavar="TIME", help="created after a moment: 24h (ago), today, 2026-03-01T09:00"),
            arg("--until", metavar="TIME", help="created before a moment"),
            arg("--queue", dest="queue_name", kind="queue", help="on these queues", **MANY),
            arg("--version", dest="app_version", help="of these versions", **MANY),
            arg("--prefix", dest="workflow_id_prefix", kind="id", help="with ids that begin so", **MANY),
            arg("--parent", dest="parent_workflow_id", kind="id", help="started by these runs", **MANY),
            arg("--forked-from", dest="forked_from", kind="id", help="forked from these runs", **MANY),
            arg("--user", help="of these users", **MANY),
            arg("--roots", action="store_true", help="only what no other run started"),
            arg("--limit", type=int, help="at most so many"),
            arg("--all", action="store_true", help="however many there are"),
        ),
        ("%dbos runs", "failed = %dbos runs --status ERROR --since 24h", "%dbos runs --name nightly --limit 5"),
    ),
    Verb("steps", "The steps of runs as a frame.", lambda given, _: commands.steps(*given.id), (IDS,), ("%dbos steps 7f3a",)),
    Verb("show", "One run as it is now.", lambda given, _: commands.show(given.id), (ID,), ("%dbos show 7f3a",)),
    Verb("watch", "One run, followed to its end.", lambda given, _: commands.watch(given.id), (ID,), ("%dbos watch 7f3a",)),
    Verb("timeline", "When its steps were at work: a figure.", lambda given, _: commands.timeline(given.id), (ID,),
         ("fig = %dbos timeline 7f3a",)),
    Verb("tree", "Its parents, children and forks: a figure.", lambda given, _: commands.tree(given.id), (ID,),
         ("fig = %dbos tree 7f3a",)),
    Verb("events", "The events of runs.", lambda given, _: commands.events(*given.id), (IDS,), ("%dbos events 7f3a",)),
    Verb("messages", "What was sent to runs.", lambda given, _: commands.messages(*given.id), (IDS,), ("%dbos messages 7f3a",)),
    Verb(
        "streams",
        "What the streams of a run hold, or one of them.",
        lambda given, _: commands.streams(given.id, given.key),
        (ID, arg("key", kind="stream", nargs="?", help="the name of a stream")),
        ("%dbos streams 7f3a", "tokens = %dbos streams 7f3a tokens"),
    ),
    Verb(
        "tail",
        "A stream as it grows.",
        lambda given, _: commands.tail(given.id, given.key),
        (ID, arg("key", kind="stream", nargs="?", help="the name of a stream; none: the only one")),
        ("%dbos tail 7f3a tokens",),
    ),
    Verb("value", "What a step returned, or a run: the value itself, decoded.",
         lambda given, _: commands.value(given.id, given.step),
         (ID, arg("step", kind="step", nargs="?", type=int, help="the number of a step; none: the run itself")),
         ("rows = %dbos value 7f3a 1",)),
    Verb("source", "The source that a run ran.", lambda given, _: commands.code(given.id), (ID,), ("%dbos source 7f3a",)),
    Verb("queues", "Queues, and what waits and runs on them.", lambda _, __: commands.queues(), (), ("%dbos queues",)),
    Verb("schedules", "Schedules and when they fire.", lambda _, __: commands.schedules(), (), ("%dbos schedules",)),
    Verb("versions", "Versions of the code and their runs.", lambda _, __: commands.versions(), (), ("%dbos versions",)),
    Verb("waiting", "Runs that wait for code.", lambda _, __: commands.waiting(), (), ("%dbos waiting",)),
    Verb("log", "The last lines of the runtime's log.", lambda given, _: commands.log(given.lines),
         (arg("--lines", type=_count, default=50, help="so many"),), ("%dbos log --lines 20",)),
    Verb(
        "attach",
        "Look at another database, which is only read.",
        _attach,
        (
            arg("url", nargs="?", help="a URL without its password, a SQLite file, or $NAME of an environment variable"),
            arg("--read-only", action="store_true", help="as it is without --actions"),
            arg("--actions", action="store_true", help="let runs be forked, resumed, cancelled; nothing of it runs here"),
            arg("--mask", metavar="FIELD,FIELD", help="fields that are shown as ***"),
            arg("--timeout", default="30s", metavar="TIME", help="how long a statement may take"),
            arg("--ask", action="store_true", help="ask for the password, or without a URL for all of it"),
            arg("--schema", default="dbos", help="the schema of its tables on Postgres"),
        ),
        ("%dbos attach", "%dbos attach $APP_DATABASE --mask email,token", "%dbos attach app.sqlite --timeout 5s"),
    ),
    Verb("detach", "Look at the notebook's own database again.", lambda _, __: commands.detach(), (), ("%dbos detach",)),
    Verb("explorer", "Runs to choose, and buttons for them.", lambda _, __: commands.explorer(), (), ("%dbos explorer",)),
    Verb("config", "The settings; NAME=VALUE changes one.", _config,
         (arg("setting", kind="setting", nargs="*", help="NAME=VALUE"),), ("%dbos config", "%dbos config limit=50")),
)  # fmt: skip

GROUP = (
    arg(
        "--group", type=_group, metavar="GROUP", help="all runs of a group of %%dbos triage: its number or fingerprint"
    ),
    arg("--dry-run", action="store_true", help="only say what would be done"),
    arg("--confirm", type=int, metavar="COUNT", help="do it, if the group is about so many runs"),
)
STEP = arg("step", kind="step", nargs="?", help="a step's number or name; else the step that failed, or comes next")

PAST = (
    Verb("at", "What a step was called with, and all variables there; nothing is run.",
         lambda given, _: commands.at(given.id, _step_of(given)), (ID, STEP),
         ("t = %dbos at 7f3a score", "%dbos at 7f3a 1")),
    Verb("enter", "Put what there was before a step into this notebook.",
         lambda given, variables: commands.enter(given.id, _step_of(given), into=variables), (ID, STEP),
         ("%dbos enter 7f3a score",)),
    Verb("debug", "Let a failure happen again here, for %debug: the step that failed is called on what it was given.",
         lambda given, _: commands.debug(given.id, call=not given.no_call),
         (ID, arg("--no-call", action="store_true", help="call no step: show what is recorded")),
         ("%dbos debug 7f3a", "%dbos debug 7f3a --no-call")),
    Verb("check", "Which runs of a workflow fit its code as it is now; nothing is run.",
         lambda given, _: commands.check(given.workflow, given.last),
         (arg("workflow", kind="name", help="the name of a workflow"),
          arg("--last", type=_count, default=50, metavar="NUMBER", help="so many of its newest runs")),
         ("%dbos check nightly", "%dbos check nightly --last 10")),
    Verb("patch", "Which runs fit new code, the guard that lets the others fit, and going on with those that do.",
         lambda given, _: commands.patch(given.workflow, resume=given.resume),
         (arg("workflow", kind="name", help="the name of a workflow"),
          arg("--resume", action="store_true", help="those in flight that fit go on with the code as it is now")),
         ("%dbos patch nightly", "%dbos patch nightly --resume")),
    Verb(
        "triage",
        "What failed lately, in groups of one cause.",
        _triage,
        (
            arg("--since", default="7d", metavar="TIME", help="how far back: 24h, 7d"),
            arg("--name", kind="name", help="of these workflows", **MANY),
            arg("--status", kind="status", type=_status, help="only ERROR, or MAX_RECOVERY_ATTEMPTS_EXCEEDED, or CANCELLED", **MANY),
        ),
        ("%dbos triage", "bad = %dbos triage --since 24h --name nightly"),
    ),
    Verb("diff", "How two runs differ.", lambda given, _: commands.diff(*given.id, decode=given.decode),
         (arg("id", kind="id", nargs=2, help="two runs"),
          arg("--decode", action="store_true", help="unpickle values that differ, to tell how")),
         ("%dbos diff 7f3a 81c0", "%dbos diff 7f3a 81c0 --decode")),
)  # fmt: skip

ACTING = (
    Verb("launch", "Start the runtime on a database.", lambda given, _: commands.launch(given.url),
         (arg("url", nargs="?", help="a URL, a file, sqlite, or postgres (embedded)"),),
         ("%dbos launch", "%dbos launch postgresql://localhost/app")),
    Verb(
        "wait",
        "Wait for runs to end, with a progress bar.",
        lambda given, _: commands.wait(*given.id, timeout=given.timeout),
        (IDS, arg("--timeout", type=float, metavar="SECONDS", help="not longer than this; the runs go on")),
        ("%dbos wait 7f3a --timeout 60",),
    ),
    Verb(
        "fork",
        "Run again from a step; what came before is kept. As %%dbos, the cell below is run first.",
        _fork,
        (
            arg("id", kind="id", nargs="?", help="an id, the beginning of one, or a variable that holds a handle"),
            arg("--from", "-f", dest="step", kind="step", help="a step's number or name; else the step that failed"),
            *GROUP,
            arg("--set", action="append", metavar="STEP=VALUE", help="what a kept step shall have returned: a variable or a literal"),
            arg("--version", help="the version of the code to run"),
            arg("--same-code", action="store_true", help="the code that the original ran, not the newest"),
            arg("--force", action="store_true", help="also where the code does not fit what is kept"),
        ),
        ("%dbos fork 7f3a", "%dbos fork 7f3a --from 2 --set 1=clean", "%dbos fork --group 1 --dry-run"),
    ),
    Verb("resume", "Let runs go on.", _resume,
         (arg("id", kind="id", nargs="*", help="ids, beginnings of them, or variables that hold handles or frames of runs"),
          *GROUP, arg("--new-code", action="store_true", help="by the code that is defined now, whatever they began with")),
         ("%dbos resume 7f3a", "%dbos resume 7f3a --new-code")),
    Verb("crash", "Kill this kernel at the worst moment, to see what survives.", lambda given, _: commands.crash(given.at),
         (arg("--at", metavar="STEP", help="when a step of this name has run and is not recorded; none: disarm"),),
         ("%dbos crash --at fit", "%dbos crash")),
    Verb("cancel", "Stop runs before their next step.", lambda given, _: commands.cancel(*given.id, yes=given.yes),
         (IDS, YES), ("%dbos cancel 7f3a", "%dbos cancel 7f3a 81c0 --yes")),
    Verb("delete", "Forget runs and their steps.", lambda given, _: commands.delete(*given.id, yes=given.yes),
         (IDS, YES), ("%dbos delete 7f3a", "%dbos delete 7f3a --yes")),
    Verb(
        "send",
        "Send a message to a run.",
        lambda given, variables: commands.send(given.id, value_of(given.message, variables), given.topic),
        (
            ID,
            arg("message", help="a variable, a literal or JSON; quote what has spaces"),
            arg("--topic", "-t", help="the topic it waits on"),
        ),
        ("%dbos send 7f3a True --topic approval", """%dbos send 7f3a "'a text'" """.strip()),
    ),
    Verb("trigger", "Start now what a schedule starts.", lambda given, _: commands.trigger(given.schedule), (SCHEDULE,),
         ("%dbos trigger nightly",)),
    Verb(
        "backfill",
        "Start what a schedule would have started between two moments.",
        lambda given, _: commands.backfill(given.schedule, given.start, given.end, yes=given.yes),
        (
            SCHEDULE,
            arg("start", help="such as 2026-03-01, or 7d (ago)"),
            arg("end", nargs="?", default="now", help="else now"),
            YES,
        ),
        ("%dbos backfill nightly 2d", "%dbos backfill nightly 2026-03-01 2026-03-03 --yes"),
    ),
    Verb("pause", "Let a schedule start nothing.", lambda given, _: commands.pause(given.schedule), (SCHEDULE,),
         ("%dbos pause nightly",)),
    Verb("unpause", "Let a paused schedule go on.", lambda given, _: commands.unpause(given.schedule), (SCHEDULE,),
         ("%dbos unpause nightly",)),
)  # fmt: skip

MAKING = (
    Verb("flow", "Make the cells under %%step one workflow; without a name, list them.",
         lambda given, _: commands.flow(given.name, *given.cell, schedule=given.schedule),
         (arg("name", nargs="?", help="the name of the workflow"),
          arg("cell", nargs="*", help="only these cells"),
          arg("--schedule", metavar="CRON", help="start it by the clock: '0 2 * * *'")),
         ("%dbos flow", "%dbos flow my_pipeline", "%dbos flow my_pipeline raw model")),
    Verb("export", "Write workflows as a module for `dbos worker`; or a run as a page, a notebook, or a file to import.", _export,
         (arg("what", choices=("worker", "report", "notebook", "run"), help="what is to be written"),
          arg("word", nargs="+", kind="id", help="worker: FILE and the names of workflows, or none for all; else RUN FILE"),
          arg("--replace", action="store_true", help="write over a file that is there")),
         ("%dbos export worker worker.py nightly", "%dbos export report 7f3a night.html",
          "%dbos export notebook 7f3a night.ipynb", "%dbos export run 7f3a night.jsonl")),
    Verb("import", "Write the runs of a file into this database.",
         lambda given, _: commands.import_run(given.file, new_ids=given.new_ids, resume=given.resume),
         (arg("what", nargs="?", choices=("run",), default="run", help="may be left out"),
          arg("file", help="what %%dbos export run, or dbos export, has written"),
          arg("--new-ids", action="store_true", help="as copies, with other ids"),
          arg("--resume", action="store_true", help="what had not ended goes on here; else it comes as CANCELLED")),
         ("%dbos import run night.jsonl", "%dbos import night.jsonl --new-ids")),
)  # fmt: skip

VERBS = {each.name: each for each in (*LOOKING, *PAST, *ACTING, *MAKING)}


def overview() -> str:
    """What `%dbos --help` says."""
    width = max(map(len, VERBS))

    def listed(verbs: tuple[Verb, ...]) -> list[str]:
        return [f"  {each.name.ljust(width)}  {each.help}" for each in verbs]

    return "\n".join([
        "%dbos                opens the explorer",
        "%dbos VERB ...       does one of these; %dbos VERB --help tells how",
        "%%dbos fork ...      runs the cell, then forks with its code",
        "",
        *listed(LOOKING),
        "",
        *listed(PAST),
        "",
        *listed(ACTING),
        "",
        *listed(MAKING),
    ])  # fmt: skip


def verb_of(name: str) -> Verb:
    """The verb of that name."""
    found = VERBS.get(name)
    if found is None:
        near = difflib.get_close_matches(name, VERBS, n=1)
        hint = f"did you mean {near[0]}? " if near else ""
        raise WrongWordsError(f"%dbos: there is no {name!r}; {hint}%dbos --help lists all")
    return found
