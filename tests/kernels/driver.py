"""A real kernel without a browser: half a second to start one.

Every output is kept with the request it answers, so a test can ask into which cell an output went, and not only whether
it came. A cell has ended when it was answered and said to be idle: what its threads print later is output all the same.
"""

from __future__ import annotations

import os
import signal
import threading
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from jupyter_client.blocking import BlockingKernelClient
from jupyter_client.manager import KernelManager

LIMIT_SECONDS = 30.0
# A reply comes beside outputs, so it is mostly seen earlier than this.
LOOK_MS = 5
# The debugger's warning about frozen modules is on stderr, where tests want to see nothing.
QUIET = {"PYDEVD_DISABLE_FILE_VALIDATION": "1"}


class CellFailed(AssertionError):
    """A cell that a test wanted to succeed raised an error."""


@dataclass
class Cell:
    """One request to run code, and everything that answers it."""

    kernel: Kernel
    code: str
    message_id: str
    reply: dict[str, Any] | None = None
    is_idle: bool = False
    messages: list[dict[str, Any]] = field(default_factory=list)

    def wait(self, seconds: float = LIMIT_SECONDS) -> Cell:
        """Until it has ended, well or not. A click is never answered: `until(lambda: click.is_idle)`."""
        self.kernel.until(lambda: self.reply is not None and self.is_idle, f"the end of {self.code!r}", seconds)
        return self

    @property
    def error(self) -> str | None:
        """The name of the error that ended it."""
        assert self.reply is not None, "wait for the cell first"
        return None if self.reply["status"] == "ok" else self.reply.get("ename", self.reply["status"])

    @property
    def traceback(self) -> str:
        return "\n".join((self.reply or {}).get("traceback", []))

    def _texts(self, kind: str, name: str) -> str:
        return "".join(m["text"] for t, m in self._contents() if t == kind and m.get("name") == name)

    def _contents(self) -> list[tuple[str, dict[str, Any]]]:
        return [(message["msg_type"], message["content"]) for message in list(self.messages)]

    @property
    def stdout(self) -> str:
        return self._texts("stream", "stdout")

    @property
    def stderr(self) -> str:
        return self._texts("stream", "stderr")

    @property
    def result(self) -> str | None:
        """What its last line came to, as text."""
        return next((m["data"].get("text/plain") for t, m in self._contents() if t == "execute_result"), None)

    @property
    def bundles(self) -> list[dict[str, Any]]:
        """Every bundle of mime types that it showed: results, displays and their updates, in order."""
        kinds = ("execute_result", "display_data", "update_display_data")
        return [m["data"] for t, m in self._contents() if t in kinds]

    @property
    def text(self) -> str:
        """All of its output, as a terminal would show it."""
        return "".join(m.get("text") or m.get("data", {}).get("text/plain") or "" for _, m in self._contents())


class Kernel:
    """A kernel process of our own, in a folder of its own."""

    def __init__(self, folder: Path | None = None, env: dict[str, str] | None = None) -> None:
        self.manager = KernelManager(kernel_name="python3")
        self._news = threading.Condition()
        # A socket is for one thread at a time: the reader takes replies from the one that requests go out by.
        self._wire = threading.Lock()
        self._cells: dict[str, Cell] = {}
        #: Outputs that answer none of our cells: those of clicks on buttons, and of nobody.
        self.strays: list[dict[str, Any]] = []
        self._env = {**os.environ, **QUIET, **(env or {})}
        # What a test types is nobody's history.
        self.manager.extra_arguments = ["--HistoryManager.enabled=False"]
        self.manager.start_kernel(env=self._env, cwd=None if folder is None else str(folder))
        self._connect()

    # -- running cells -----------------------------------------------------------------------------------------

    def start(self, code: str) -> Cell:
        """Send a cell and do not wait for it."""
        return self._request("execute_request", {"code": code, "silent": False, "store_history": True}, code)

    def attempt(self, code: str, seconds: float = LIMIT_SECONDS) -> Cell:
        """Run a cell to its end, which may be an error."""
        return self.start(code).wait(seconds)

    def run(self, code: str, seconds: float = LIMIT_SECONDS) -> Cell:
        """Run a cell that must succeed."""
        cell = self.attempt(code, seconds)
        if cell.error is not None:
            raise CellFailed(f"{code}\n\n{cell.traceback or cell.error}")
        return cell

    def complete(self, code: str) -> list[str]:
        """What the tabulator key offers at the end of `code`."""
        cell = self._request("complete_request", {"code": code, "cursor_pos": len(code)}, code)
        self.until(lambda: cell.reply is not None, f"completions of {code!r}")
        assert cell.reply is not None
        return list(cell.reply["matches"])

    def click(self, comm_id: str, content: dict[str, Any] | None = None) -> Cell:
        """Send what a button sends when it is clicked, or what a widget sends with `content`."""
        data = {"method": "custom", "content": content or {"event": "click"}}
        return self._request("comm_msg", {"comm_id": comm_id, "data": data}, "a click")

    def until(self, condition: Callable[[], Any], what: str = "it", seconds: float = LIMIT_SECONDS) -> Any:
        """What the condition comes to, once it is true; it is asked again at every message."""
        with self._news:
            value = self._news.wait_for(condition, seconds)
        if not value:
            raise AssertionError(f"still no {what} after {seconds} seconds")
        return value

    def cell_of(self, words: str, seconds: float = LIMIT_SECONDS) -> Cell | None:
        """The cell in whose output these words come, once they do; None if they come in no cell at all."""

        def find() -> Sequence[Cell | None]:
            found: list[Cell | None] = [cell for cell in self._cells.values() if words in cell.text]
            return found or [None for message in self.strays if words in str(message["content"])]

        found: Sequence[Cell | None] = self.until(find, f"output {words!r}", seconds)
        return found[0]

    # -- life and death ----------------------------------------------------------------------------------------

    def interrupt(self) -> None:
        """What the stop button does."""
        self.manager.interrupt_kernel()

    def restart(self) -> None:
        """What "Restart kernel" does: it is asked to end, killed when it does not, and started anew."""
        self._disconnect()
        self.manager.restart_kernel(now=False, env=self._env)
        self._connect()

    def kill(self) -> None:
        """Kill -9, with nothing said before."""
        self.manager.signal_kernel(signal.SIGKILL)
        self.wait_dead()

    def wait_dead(self) -> None:
        """Until the process has ended. Dead is who was waited for; before that it is still there to be asked."""
        getattr(self.manager.provisioner, "process").wait(LIMIT_SECONDS)

    def revive(self) -> None:
        """Start a kernel where one was killed, as the server does by itself."""
        self._disconnect()
        self.manager.restart_kernel(now=True, env=self._env)
        self._connect()

    def shutdown(self) -> None:
        """End it in order; raises nothing when it is dead already."""
        self._disconnect()
        self.manager.shutdown_kernel(now=False)

    def close(self) -> None:
        """End it at once."""
        self._disconnect()
        self.manager.shutdown_kernel(now=True)

    def is_alive(self) -> bool:
        return bool(self.manager.is_alive())

    def __enter__(self) -> Kernel:
        return self

    def __exit__(self, *exc: object) -> None:
        self.close()

    # -- the wires ---------------------------------------------------------------------------------------------

    def _request(self, kind: str, content: dict[str, Any], code: str) -> Cell:
        message = self.client.session.msg(kind, content)
        cell = Cell(self, code, message["header"]["msg_id"])
        # Known before it is sent: an answer can be here before the next line runs.
        self._cells[cell.message_id] = cell
        with self._wire:
            self.client.shell_channel.send(message)
        return cell

    def _connect(self) -> None:
        self.client: BlockingKernelClient = self.manager.client()
        self.client.start_channels()
        self.client.wait_for_ready(timeout=60)
        self._is_over = threading.Event()
        self._reader = threading.Thread(target=self._read, args=(self._is_over,), daemon=True)
        self._reader.start()

    def _disconnect(self) -> None:
        if self._is_over.is_set():
            return
        self._is_over.set()
        self._reader.join()
        self.client.stop_channels()

    def _read(self, is_over: threading.Event) -> None:
        # The sockets themselves: the client's own reading would make an event loop in this thread and leave it open.
        outputs, replies = self.client.iopub_channel.socket, self.client.shell_channel.socket
        while not is_over.is_set():
            outputs.poll(LOOK_MS)
            while outputs.poll(0):
                self._note(outputs)
            with self._wire:
                while replies.poll(0):
                    self._note(replies)

    def _note(self, socket: Any) -> None:
        _, message = self.client.session.recv(socket, mode=0)
        with self._news:
            self._take(message)
            self._news.notify_all()

    def _take(self, message: dict[str, Any]) -> None:
        cell = self._cells.get(message["parent_header"].get("msg_id", ""))
        kind, content = message["msg_type"], message["content"]
        if kind == "status":
            if cell is not None and content["execution_state"] == "idle":
                cell.is_idle = True
        elif kind.endswith("_reply"):
            if cell is not None:
                cell.reply = content
        elif kind != "execute_input":
            (self.strays if cell is None else cell.messages).append(message)
