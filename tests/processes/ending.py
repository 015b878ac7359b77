"""Programs that are told to end, or that fork. python -m tests.processes.ending NAME URL

drains URL SECONDS      serves until SIGTERM, with `DBOS.drain_on_signals`
forks URL               forks in every way after its launch, and tells what each child met
"""

from __future__ import annotations

import atexit
import json
import multiprocessing
import os
import sys
import threading
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

from dbos import DBOS, DBOSClient, SetWorkflowID
from tests.waiting import eventually


@DBOS.step(name="wait_for")
def wait_for(reached: str, gate: str) -> str:
    Path(reached).touch()
    eventually(Path(gate).exists, 60)
    return "over"


@DBOS.workflow(name="patient")
def patient(reached: str, gate: str) -> str:
    return wait_for(reached, gate)


@DBOS.step(name="leaf")
def leaf(x: int) -> int:
    return x + 1


@DBOS.workflow(name="quick")
def quick(x: int) -> int:
    return leaf(x)


@DBOS.step(name="fork_inside")
def fork_inside() -> str:
    return in_child(lambda: DBOS.list_workflows())


@DBOS.workflow(name="forking")
def forking() -> tuple[str, int]:
    told = fork_inside()
    if DBOS.workflow_id is not None and (child := os.fork()) == 0:
        # A child that goes on in the parent's workflow: its next step must not begin.
        try:
            leaf(1)
        finally:
            os._exit(7)
    _, status = os.waitpid(child, 0)
    return told, os.waitstatus_to_exitcode(status) + leaf(0) * 0


def launch(url: str, **more: Any) -> None:
    config = {"name": "ending", "system_database_url": url, "application_version": "v1", "log_level": "CRITICAL"}
    DBOS(config={**config, "run_admin_server": False, **more})  # type: ignore[typeddict-item]
    DBOS.launch()


def tell(**facts: Any) -> None:
    print(json.dumps(facts), flush=True)


def drains(url: str, seconds: str) -> None:
    launch(url)
    DBOS.drain_on_signals(float(seconds))
    atexit.register(lambda: tell(at_exit=True))
    tell(ready=True)
    try:
        eventually(lambda: not claims(), 600)
        tell(claims=False)
        threading.Event().wait()
    finally:
        tell(finally_ran=True)


def claims() -> bool:
    return any(thread.name == "dbos-dispatcher" for thread in threading.enumerate())


def in_child(act: Callable[[], Any]) -> str:
    """What an act comes to in a child, told through a pipe; the child ends as a program does that knows nothing."""
    out, into = os.pipe()
    child = os.fork()
    if child == 0:
        os.close(out)
        try:
            said = repr(act())
        except BaseException as error:
            said = f"{type(error).__name__}: {error}"
        os.write(into, said.encode())
        os.close(into)
        os._exit(0)
    os.close(into)
    with os.fdopen(out) as reader:
        said = reader.read()
    os.waitpid(child, 0)
    return said


def anew(url: str) -> Any:
    launch(url)
    with SetWorkflowID("in-child"):
        found = quick(5), DBOS.get_workflow_status("w").status
    DBOS.destroy()
    return found


def client(url: str) -> Any:
    with DBOSClient(system_database_url=url) as made:
        return len(made.list_workflows())


def forks(url: str, elsewhere: str) -> None:
    launch(url)
    with SetWorkflowID("w"):
        quick(1)
    with DBOSClient(system_database_url=url) as parents:
        parents.list_workflows()
        acts: dict[str, Callable[[], Any]] = {
            "list": DBOS.list_workflows,
            "workflow": lambda: quick(2),
            "start": lambda: DBOS.start_workflow(quick, 2),
            "handle": lambda: DBOS.retrieve_workflow("w"),
            "launch": DBOS.launch,
            "destroy": DBOS.destroy,
            "parents_client": parents.list_workflows,
            "step": lambda: leaf(1),
            "anew": lambda: anew(url),
            "anew_elsewhere": lambda: anew_elsewhere(elsewhere),
            "client": lambda: client(url),
        }
        told = {name: in_child(act) for name, act in acts.items()}
        with multiprocessing.get_context("fork").Pool(2) as pool:
            told["pool"] = repr(pool.map(square, [1, 2, 3]))
        # A child that ends by the interpreter's whole ceremony, which takes everything down.
        if (ending := os.fork()) == 0:
            sys.exit(0)
        os.waitpid(ending, 0)
        assert parents.list_workflows()
    with SetWorkflowID("f"):
        told["inside"], told["goes_on"] = forking()
    with SetWorkflowID("after"):
        told["after"] = quick(9)
    told["steps"] = [step["function_name"] for step in DBOS.list_workflow_steps("f")]
    DBOS.destroy()
    tell(**told)


def anew_elsewhere(url: str) -> Any:
    launch(url)
    value = quick(5)
    DBOS.destroy()
    return value


def square(x: int) -> int:
    return x * x


if __name__ == "__main__":
    # From 3.12 on Python warns of what is looked at here: forks beside threads.
    warnings.filterwarnings("ignore", "This process .* is multi-threaded", DeprecationWarning)
    {"drains": drains, "forks": forks}[sys.argv[1]](*sys.argv[2:])
