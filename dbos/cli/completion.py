"""`dbos completion`: scripts that complete the command in a shell, made from the parser, so they know what it knows.

Each script walks the words before the cursor to the command that is meant, in the same way: a word that is not the
name of a command under the present one is passed over, be it an option or a value.
"""

from __future__ import annotations

import argparse
import sys
from typing import TYPE_CHECKING, NamedTuple

from dbos.cli.parser import make_parser

if TYPE_CHECKING:
    from collections.abc import Iterator

PROGRAM = "dbos"


class Place(NamedTuple):
    """A command, with what may follow it, and what may follow each of its options that knows its values."""

    path: str
    commands: dict[str, str]
    options: dict[str, str]
    choices: dict[str, list[str]]
    #: What its positional argument can be, where that is known.
    values: list[str]


def run(arguments: argparse.Namespace) -> None:
    sys.stdout.write(script(arguments.shell))


def script(shell: str) -> str:
    """The script for a shell."""
    return {"bash": _bash, "zsh": _zsh, "fish": _fish}[shell](list(places(make_parser(), PROGRAM)))


def places(parser: argparse.ArgumentParser, path: str) -> Iterator[Place]:
    """A parser and all that stand under it."""
    commands: dict[str, str] = {}
    options: dict[str, str] = {}
    choices: dict[str, list[str]] = {}
    values: list[str] = []
    for action in parser._actions:  # noqa: SLF001 - argparse has no other way to ask
        if isinstance(action, argparse._SubParsersAction):  # noqa: SLF001 - as above
            helps = {each.dest: each.help or "" for each in action._choices_actions}  # noqa: SLF001 - as above
            commands = {name: helps.get(name, "") for name in action.choices}
            for name, child in action.choices.items():
                yield from places(child, f"{path} {name}")
        elif action.option_strings:
            named = dict.fromkeys(action.option_strings, action.help or "")
            options |= named
            if action.choices is not None:
                choices |= {option: list(action.choices) for option in named}
        elif action.choices is not None:
            values = list(action.choices)
    yield Place(path, commands, options, choices, values)


def _words(place: Place) -> str:
    return " ".join([*place.commands, *place.values, *place.options])


def _steps(found: list[Place]) -> str:
    """All paths but that of the program itself, as patterns of a shell's `case`."""
    return "|".join(f'"{place.path}"' for place in found if place.path != PROGRAM)


def _cases(found: list[Place]) -> str:
    """What to offer: after an option that knows its values those, else what the command takes."""
    lines = [
        f'    "{place.path}|{option}") offered="{" ".join(values)}" ;;'
        for place in found
        for option, values in place.choices.items()
    ]
    lines += [f'    "{place.path}|"*) offered="{_words(place)}" ;;' for place in found]
    return "\n".join(lines)


def _bash(found: list[Place]) -> str:
    return f"""\
# To use it: eval "$({PROGRAM} completion bash)"
_{PROGRAM}() {{
  local place={PROGRAM} offered="" i
  for ((i = 1; i < COMP_CWORD; i++)); do
    case "$place ${{COMP_WORDS[i]}}" in
    {_steps(found)}) place="$place ${{COMP_WORDS[i]}}" ;;
    esac
  done
  case "$place|${{COMP_WORDS[COMP_CWORD-1]}}" in
{_cases(found)}
  esac
  COMPREPLY=($(compgen -W "$offered" -- "${{COMP_WORDS[COMP_CWORD]}}"))
}}
complete -o bashdefault -o default -F _{PROGRAM} {PROGRAM}
"""


def _zsh(found: list[Place]) -> str:
    return f"""\
#compdef {PROGRAM}
# To use it, after compinit: eval "$({PROGRAM} completion zsh)"
_{PROGRAM}() {{
  local place={PROGRAM} offered="" i
  for ((i = 2; i < CURRENT; i++)); do
    case "$place ${{words[i]}}" in
    {_steps(found)}) place="$place ${{words[i]}}" ;;
    esac
  done
  case "$place|${{words[CURRENT-1]}}" in
{_cases(found)}
  esac
  compadd -- ${{=offered}} || _files
}}
compdef _{PROGRAM} {PROGRAM}
"""


def _fish(found: list[Place]) -> str:
    lines = [
        f"# To use it: {PROGRAM} completion fish | source",
        f"function __{PROGRAM}_place",
        f"  set -l place {PROGRAM}",
        "  for word in (commandline -opc)[2..-1]",
        '    switch "$place $word"',
        f"      case {' '.join(_quoted(place.path) for place in found if place.path != PROGRAM)}",
        '        set place "$place $word"',
        "    end",
        "  end",
        "  echo $place",
        "end",
    ]
    for place in found:
        when = _quoted(f'test (__{PROGRAM}_place) = "{place.path}"')
        for name, help in place.commands.items():
            lines.append(f"complete -c {PROGRAM} -f -n {when} -a {_quoted(name)} -d {_quoted(help)}")
        if place.values:
            lines.append(f"complete -c {PROGRAM} -f -n {when} -a {_quoted(' '.join(place.values))}")
        for option, help in place.options.items():
            kind = f"-l {option[2:]}" if option.startswith("--") else f"-s {option[1:]}"
            values = f" -x -a {_quoted(' '.join(place.choices[option]))}" if option in place.choices else ""
            lines.append(f"complete -c {PROGRAM} -n {when} {kind}{values} -d {_quoted(_one_line(help))}")
    return "\n".join(lines) + "\n"


def _one_line(help: str) -> str:
    """Help without what argparse would fill in."""
    return help.partition(" (default")[0]


def _quoted(text: str) -> str:
    return "'" + text.replace("\\", "\\\\").replace("'", "\\'") + "'"
