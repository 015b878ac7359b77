"""What a cell shows, kept with its record: it is shown again when the cell is answered from there.

A bundle is what a front end gets: one value by kinds. Only so much is kept; of a value that is larger its plain text, and
of what lives in a kernel, as widgets do, nothing else either.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from typing import Any, NamedTuple

from IPython.display import display

from dbos_notebook import door

# Of what one cell displays, in characters, and of its last line; and so many values.
MOST_SIGNS, MOST_BUNDLES = 1_000_000, 100
LONGEST_TEXT = 10_000
PLAIN = "text/plain"
ALIVE = "application/vnd.jupyter.widget-view+json"


class Bundle(NamedTuple):
    """One value as it was shown."""

    data: dict[str, Any]
    metadata: dict[str, Any]


_shown: ContextVar[list[Bundle] | None] = ContextVar("dbos_shown", default=None)


@contextmanager
def watched() -> Iterator[list[Bundle]]:
    """Within it, what this code displays is noted, where the shell tells of it."""
    found: list[Bundle] = []
    publisher: Any = getattr(door.session().shell, "display_pub", None)
    listen: Callable[[Any], Any] | None = getattr(publisher, "register_hook", None)
    token = _shown.set(found)
    if listen is not None:
        listen(_note)
    try:
        yield found
    finally:
        _shown.reset(token)
        if listen is not None:
            publisher.unregister_hook(_note)


def _note(message: dict[str, Any]) -> dict[str, Any]:
    """A message on its way to the front end. Several cells may await in one thread: each has a list of its own."""
    found, content = _shown.get(), message.get("content", {})
    if found is not None and message.get("header", {}).get("msg_type") == "display_data":
        found.append(Bundle(dict(content.get("data", {})), dict(content.get("metadata", {}))))
    return message


def bundle_of(value: Any) -> Bundle | None:
    """A value as the shell shows it; None where it shows itself, and so might live on."""
    formatter: Any = getattr(door.session().shell, "display_formatter", None)
    if value is None or formatter is None or _shows_itself(formatter, value):
        return None
    return Bundle(*formatter.format(value))


def _shows_itself(formatter: Any, value: Any) -> bool:
    try:
        return formatter.ipython_display_formatter.lookup(value) is not None
    except KeyError:
        return hasattr(type(value), "_ipython_display_")


def kept(bundles: list[Bundle]) -> list[Bundle]:
    """Those that are kept, each in the form that is."""
    made, left = [], MOST_SIGNS
    for each in bundles[:MOST_BUNDLES]:
        size = sum(len(str(part)) for part in each.data.values())
        if ALIVE in each.data or size > left:
            each = Bundle({PLAIN: str(each.data.get(PLAIN, ""))[:LONGEST_TEXT]}, {})  # noqa: PLW2901 - in another form
            size = len(each.data[PLAIN])
        left -= size
        made.append(each)
    return made


def kept_one(bundle: Bundle | None) -> Bundle | None:
    """The same of one."""
    return None if bundle is None else kept([bundle])[0]


def show(bundles: Iterable[Bundle]) -> None:
    """Show them again."""
    for each in bundles:
        display(each.data, metadata=each.metadata, raw=True)  # type: ignore[no-untyped-call]  # IPython's
