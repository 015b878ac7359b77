"""The reference in docs/, made of what the code says of itself: `python -m tests.house.pages` writes it anew.

A test compares: what is public and not in there, or there and no more public, fails it.
"""

from __future__ import annotations

import argparse
import inspect
import re
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import dbos
from dbos import DBOS, DBOSClient, DBOSConfig, WorkflowHandle, WorkflowHandleAsync, error, extension, testing
from dbos.cli.parser import make_parser
from dbos_notebook import commands
from dbos_notebook.cells import define
from dbos_notebook.durable import magic
from dbos_notebook.session import DbosNotebook
from dbos_notebook.verbs import VERBS

FOLDER = Path(__file__).parents[2] / "docs"
WRITTEN = "*Written by `python -m tests.house.pages` from the docstrings; edit those.*"
LARGE = (DBOS, DBOSClient, WorkflowHandle, WorkflowHandleAsync)
TWIN = "_async"


def page(title: str, *parts: str) -> str:
    return "\n\n".join([f"# {title}", WRITTEN, *(part.strip() for part in parts if part.strip())]) + "\n"


def doc(thing: Any) -> str:
    """Its docstring, with what Markdown would take for markup left as text."""
    return re.sub(r"(?m)^( {4,})", "    ", inspect.getdoc(thing) or "")


def signature(name: str, thing: Any) -> str:
    try:
        found = str(inspect.signature(thing))
    except (TypeError, ValueError):
        return name
    # Modules say nothing to a reader, and where an object lives says too much.
    found = re.sub(r"<.*? at 0x[0-9a-f]+>", "...", found)
    found = re.sub(r"\b(?:dbos|typing|collections|sqlalchemy)(?:\.\w+)*\.(?=[A-Z])", "", found)
    found = re.sub(r"<WorkflowSerializationFormat\.(\w+): [^>]*>", r"WorkflowSerializationFormat.\1", found)
    return f"{name}{found.replace('(self, ', '(').replace('(self)', '()').replace(chr(39), '')}"


def own_methods(cls: type) -> Iterator[tuple[str, Any]]:
    for name in sorted(dir(cls)):
        if not name.startswith("_"):
            found = inspect.getattr_static(cls, name)
            yield name, found.__func__ if isinstance(found, staticmethod | classmethod) else found


def members(cls: type) -> str:
    """The members of a class; a method and its async twin are one entry."""
    found = dict(own_methods(cls))
    lines = []
    for name, thing in found.items():
        if name.endswith(TWIN) and name.removesuffix(TWIN) in found:
            continue
        shown = signature(name, thing) if callable(thing) else name
        twin = f" Also `{name}{TWIN}`." if f"{name}{TWIN}" in found else ""
        lines.append(f"### `{cls.__name__}.{shown}`\n\n{doc(thing)}{twin}")
    return "\n\n".join(lines)


def api() -> str:
    parts = ["What `from dbos import ...` gives. See [errors](errors.md) and [configuration](configuration.md) too."]
    for name in sorted(dbos.__all__, key=str.lower):
        thing = getattr(dbos, name)
        if thing in LARGE:
            parts.append(f"## {name}\n\n{doc(thing)}\n\n{members(thing)}")
        elif inspect.ismodule(thing):
            continue
        else:
            parts.append(
                f"## `{signature(name, thing) if callable(thing) and not _is_plain(thing) else name}`\n\n{doc(thing)}"
            )
    for module in (extension, testing):
        parts.append(f"## The module `{module.__name__}`\n\n{doc(module)}")
        for name in getattr(module, "__all__", [each for each in vars(module) if not each.startswith("_")]):
            thing = getattr(module, name)
            if getattr(thing, "__module__", "").startswith("dbos") and inspect.getdoc(thing):
                parts.append(
                    f"### `{module.__name__}.{signature(name, thing) if not _is_plain(thing) else name}`\n\n{doc(thing)}"
                )
    return page("The Python API", *parts)


def _is_plain(thing: Any) -> bool:
    return isinstance(thing, type) and (issubclass(thing, dict | tuple) or hasattr(thing, "__members__"))


def errors() -> str:
    found = [each for each in vars(error).values() if isinstance(each, type) and issubclass(each, BaseException)]
    parts = [
        f"## {each.__name__}\n\n{doc(each)}\n\nIs a `{each.__mro__[1].__name__}`."
        for each in sorted(found, key=lambda each: each.__name__)
        if each.__module__.startswith("dbos")
    ]
    return page("Errors", doc(error), *parts)


def configuration() -> str:
    """A `#:` comment tells of the keys below it, up to an empty line or the next comment."""
    told, rows, is_open = "", list[str](), False
    for line in inspect.getsource(DBOSConfig).splitlines():
        text = line.strip()
        if text.startswith("#:"):
            told = f"{told} {text[2:].strip()}" if is_open else text[2:].strip()
            is_open = True
        elif match := re.match(r"(\w+): (.+)", text):
            kind = match[2].replace("|", "\\|")
            rows.append(f"| `{match[1]}` | `{kind}` | {told} |")
            is_open = False
        else:
            told, is_open = "", False
    return page("Configuration", doc(DBOSConfig), "| key | type | meaning |\n|---|---|---|\n" + "\n".join(rows))


def command_line() -> str:
    parser = make_parser()
    parts = [parser.description or "", "```text\n" + (parser.epilog or "").strip() + "\n```"]
    return page("The command line", *parts, *_commands("dbos", parser))


def _commands(name: str, parser: argparse.ArgumentParser) -> Iterator[str]:
    for action in parser._actions:
        if isinstance(action, argparse._SubParsersAction):
            for word, child in action.choices.items():
                yield from _commands(f"{name} {word}", child)
            return
    rows = [
        f"- `{', '.join(action.option_strings) or action.metavar or action.dest}`: {_help(action)}"
        for action in parser._actions
        if not isinstance(action, argparse._HelpAction)
    ]
    yield f"## `{name}`\n\n{parser.description or ''}\n\n" + "\n".join(rows)


def _help(action: argparse.Action) -> str:
    return (action.help or "") % vars(action)


def notebook() -> str:
    parts = ["`%load_ext dbos_notebook` loads it. `%dbos VERB --help` says the same as this page."]
    for verb in VERBS.values():
        rows = [
            f"- `{', '.join(each.names)}`: {each.options.get('help', '').replace('%%', '%')}" for each in verb.arguments
        ]
        examples = "\n".join(verb.examples)
        parts.append(
            f"## `%dbos {verb.name}`\n\n{verb.help}\n\n" + "\n".join(rows) + f"\n\n```ipython\n{examples}\n```"
        )
    for title, made in (("%%workflow", define.parser()), ("%%step", magic.parser())):
        options = [
            f"- `{', '.join(each.option_strings) or each.dest}`: {_help(each)}"
            for each in made._actions
            if not isinstance(each, argparse._HelpAction)
        ]
        example = (made.epilog or "").removeprefix("example:").strip().replace("\n  ", "\n")
        parts.append(f"## `{title}`\n\n{made.description}\n\n" + "\n".join(options) + f"\n\n```ipython\n{example}\n```")
    settings = [
        f"- `{name}` ({trait.default_value!r}): {trait.help}"
        for name, trait in sorted(DbosNotebook.class_own_traits().items())
    ]
    parts.append("## Settings\n\n`%dbos config NAME=VALUE` changes one.\n\n" + "\n".join(settings))
    calls = [
        f"### `dbos_notebook.{signature(name, getattr(commands, name))}`\n\n{doc(getattr(commands, name))}"
        for name in commands.__all__
    ]
    return page("The notebook", *parts, "## Python calls", doc(commands), *calls)


PAGES: dict[str, Callable[[], str]] = {
    "api.md": api,
    "command-line.md": command_line,
    "configuration.md": configuration,
    "errors.md": errors,
    "notebook.md": notebook,
}


def main() -> int:
    for name, make in PAGES.items():
        (FOLDER / name).write_text(make(), "utf-8")
    return 0


if __name__ == "__main__":
    sys.exit(main())
