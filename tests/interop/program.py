"""A process of ours or of another package, which does what it is told by JSON lines: an application, a client, or both.

It runs in any of the environments, so it uses only what all the packages have, and nothing of the tests.
"""

import json
import os
import sys
import time
from pathlib import Path

# What a package prints is not an answer.
answers = os.fdopen(os.dup(1), "w", buffering=1)
os.dup2(os.open(os.devnull, os.O_WRONLY), 1)

from dbos import DBOS, DBOSClient, SetWorkflowID, WorkflowSerializationFormat  # noqa: E402

QUEUE = "interop"


@DBOS.step(name="note")
def note(file, x):
    with Path(file).open("a") as out:
        out.write(f"{x}\n")
    return x


@DBOS.step(name="pass_gate")
def pass_gate(gate):
    while not Path(gate).exists():
        time.sleep(0.01)  # noqa: TID251 - in whatever package


@DBOS.workflow(name="gated")
def gated(file, gate):
    first = note(file, 1)
    pass_gate(gate)
    return first + note(file, 2)


@DBOS.workflow(name="parent")
def parent(file, gate):
    DBOS.set_event("at", "gate")
    DBOS.write_stream("s", 1)
    handle = DBOS.start_workflow(echo, 5)
    result = gated(file, gate)
    DBOS.sleep(0.01)
    DBOS.write_stream("s", 2)
    return [result, handle.get_result()["args"][0], DBOS.recv("late", 60)]


@DBOS.workflow(name="echo")
def echo(*args, **kwargs):
    return {"args": list(args), "kwargs": kwargs}


@DBOS.workflow(name="fails")
def fails(text):
    raise ValueError(text)


@DBOS.workflow(name="talks")
def talks():
    DBOS.set_event("ready", {"a": [1]})
    received = [DBOS.recv("t", 60), DBOS.recv(None, 60)]
    DBOS.write_stream("s", 1)
    DBOS.write_stream("s", {"b": None})
    DBOS.close_stream("s")
    return received


clients = []


def launch(url, executor_id="local", version="v1"):
    late = False
    try:
        from dbos import Queue

        Queue(QUEUE)
    except Exception:  # a later release keeps queues in the database
        late = True
    DBOS(
        config={
            "name": "interop",
            "system_database_url": url,
            "executor_id": executor_id,
            "application_version": version,
            "run_admin_server": False,
        }
    )
    DBOS.launch()
    if late:
        DBOS.register_queue(QUEUE)


def connect(url):
    clients.append(DBOSClient(system_database_url=url))


def start(name, workflow_id, args):
    with SetWorkflowID(workflow_id):
        DBOS.start_workflow(globals()[name], *args)


def enqueue(name, args=(), kwargs=None, portable=True, **options):
    options = {"workflow_name": name, "queue_name": QUEUE, **options}
    if portable:
        options["serialization_type"] = WorkflowSerializationFormat.PORTABLE
    return clients[0].enqueue(options, *args, **(kwargs or {})).workflow_id


def result(workflow_id):
    return clients[0].retrieve_workflow(workflow_id).get_result()


def application_result(workflow_id):
    return DBOS.retrieve_workflow(workflow_id).get_result()


def status(workflow_id):
    found = clients[0].retrieve_workflow(workflow_id).get_status()
    return {"status": found.status, "name": found.name, "executor_id": found.executor_id, "output": found.output}


def steps(workflow_id):
    return [[each["function_id"], each["function_name"]] for each in clients[0].list_workflow_steps(workflow_id)]


def send(workflow_id, message, topic=None, key=None, portable=True):
    choice = {"serialization_type": WorkflowSerializationFormat.PORTABLE} if portable else {}
    clients[0].send(workflow_id, message, topic, key, **choice)


def event(workflow_id, key, seconds=20):
    return clients[0].get_event(workflow_id, key, seconds)


def stream(workflow_id, key):
    return list(clients[0].read_stream(workflow_id, key))


def listed(**wanted):
    return sorted(each.workflow_id for each in clients[0].list_workflows(**wanted))


def cancel(workflow_id):
    clients[0].cancel_workflow(workflow_id)


def resume(workflow_id):
    return clients[0].resume_workflow(workflow_id).workflow_id


def fork(workflow_id, step):
    return clients[0].fork_workflow(workflow_id, step).workflow_id


def end():
    for client in clients:
        client.destroy()
    DBOS.destroy()


def main():
    for line in sys.stdin:
        asked = json.loads(line)
        try:
            value = globals()[asked.pop("do")](**asked)
            answer = {"value": value}
        except Exception as error:
            answer = {"error": type(error).__name__, "text": str(error)}
        answers.write(json.dumps(answer, default=repr) + "\n")
        answers.flush()


if __name__ == "__main__":
    main()
