"""What Binder would do: it takes our folder, installs exactly the pins, and runs every notebook with them."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
import venv
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
BINDER = ROOT / "binder"
LEFT_BEHIND = shutil.ignore_patterns(".git", ".venv*", ".*_cache", "__pycache__", ".hypothesis", "*.sqlite*")


@pytest.fixture(scope="module")
def copy(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A checkout without anything that was built in it."""
    folder = tmp_path_factory.mktemp("binder") / "src"
    shutil.copytree(ROOT, folder, ignore=LEFT_BEHIND)
    return folder


def test_everything_is_pinned() -> None:
    lines = [line for line in (BINDER / "requirements.txt").read_text().splitlines() if line and line[0] not in "#."]

    assert len(lines) > 50
    assert [] == [line for line in lines if not re.fullmatch(r"[A-Za-z0-9_.\-]+==[A-Za-z0-9_.\-+]+", line)]


@pytest.mark.timeout(600)
def test_repo2docker_accepts_the_folder(copy: Path, tmp_path: Path) -> None:
    """Without Docker: it says what it would build. It has an environment of its own, as it has on Binder."""
    venv.create(tmp_path / "venv", with_pip=True)
    install = [tmp_path / "venv/bin/pip", "install", "-q", "--disable-pip-version-check", "jupyter-repo2docker"]
    subprocess.run(install, check=True)
    command = [tmp_path / "venv/bin/jupyter-repo2docker", "--no-build", "--debug", "."]
    ran = subprocess.run(command, cwd=copy, capture_output=True, text=True)

    assert 0 == ran.returncode, ran.stderr
    assert "unspecified" not in ran.stderr
    python = (BINDER / "runtime.txt").read_text().strip().removeprefix("python-")
    assert f"environment-2epy-2d{python.replace('.', '-2e')}" in ran.stdout
    assert "binder/requirements.txt" in ran.stdout


@pytest.mark.timeout(900)
def test_the_pins_run_every_notebook(copy: Path, tmp_path: Path) -> None:
    """In a clean environment, and by its own kernel."""
    venv.create(tmp_path / "venv", with_pip=True)
    bin_ = tmp_path / "venv/bin"
    env = {name: value for name, value in os.environ.items() if not name.startswith(("PYTHON", "JUPYTER", "PYTEST"))}
    env |= {
        "PATH": f"{bin_}:{env['PATH']}",
        "VIRTUAL_ENV": str(tmp_path / "venv"),
        "JUPYTER_DATA_DIR": str(tmp_path / "data"),
        "IPYTHONDIR": str(tmp_path / "ipython"),
    }

    def do(*command: str | Path, cwd: Path = copy) -> None:
        ran = subprocess.run(command, cwd=cwd, env=env, capture_output=True, text=True)
        assert 0 == ran.returncode, f"{command}\n{ran.stdout[-1500:]}\n{ran.stderr[-3000:]}"

    do(bin_ / "pip", "install", "-q", "--disable-pip-version-check", "-r", "binder/requirements.txt")
    do(bin_ / "pip", "check")
    for notebook in sorted((copy / "notebooks").glob("*.ipynb")):
        do(bin_ / "jupyter", "execute", "--timeout=120", notebook.name, cwd=notebook.parent)
    assert sys.version_info >= (3, 11)
