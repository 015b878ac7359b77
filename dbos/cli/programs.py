"""`dbos start` runs a program, `dbos worker` is one: both live until a signal ends them.

Signals reach the whole process group of a started program, also what its shell has started. A worker that is told to
end claims nothing new, lets its workflows finish for a while and hands over the rest; when it is told again it
dies, and other workers take over once its lease has ended: no work is lost either way.
"""

from __future__ import annotations

import contextlib
import importlib
import os
import re
import signal
import subprocess
import sys
from pathlib import Path
from queue import Empty, SimpleQueue
from typing import TYPE_CHECKING

from dbos import DBOS, DBOSConfig
from dbos._faces.ambient import instance
from dbos._faces.config import VALID_NAME, parsed
from dbos._hooks.signals import on_signals
from dbos.cli import config_file, others
from dbos.cli.database import URL_VARIABLE, shown
from dbos.cli.failure import Failure, Misuse

if TYPE_CHECKING:
    from argparse import Namespace
    from collections.abc import Callable

HAS_GROUPS = hasattr(os, "killpg")
TICK_SECONDS = 1.0


# -- start -----------------------------------------------------------------------------------------------------


def start(arguments: Namespace) -> int:
    """Run a command, or those of the configuration file one after the other; return the code of the last one.

    The code is that which a shell would give. The first command that fails is the last one.
    """
    commands: list[list[str] | str] = [arguments.command] if arguments.command else []
    commands = commands or [*config_file.commands("runtimeConfig", "start")]
    if not commands:
        raise Misuse(f"which command? Give one, or list some as runtimeConfig.start in {config_file.CONFIG_FILE}")
    environment = dict(os.environ)
    if arguments.sys_db_url:
        environment[URL_VARIABLE] = arguments.sys_db_url
    running: list[subprocess.Popen[bytes]] = []
    signals: list[int] = []

    def pass_on(number: int, _: object) -> None:
        signals.append(number)
        if running:
            _send(running[-1], number)

    # Before there is a program, or a signal that comes just then would leave it alone in the world.
    _on_end(pass_on)
    code = 0
    for command in commands:
        early = len(signals)
        running.append(_started(command, environment))
        for number in signals[:early]:
            _send(running[-1], number)
        code = running[-1].wait()
        if code or signals:
            break
    return 128 - code if code < 0 else code


def _started(command: list[str] | str, environment: dict[str, str]) -> subprocess.Popen[bytes]:
    """A program, in a process group of its own; one that is a text is for the shell."""
    try:
        return subprocess.Popen(  # noqa: S603 - to run what the user says is what it is for
            command, shell=isinstance(command, str), env=environment, process_group=0 if HAS_GROUPS else None
        )
    except OSError as error:
        raise Failure(f"{command[0]!r} cannot be started: {error.strerror or error}") from None


def _send(program: subprocess.Popen[bytes], number: int) -> None:
    if program.poll() is not None:
        return
    if HAS_GROUPS:
        os.killpg(program.pid, number)
    else:
        program.send_signal(number)


def _on_end(act: Callable[[int, object], None]) -> None:
    for number in _ending():
        signal.signal(number, act)


def _ending() -> list[int]:
    """The signals that want us to end: also that of a terminal which closes, unless `nohup` said to ignore it."""
    hangup: int | None = getattr(signal, "SIGHUP", None)
    if hangup is None or signal.getsignal(hangup) is signal.SIG_IGN:
        return [signal.SIGINT, signal.SIGTERM]
    return [signal.SIGINT, signal.SIGTERM, hangup]


# -- worker ----------------------------------------------------------------------------------------------------


def worker(arguments: Namespace) -> None:
    """Serve the workflows of a module until a signal comes."""
    url = arguments.sys_db_url or os.environ.get(URL_VARIABLE)
    if url:
        # The module may configure DBOS by itself, from the same place.
        os.environ[URL_VARIABLE] = url
    module = _imported(arguments.module)
    _configure(arguments, module, url)
    signals = _signals()
    if arguments.queue_name:
        DBOS.listen_queues(arguments.queue_name)
    made = instance()
    if made is None or made.launched is None:
        DBOS.launch()
    _tell(f"serving {module} from {_place()}; Ctrl-C or SIGTERM ends")
    _wait(signals)
    _tell(f"ending: running workflows may finish for {arguments.drain:g} s")
    DBOS.destroy(workflow_completion_timeout_sec=arguments.drain)


def _imported(module: str) -> str:
    """Import what defines the workflows, by its name or from its file; return its name."""
    folder, name = Path.cwd(), module
    file = Path(module).resolve()
    if file.suffix in {".ipynb", ".py"} and not file.is_file():
        raise Misuse(f"there is no file {module}")
    if file.suffix == ".ipynb":
        try:
            return others.loader("ipynb")(module)
        except ValueError as error:
            raise Misuse(str(error)) from None
    if file.suffix == ".py":
        folder, name = file.parent, file.stem
    if not name or name.startswith("."):
        raise Misuse(f"{module!r} is no name of a module")
    sys.path.insert(0, str(folder))
    try:
        importlib.import_module(name)
    except ModuleNotFoundError as error:
        # One that the module itself does not find is an error of its own, with a traceback.
        if error.name is not None and f"{name}.".startswith(f"{error.name}."):
            raise Misuse(f"there is no module {error.name!r} here") from None
        raise
    return name


def _configure(arguments: Namespace, module: str, url: str | None) -> None:
    """Configure DBOS, unless the module has done so."""
    made = instance()
    if made is None:
        config: DBOSConfig = {
            "name": arguments.name or _name_of(module),
            "system_database_url": url,
            "dbos_system_schema": arguments.schema,
        }
        DBOS(config=config)
    elif arguments.sys_db_url and parsed(arguments.sys_db_url) != made.config.system_url:
        raise Misuse(
            f"{module} configures another database, {_place()}; leave out --sys-db-url, or let the module "
            f"take it from {URL_VARIABLE}"
        )


def _name_of(module: str) -> str:
    """A name for the application, from that of its module."""
    name = re.sub(r"[^a-z0-9_-]", "-", module.rpartition(".")[2].lower())[:30]
    return name if VALID_NAME.fullmatch(name) else f"{name}-app"


def _place() -> str:
    made = instance()
    return shown(made.config.system_url.render_as_string(hide_password=False)) if made is not None else ""


def _signals() -> SimpleQueue[int]:
    """Gets the first signal that wants us to end; a later one does what it does to any program."""
    # An event will not do: a handler that sets it may have interrupted just the one who holds its lock.
    signals: SimpleQueue[int] = SimpleQueue()
    on_signals(_ending(), signals.put)
    return signals


def _wait(signals: SimpleQueue[int]) -> None:
    """Wait for a signal; with ticks, because not every system interrupts a wait for one."""
    while True:
        with contextlib.suppress(Empty):
            signals.get(timeout=TICK_SECONDS)
            return


def _tell(text: str) -> None:
    with contextlib.suppress(OSError):  # the terminal may be what has gone
        sys.stderr.write(f"dbos: {text}\n")
        sys.stderr.flush()
