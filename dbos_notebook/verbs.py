"""The verbs of `%dbos`: what each is called, takes and does. Parser, help and completion are all made of this table.

An argument names what completes it (`kind`), so that nothing is said twice.
"""

from __future__ import annotations

import argparse
import difflib
from collections.abc import Callable, Mapping, MutableMapping
from dataclasses import dataclass
from typing import Any, NoReturn

from dbos_notebook import commands
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
    outputs = {}
    for each in given.set or ():
        step, equals, text = each.partition("=")
        if not equals or not step.isdigit():
            raise WrongWordsError(f"%dbos fork: --set wants STEP=VALUE, such as 2=clean, not {each!r}")
        outputs[int(step)] = value_of(text, variables)
    return commands.fork(given.id, _step_of(given), version=given.version, same_code=given.same_code, outputs=outputs)


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
         (arg("--lines", type=int, default=50, help="so many"),), ("%dbos log --lines 20",)),
    Verb("explorer", "Runs to choose, and buttons for them.", lambda _, __: commands.explorer(), (), ("%dbos explorer",)),
    Verb("config", "The settings; NAME=VALUE changes one.", _config,
         (arg("setting", kind="setting", nargs="*", help="NAME=VALUE"),), ("%dbos config", "%dbos config limit=50")),
)  # fmt: skip

STEP = arg("step", kind="step", nargs="?", help="a step's number or name; else the step that failed, or comes next")

PAST = (
    Verb("at", "What a step was called with, and all variables there; nothing is run.",
         lambda given, _: commands.at(given.id, _step_of(given)), (ID, STEP),
         ("t = %dbos at 7f3a score", "%dbos at 7f3a 1")),
    Verb("enter", "Put what there was before a step into this notebook.",
         lambda given, variables: commands.enter(given.id, _step_of(given), into=variables), (ID, STEP),
         ("%dbos enter 7f3a score",)),
    Verb("debug", "Let a failure happen again here, for %debug.", lambda given, _: commands.debug(given.id), (ID,),
         ("%dbos debug 7f3a",)),
    Verb("check", "Which runs of a workflow fit its code as it is now; nothing is run.",
         lambda given, _: commands.check(given.workflow, given.last),
         (arg("workflow", kind="name", help="the name of a workflow"),
          arg("--last", type=int, default=50, metavar="NUMBER", help="so many of its newest runs")),
         ("%dbos check nightly", "%dbos check nightly --last 10")),
    Verb("patch", "Which runs fit new code, the guard that lets the others fit, and going on with those that do.",
         lambda given, _: commands.patch(given.workflow, resume=given.resume),
         (arg("workflow", kind="name", help="the name of a workflow"),
          arg("--resume", action="store_true", help="those in flight that fit go on with the code as it is now")),
         ("%dbos patch nightly", "%dbos patch nightly --resume")),
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
            ID,
            arg("--from", "-f", dest="step", kind="step", help="a step's number or name; else the step that failed"),
            arg("--set", action="append", metavar="STEP=VALUE", help="what a kept step shall have returned: a variable or a literal"),
            arg("--version", help="the version of the code to run"),
            arg("--same-code", action="store_true", help="the code that the original ran, not the newest"),
        ),
        ("%dbos fork 7f3a", "%dbos fork 7f3a --from 2 --set 1=clean"),
    ),
    Verb("resume", "Let runs go on.", lambda given, _: commands.resume(*given.id, new_code=given.new_code),
         (IDS, arg("--new-code", action="store_true", help="by the code that is defined now, whatever they began with")),
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

VERBS = {each.name: each for each in (*LOOKING, *PAST, *ACTING)}


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
    ])  # fmt: skip


def verb_of(name: str) -> Verb:
    """The verb of that name."""
    found = VERBS.get(name)
    if found is None:
        near = difflib.get_close_matches(name, VERBS, n=1)
        hint = f"did you mean {near[0]}? " if near else ""
        raise WrongWordsError(f"%dbos: there is no {name!r}; {hint}%dbos --help lists all")
    return found
