"""`python -m tests all` is what `make test` runs; `python -m tests check` is the quick part of it, for `make check`."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from tests.databases import SHARED_URL, postgres_cluster

BIN = Path(sys.executable).parent
TREES = ("dbos", "dbos_notebook", "tests")

# What can be said without running anything.
LINTS = (
    ("ruff", "format", "--check", "--quiet", *TREES),
    ("ruff", "check", "--quiet", *TREES),
    ("mypy",),
    ("lint-imports", "--no-cache"),
)
BROWSER = "tests/browser"
ALL = ("tests", f"--ignore={BROWSER}")
QUICK = ("tests/house", "tests/core", "tests/compat")
QUICK_OPTIONS = ("-m", "not slow", "-k", "not postgres")


@contextmanager
def timed(name: str) -> Iterator[None]:
    began = time.monotonic()
    yield
    print(f"{name}: {time.monotonic() - began:.0f} s", flush=True)


def lint() -> bool:
    good = True
    for command in LINTS:
        with timed(" ".join(command[:2])):
            ran = subprocess.run([BIN / command[0], *command[1:]], check=False, capture_output=True, text=True)
        if ran.returncode:
            print(ran.stdout, ran.stderr, sep="\n", flush=True)
            good = False
    return good


def pytest(*arguments: str) -> bool:
    # Two workers a core: most tests wait for a disk or for each other. Who is done takes over from who has many left.
    workers = str(2 * (os.cpu_count() or 1))
    return run_pytest("--numprocesses", workers, "--dist", "worksteal", *arguments)


def browse() -> bool:
    # After the others and one at a time: a browser, a server and a kernel want all cores for themselves.
    with timed(BROWSER):
        return run_pytest("--numprocesses", "0", BROWSER)


def run_pytest(*arguments: str) -> bool:
    return subprocess.run([BIN / "pytest", "--quiet", *arguments], check=False).returncode == 0


def main() -> int:
    what = sys.argv[1:2]
    if what == ["check"]:
        return 0 if lint() and pytest(*QUICK, *QUICK_OPTIONS) else 1
    if what == ["all"]:
        good = lint()
        with postgres_cluster() as url:
            os.environ[SHARED_URL] = url
            good = pytest(*ALL) and good
        return 0 if browse() and good else 1
    print(__doc__, file=sys.stderr)
    return 2


if __name__ == "__main__":
    sys.exit(main())
