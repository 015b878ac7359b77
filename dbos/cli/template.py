"""`dbos init`: a small application to begin with, from here and from no server."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from dbos._faces.config import VALID_NAME
from dbos.cli import output
from dbos.cli.failure import Failure, Misuse

if TYPE_CHECKING:
    from argparse import Namespace

MAIN = '''\
"""An application whose work survives: stop it at any moment and start it again."""

import os

from dbos import DBOS, DBOSConfig

config: DBOSConfig = {
    "name": "{name}",
    "system_database_url": os.environ.get("DBOS_SYSTEM_DATABASE_URL"),  # unset: a SQLite file in this folder
}
DBOS(config=config)


@DBOS.step()
def hello(name: str) -> str:
    DBOS.logger.info("Hello, %s!", name)
    return f"Hello, {name}!"


@DBOS.workflow()
def greet(names: list[str]) -> list[str]:
    return [hello(name) for name in names]


if __name__ == "__main__":
    DBOS.launch()
    print(greet(["Ada", "Grace"]))
    DBOS.destroy()
'''
FILES = {"main.py": MAIN, ".gitignore": "*.sqlite*\n__pycache__/\n"}


def init(arguments: Namespace) -> None:
    name = arguments.name
    if not VALID_NAME.fullmatch(name):
        raise Misuse(f"{name!r} is no name of an application: it must be 3 to 30 of a-z, 0-9, - and _")
    folder = Path(name)
    taken = [file for file in FILES if (folder / file).exists()]
    if taken:
        raise Failure(f"{folder / taken[0]} exists already; nothing was written")
    folder.mkdir(exist_ok=True)
    for file, text in FILES.items():
        (folder / file).write_text(text.replace("{name}", name, 1), encoding="utf-8")
    output.line(f"Wrote {folder / 'main.py'}. Try: cd {folder} && python main.py")
    output.line(f"Then: dbos workflow list --sys-db-url sqlite:///{name.replace('-', '_')}.sqlite")
