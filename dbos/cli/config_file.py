"""`dbos-config.yaml` in the working directory: what the command line takes from there, where nothing else is said.

`${NAME}` in a text stands for an environment variable, and `${DOCKER_SECRET:NAME}` for a secret that a container is
given. They are put in after the file was read, so what they hold is never taken for YAML.
"""

from __future__ import annotations

import os
import re
from pathlib import Path
from typing import Any

from dbos.cli.failure import Misuse

CONFIG_FILE = "dbos-config.yaml"
SECRETS_FOLDER = Path("/run/secrets")
PLACEHOLDER = re.compile(r"\$\{(?:(DOCKER_SECRET):)?([A-Za-z_][\w.-]*)\}")


def settings() -> dict[str, Any]:
    """What the file says; nothing where there is none."""
    file = Path(CONFIG_FILE)
    if not file.is_file():
        return {}
    try:
        # Here and not above: an extra, which only those need who have such a file.
        import yaml
    except ModuleNotFoundError:
        raise Misuse(
            f"{CONFIG_FILE} cannot be read without PyYAML: install dbos-notebook[config], or give the address of the "
            "database in another way"
        ) from None
    try:
        found = yaml.safe_load(file.read_text(encoding="utf-8"))
    except yaml.YAMLError as error:
        # Not what it says: it quotes the file, in which there may be a password.
        mark = getattr(error, "problem_mark", None)
        raise Misuse(f"{CONFIG_FILE} is not YAML{'' if mark is None else f' (line {mark.line + 1})'}") from None
    except UnicodeDecodeError:
        raise Misuse(f"{CONFIG_FILE} is not UTF-8") from None
    except RecursionError:
        raise Misuse(f"{CONFIG_FILE} nests too deeply") from None
    if not isinstance(found, dict):
        raise Misuse(f"{CONFIG_FILE} must contain a dictionary")
    return found


def text(key: str) -> str | None:
    """A setting that is a text."""
    found = settings().get(key)
    if found is None:
        return None
    if not isinstance(found, str):
        raise Misuse(f"{key} in {CONFIG_FILE} must be a text")
    return _filled(found) or None


def commands(section: str, key: str) -> list[str]:
    """A list of commands of a section."""
    within = settings().get(section) or {}
    found = within.get(key) if isinstance(within, dict) else within
    if found is None:
        return []
    if not isinstance(found, list) or not all(isinstance(each, str) for each in found):
        raise Misuse(f"{section}.{key} in {CONFIG_FILE} must be a list of commands")
    return [_filled(each) for each in found]


def _filled(text: str) -> str:
    return PLACEHOLDER.sub(_replaced, text)


def _replaced(found: re.Match[str]) -> str:
    is_secret, name = found.groups()
    if not is_secret:
        return os.environ.get(name, "")
    try:
        return (SECRETS_FOLDER / name).read_text(encoding="utf-8").rstrip("\n")
    except (OSError, UnicodeDecodeError):
        raise Misuse(f"{CONFIG_FILE} names the secret {name}, and there is none in {SECRETS_FOLDER}") from None
