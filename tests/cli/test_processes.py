"""The real command in processes of its own: `python -m dbos`, `start` and `worker` with real signals."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from dbos import DBOSClient, run_dbos_database_migrations
from tests.waiting import eventually

ROOT = Path(__file__).parents[2]
Start = Callable[..., "subprocess.Popen[str]"]
LIMIT_SECONDS = 30

APP = """
import threading
from pathlib import Path
from dbos import DBOS

@DBOS.step()
def wait_for(file):
    Path("reached").touch()
    while not Path(file).exists():
        threading.Event().wait(0.01)
    return file

@DBOS.workflow()
def patient(file):
    return wait_for(file)
"""


@pytest.fixture
def start(tmp_path: Path) -> Iterator[Start]:
    """Start the command in a process of its own."""
    started: list[subprocess.Popen[str]] = []

    def make(*words: str, **environment: str) -> subprocess.Popen[str]:
        process = subprocess.Popen(
            [sys.executable, "-m", "dbos", *words],
            cwd=tmp_path,
            env={**os.environ, "PYTHONPATH": str(ROOT), **environment},
            text=True,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
        )
        started.append(process)
        return process

    yield make
    for process in started:
        with process:  # not to its pipes' end: what it started may have them still
            process.kill()


def ended(process: subprocess.Popen[str]) -> tuple[int, str, str]:
    out, err = process.communicate(timeout=LIMIT_SECONDS)
    return process.returncode, out, err


def test_from_a_template_to_a_listing(start: Start, tmp_path: Path) -> None:
    """What `init` writes runs as it is, and the command finds what it did."""
    code, said, _ = ended(start("init", "my-app"))
    ran = subprocess.run(
        [sys.executable, "-W", "error", "main.py"],
        cwd=tmp_path / "my-app",
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        check=True,
        capture_output=True,
        text=True,
    )
    listed = ended(start("workflow", "list", "--json", "-s", f"sqlite:///{tmp_path}/my-app/my_app.sqlite"))

    assert (0, True) == (code, "my-app/main.py" in said)
    assert "['Hello, Ada!', 'Hello, Grace!']\n" == ran.stdout
    assert (0, "") == listed[::2]
    assert ["SUCCESS"] == [each["status"] for each in json.loads(listed[1])]
    assert 1 == ended(start("init", "my-app"))[0]


def serving(start: Start, database: str, *more: str) -> subprocess.Popen[str]:
    worker = start("worker", "app.py", *more, DBOS_SYSTEM_DATABASE_URL=database)
    heard(worker, "serving app")
    return worker


def heard(worker: subprocess.Popen[str], part: str) -> None:
    """Wait until it has said that."""
    said = ""
    while part not in said:
        line = worker.stderr.readline()
        assert line, said
        said += line


def enqueue(database: str, workflow_id: str, file: str) -> None:
    with DBOSClient(system_database_url=database) as client:
        client.enqueue(
            {"workflow_name": "patient", "queue_name": "_dbos_internal_queue", "workflow_id": workflow_id}, file
        )


def test_a_worker_drains(start: Start, database: str, tmp_path: Path) -> None:
    """Told to end, it lets what runs finish, and ends well."""
    (tmp_path / "app.py").write_text(APP)
    drains(serving(start, database, "--drain", "20"), signal.SIGTERM, database, tmp_path)


def drains(process: subprocess.Popen[str], told: signal.Signals, database: str, folder: Path) -> None:
    enqueue(database, "w", "gate")
    eventually((folder / "reached").exists)
    process.send_signal(told)
    heard(process, "ending")
    (folder / "gate").touch()

    assert 0 == ended(process)[0]
    with DBOSClient(system_database_url=database) as client:
        assert "SUCCESS" == client.retrieve_workflow("w").get_status().status


def test_a_worker_hands_over(start: Start, tmp_path: Path) -> None:
    """What does not finish within the limit waits to be taken up by another worker, which need not wait for a lease."""
    database = f"sqlite:///{tmp_path}/w.sqlite"
    run_dbos_database_migrations(database)
    (tmp_path / "app.py").write_text(APP)
    worker = serving(start, database, "--drain", "0")
    enqueue(database, "w", "gate")
    eventually((tmp_path / "reached").exists)
    # Twice, as when the terminal and a program in between both pass on one Ctrl-C.
    worker.send_signal(signal.SIGINT)
    worker.send_signal(signal.SIGINT)
    assert 0 == ended(worker)[0]
    (tmp_path / "gate").touch()
    other = serving(start, database)

    with DBOSClient(system_database_url=database) as client:
        assert "gate" == client.retrieve_workflow("w").get_result()
    other.send_signal(signal.SIGTERM)
    assert 0 == ended(other)[0]


@pytest.fixture
def hangs_up() -> Iterator[None]:
    """Programs that are started are told of a terminal that closes, also where the tests themselves run under nohup."""
    before = signal.signal(signal.SIGHUP, signal.SIG_DFL)
    yield
    signal.signal(signal.SIGHUP, before)


@pytest.mark.usefixtures("hangs_up")
@pytest.mark.parametrize("words", [["worker"], ["start", "--", sys.executable, "-m", "dbos", "worker"]])
def test_a_terminal_that_closes_is_a_word_to_end(
    start: Start, sqlite_template: Path, tmp_path: Path, words: list[str]
) -> None:
    """Nobody is left alone in the world, and what runs may finish."""
    database = f"sqlite:///{shutil.copy(sqlite_template, tmp_path / 'w.sqlite')}"
    (tmp_path / "app.py").write_text(APP)
    process = start(*words, "app.py", DBOS_SYSTEM_DATABASE_URL=database)
    heard(process, "serving app")

    drains(process, signal.SIGHUP, database, tmp_path)


@pytest.mark.parametrize(
    ("closed", "words", "code"),
    [
        (0, ["workflow", "delete", "-", "--yes"], 1),
        (0, ["gc", "--keep", "0"], 0),
        (0, ["import", "-"], 1),
        (1, ["workflow", "list"], 0),
        (2, ["workflow", "get", "nobody"], 1),
    ],
)
def test_a_stream_may_be_closed(
    sqlite_template: Path, tmp_path: Path, closed: int, words: list[str], code: int
) -> None:
    """As by a program that starts others without one."""
    database = f"sqlite:///{shutil.copy(sqlite_template, tmp_path / 'w.sqlite')}"
    line = [sys.executable, "-m", "dbos", *words, "-s", database]
    run = f"import os; os.close({closed}); os.execv({sys.executable!r}, {line!r})"

    ran = subprocess.run([sys.executable, "-c", run], cwd=tmp_path, env={**os.environ, "PYTHONPATH": str(ROOT)},
                         capture_output=True, text=True, check=False)  # fmt: skip

    assert code == ran.returncode, ran.stderr
    assert "Traceback" not in ran.stderr


@pytest.mark.parametrize(
    ("words", "code", "reason"),
    [
        ([""], 2, "no name of a module"),
        (["nope"], 2, "there is no module 'nope'"),
        (["nope.py"], 2, "there is no file nope.py"),
        (["a.ipynb"], 2, "there is no file a.ipynb"),
        (["text.ipynb"], 2, "text.ipynb cannot be read"),
        (["own", "-s", "sqlite:///other.sqlite"], 2, "configures another database"),
        (["broken"], 1, "NameError"),
    ],
)
def test_what_a_worker_cannot_serve(start: Start, tmp_path: Path, words: list[str], code: int, reason: str) -> None:
    (tmp_path / "text.ipynb").write_text("no notebook")
    (tmp_path / "broken.py").write_text("oops\n")
    (tmp_path / "own.py").write_text("from dbos import DBOS\nDBOS(config={'name': 'own-app'})\n")

    found, out, err = ended(start("worker", *words))

    assert (code, "") == (found, out)
    assert reason in err


def test_start_ends_as_its_command_ends(start: Start) -> None:
    program = "import os, sys; print(os.environ['DBOS_SYSTEM_DATABASE_URL']); sys.exit(7)"

    assert (7, "sqlite:///x\n", "") == ended(start("start", "-s", "sqlite:///x", "--", sys.executable, "-c", program))


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_start_passes_signals_on(start: Start, number: signal.Signals) -> None:
    """To all that the command has started, and not only to a shell between."""
    program = f"{sys.executable} -c 'import signal; print(\"up\", flush=True); signal.pause()' 2>/dev/null; true"
    process = start("start", "--", "sh", "-c", program)
    assert "up\n" == process.stdout.readline()
    process.send_signal(number)

    code, _, err = ended(process)
    assert code in (128 + number, 0)
    assert "" == err


def test_a_reader_that_goes_away_is_no_error(start: Start) -> None:
    """As in `dbos ... | head -1`."""
    process = start("completion", "bash")
    process.stdout.close()

    assert "" == process.stderr.read()
    assert process.wait(LIMIT_SECONDS) in (0, 141)
