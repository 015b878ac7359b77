"""Completion of `%dbos`: verbs and flags from the table of verbs, everything else from the database.

It must not be felt: each answer is one bounded question to the database, and none is asked where nothing is launched.
"""

from __future__ import annotations

import re
import shlex
from collections.abc import Callable, Iterable
from itertools import islice
from typing import TYPE_CHECKING, Any

from IPython.core.error import TryNext

from dbos_notebook import door
from dbos_notebook.frames import STATUSES
from dbos_notebook.verbs import VERBS, Argument, Verb

if TYPE_CHECKING:
    from IPython.core.interactiveshell import InteractiveShell

    from dbos_notebook.source import Source

MAGICS = ("%dbos", "%%dbos")
# As many as a menu shows. Names are those of so many newest runs.
MOST, MOST_STEPS, NEWEST, NAMES_OF = 40, 200, 100, 300


def complete(_: Any, event: Any) -> list[str]:
    """What may come next; IPython calls it for lines that begin with the magic."""
    before, symbol = str(event.text_until_cursor), str(event.symbol)
    found = candidates(before, door.source_if_launched)
    # IPython replaces its symbol, which begins after the last of its delimiters: after the "-" of an id, for one.
    typed = _typed(before)
    cut = len(typed) - len(symbol) if typed.endswith(symbol) else 0
    made = [each[cut:] for each in found if each.startswith(typed)]
    if not made:
        raise TryNext
    return made


def candidates(before: str, source: Callable[[], Source | None]) -> list[str]:
    """All that may stand at the end of the text before the cursor."""
    line = re.split(r"%{1,2}dbos(?=\s|$)", before, maxsplit=1)[-1]
    typed = _typed(before)
    words = _split(line[: len(line) - len(typed)])
    if not words:
        return sorted(each for each in VERBS if each.startswith(typed))
    verb = VERBS.get(words[0])
    if verb is None:
        return []
    argument = _wanted(verb, words[1:])
    flags = [name for each in verb.arguments for name in each.names if name.startswith("--")]
    if typed.startswith("-") or argument is None:
        return [each for each in (*flags, "--help") if each.startswith(typed)]
    found = [each for each in _values(argument, typed, words[1:], source) if each.startswith(typed)]
    return found or ([] if typed else [*flags, "--help"])


def _typed(before: str) -> str:
    match = re.search(r"[^\s]*$", before)
    return match.group() if match else ""


def _split(text: str) -> list[str]:
    try:
        return shlex.split(text)
    except ValueError:  # an open quote
        return text.split()


def _wanted(verb: Verb, words: list[str]) -> Argument | None:
    """The argument that a word at the end would belong to."""
    flags = {name: each for each in verb.arguments if each.is_flag for name in each.names}
    places = [each for each in verb.arguments if not each.is_flag]
    open_flag: Argument | None = None
    taken = 0
    for word in words:
        if word in flags:
            open_flag = flags[word] if flags[word].takes_value else None
        elif open_flag is not None:
            if open_flag.options.get("nargs") != "+":
                open_flag = None
        else:
            taken += 1
    if open_flag is not None:
        return open_flag
    if not places:
        return None
    if taken < len(places):
        return places[taken]
    return places[-1] if places[-1].options.get("nargs") in ("+", "*") else None


def _values(argument: Argument, typed: str, words: list[str], source: Callable[[], Source | None]) -> Iterable[str]:
    if argument.kind == "status":
        return STATUSES
    if argument.kind == "setting":
        return [f"{each}=" for each in sorted(door.settings().traits(config=True))]
    provider = PROVIDERS.get(argument.kind)
    here = source() if provider is not None else None
    if provider is None or here is None:
        return []
    found: Iterable[str] = provider(here, typed, words)
    return found


def _run_ids(source: Source, typed: str, _: list[str]) -> list[str]:
    # Mostly a new run is meant, and the newest are found by an index.
    newest = [str(each) for each in source.runs(limit=NEWEST, values=False).index]
    found = [each for each in newest if each.startswith(typed)]
    if not found:
        found = [str(each) for each in source.runs(limit=MOST, values=False, workflow_id_prefix=typed).index]
    return found[:MOST]


def _names(source: Source, _: str, __: list[str]) -> list[str]:
    from dbos.extension import defined_versions  # here: only a notebook defines workflows

    recent = source.runs(limit=NAMES_OF, values=False)["name"].dropna().unique().tolist()
    return sorted({*defined_versions(), *map(str, recent)})


def _steps(source: Source, typed: str, words: list[str]) -> list[str]:
    run = _first(words)
    if run is None:
        return []
    # Without what is shown of them: a run may have ten thousand.
    found = source.client.list_steps([source.run(run).workflow_id], longest=0)
    numbers = (str(each.step_id) for each in found)
    return [
        *islice((each for each in numbers if each.startswith(typed)), MOST_STEPS),
        *sorted({each.name for each in found}),
    ]


def _streams(source: Source, _: str, words: list[str]) -> list[str]:
    run = _first(words)
    return [] if run is None else sorted(set(source.streams(run)["key"].tolist()))


def _first(words: list[str]) -> str | None:
    return next((each for each in words if not each.startswith("-")), None)


def _queues(source: Source, _: str, __: list[str]) -> list[str]:
    return [str(each) for each in source.queues().index]


def _schedules(source: Source, _: str, __: list[str]) -> list[str]:
    return [str(each) for each in source.schedules(upcoming=1).index]


PROVIDERS: dict[str, Callable[[Source, str, list[str]], Iterable[str]]] = {
    "id": _run_ids,
    "name": _names,
    "step": _steps,
    "stream": _streams,
    "queue": _queues,
    "schedule": _schedules,
}


def register(shell: InteractiveShell) -> None:
    """Complete both forms of the magic."""
    for magic in MAGICS:
        shell.set_hook("complete_command", complete, str_key=magic)  # type: ignore[no-untyped-call]  # IPython's


def unregister(shell: InteractiveShell) -> None:
    """Take the completer back; IPython has no way to ask for it, so it is taken out of its table."""
    table: Any = shell.strdispatchers.get("complete_command")
    for magic in MAGICS:
        if table is not None:
            table.strs.pop(magic, None)
