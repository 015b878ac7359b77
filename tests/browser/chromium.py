"""A browser for the tests: one that is here, else Debian's, installed."""

from __future__ import annotations

import os
import shutil
import subprocess

NAMES = ("chromium", "chromium-browser", "google-chrome")
# The fonts are the letters in screenshots.
PACKAGES = ("chromium", "fonts-dejavu-core")

OPTIONS = (
    "--no-sandbox",  # as root there is none
    "--disable-gpu",
    "--disable-dev-shm-usage",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
    # Offline by construction: no name but localhost resolves.
    "--host-resolver-rules=MAP * ~NOTFOUND, EXCLUDE 127.0.0.1, EXCLUDE localhost",
)


def chromium() -> str:
    """The path of a Chromium; it is installed where there is none and we may."""
    found = _found()
    if found is None and shutil.which("apt-get") and os.getuid() == 0:
        _install()
        found = _found()
    assert found is not None, f"tests/browser needs Chromium: install one of {', '.join(NAMES)}"
    return found


def _found() -> str | None:
    return next((path for name in NAMES if (path := shutil.which(name))), None)


def _install() -> None:
    quiet = {**os.environ, "DEBIAN_FRONTEND": "noninteractive"}
    subprocess.run(["apt-get", "update", "-q"], check=True, env=quiet, capture_output=True)
    install = ["apt-get", "install", "-y", "-q", "--no-install-recommends", *PACKAGES]
    subprocess.run(install, check=True, env=quiet, capture_output=True)
