"""A JupyterLab of our own: settings, workspaces and history too, so that nothing leaks in from the user's home or out."""

from __future__ import annotations

import json
import os
import secrets
import signal
import socket
import subprocess
import sys
import threading
import time
import urllib.request
from contextlib import suppress
from pathlib import Path
from typing import Any

LIMIT_SECONDS = 60.0
FOLDERS = {
    "JUPYTER_CONFIG_DIR": "config",
    "JUPYTER_DATA_DIR": "data",
    "JUPYTER_RUNTIME_DIR": "runtime",
    "JUPYTERLAB_SETTINGS_DIR": "settings",
    "JUPYTERLAB_WORKSPACES_DIR": "workspaces",
    "IPYTHONDIR": "ipython",
}
# What makes tests unsteady, or reaches for the network.
SETTINGS: dict[str, dict[str, Any]] = {
    "apputils-extension:notification": {"fetchNews": "false", "checkForUpdates": False, "doNotDisturbMode": True},
    # Every cell is in the page, also those out of sight.
    "notebook-extension:tracker": {"windowingMode": "none"},
    "docmanager-extension:plugin": {"autosave": False},
    "completer-extension:manager": {"autoCompletion": False},
    "apputils-extension:themes": {"theme": "JupyterLab Light", "adaptive-theme": False},
}


class Server:
    """A `jupyter lab` process on 127.0.0.1, with a token."""

    def __init__(self, root: Path, home: Path) -> None:
        self.root, self._home = root, home
        self.token = secrets.token_hex(16)
        self._log = home / "jupyterlab.log"
        port = _free_port()
        self.url = f"http://127.0.0.1:{port}"
        self.forget_settings()
        with self._log.open("ab") as out:
            self._process = subprocess.Popen(
                [sys.executable, "-m", "jupyterlab", *self._options(port)],
                cwd=root,
                env=self._environment(),
                stdin=subprocess.DEVNULL,
                stdout=out,
                stderr=subprocess.STDOUT,
                start_new_session=True,
            )
        self._wait()

    def forget_settings(self) -> None:
        """The settings that tests begin with, whatever the last one chose: a theme is kept with them."""
        for plugin, values in SETTINGS.items():
            name, _, key = plugin.partition(":")
            file = self._home / "settings" / "@jupyterlab" / name / f"{key}.jupyterlab-settings"
            file.parent.mkdir(parents=True, exist_ok=True)
            file.write_text(json.dumps(values))

    def _options(self, port: int) -> list[str]:
        return [
            "--no-browser",
            "--allow-root",
            "--ServerApp.ip=127.0.0.1",
            f"--ServerApp.port={port}",
            "--ServerApp.port_retries=0",
            f"--ServerApp.root_dir={self.root}",
            f"--IdentityProvider.token={self.token}",
            "--LabApp.expose_app_in_browser=True",  # window.jupyterapp
            "--LabApp.extension_manager=readonly",
            "--LabApp.news_url=None",
            "--LabApp.check_for_updates_class=jupyterlab.NeverCheckForUpdate",
        ]

    def _environment(self) -> dict[str, str]:
        folders = {name: str(self._home / folder) for name, folder in FOLDERS.items()}
        for folder in folders.values():
            Path(folder).mkdir(parents=True, exist_ok=True)
        # The kernel is this interpreter's, not one found on the path.
        path = f"{Path(sys.executable).parent}{os.pathsep}{os.environ.get('PATH', '')}"
        return {**os.environ, **folders, "PATH": path, "PYDEVD_DISABLE_FILE_VALIDATION": "1"}

    def _wait(self) -> None:
        until = time.monotonic() + LIMIT_SECONDS
        pause = threading.Event()
        while True:
            assert self._process.poll() is None, f"jupyter lab ended at once:\n{self._log.read_text()[-4000:]}"
            with suppress(OSError):
                self._ask("/api/status")
                return
            assert time.monotonic() < until, f"jupyter lab did not answer:\n{self._log.read_text()[-4000:]}"
            pause.wait(0.05)

    def _ask(self, path: str, method: str = "GET") -> Any:
        headers = {"Authorization": f"token {self.token}"}
        request = urllib.request.Request(self.url + path, headers=headers, method=method)
        with urllib.request.urlopen(request, timeout=20) as answer:
            return json.loads(answer.read() or b"null")

    def end_kernels(self) -> None:
        """Each test has kernels of its own."""
        for session in self._ask("/api/sessions"):
            with suppress(OSError):
                self._ask(f"/api/sessions/{session['id']}", "DELETE")

    def close(self) -> None:
        """End it and its kernels: the group of processes that we started."""
        if self._process.poll() is not None:
            return
        with suppress(OSError):
            self.end_kernels()
        self._process.terminate()
        try:
            self._process.wait(15)
        except subprocess.TimeoutExpired:
            os.killpg(self._process.pid, signal.SIGKILL)
            self._process.wait()


def _free_port() -> int:
    with socket.socket() as found:
        found.bind(("127.0.0.1", 0))
        return int(found.getsockname()[1])
