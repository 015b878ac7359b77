"""The programs that are measured, each run in a fresh process: `python -I scenarios.py NAME URL [COUNT]`.
They are written against the public API alone and import nothing of ours, so that the interpreter decides which
package they measure. The last line of stdout is what was measured, as JSON.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import signal
import statistics
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import dbos
from dbos import DBOS, DBOSConfig, SetWorkflowID


@dataclass(frozen=True)
class Size:
    """How many steps, workflows or rows each side is given; None: that side is not measured."""

    ours: int
    peer: int | None = None
    floor: int | None = None
    databases: tuple[str, ...] = ("sqlite", "postgres")


# The peer is given less only where a rate is compared that does not depend on how many there are.
SIZES = {
    "sequential": Size(ours=1_500, peer=400, floor=1_500),  # steps
    "concurrent": Size(ours=200, peer=200),  # workflows
    "async": Size(ours=200, peer=200),  # workflows
    "sleepers": Size(ours=1_000, peer=1_000),  # workflows
    "long": Size(ours=2_000, peer=2_000, floor=2_000),  # steps
    "growth": Size(ours=20_000),  # steps
    "fork": Size(ours=2_000, peer=2_000),  # steps
    "recovery": Size(ours=1_000, databases=("sqlite",)),  # workflows
    "round trip": Size(ours=300, peer=10),  # messages to and fro
    "stream": Size(ours=2_000, peer=200),  # values
    "live reader": Size(ours=100, peer=20),  # values
    "enqueue": Size(ours=1_000, peer=300),  # workflows
    "drain": Size(ours=500, peer=500),  # workflows
    "queue": Size(ours=100, peer=5),  # workflows
    "fan-out": Size(ours=300, peer=50),  # children
    "idle": Size(ours=5, peer=5),  # seconds
}
STEPS_CONCURRENT, STEPS_ASYNC, STEPS_RECOVERED, QUEUE = 10, 5, 10, "bench"
SLEEP_SECONDS = 1.0
WARM_UP = 100
LIMIT_SECONDS = 100.0
# Between two values that a live reader waits for: long enough for it to wait.
LIVE_PAUSE_SECONDS = 0.03


@dataclass(frozen=True)
class Measured:
    name: str
    value: float
    unit: str


# -- the workflows ---------------------------------------------------------------------------------------------


@DBOS.step()
def step(number: int) -> int:
    return number


@DBOS.workflow()
def sequence(count: int) -> int:
    for number in range(count):
        step(number)
    return count


@DBOS.step()
async def async_step(number: int) -> int:
    return number


@DBOS.workflow()
async def async_sequence(count: int) -> int:
    for number in range(count):
        await async_step(number)
    return count


@DBOS.workflow()
async def sleeper(seconds: float) -> None:
    await DBOS.sleep_async(seconds)


@DBOS.workflow()
def paced(count: int, pace: int) -> list[float]:
    """The seconds that each `pace` of its steps took."""
    windows = []
    for begin in range(0, count, pace):
        windows.append(seconds_of(lambda: [step(number) for number in range(begin, begin + pace)]))
    return windows


@DBOS.workflow()
def echo(other: str, count: int) -> None:
    for _ in range(count):
        DBOS.send(other, DBOS.recv("to", LIMIT_SECONDS), "fro")


@DBOS.workflow()
def call_and_hear(other: str, count: int) -> float:
    """The seconds of a message to the other workflow and back, at the median."""
    taken = []
    for number in range(count):
        began = time.perf_counter()
        DBOS.send(other, number, "to")
        assert number == DBOS.recv("fro", LIMIT_SECONDS)
        taken.append(time.perf_counter() - began)
    return statistics.median(taken)


@DBOS.workflow()
def write_values(count: int) -> None:
    for number in range(count):
        DBOS.write_stream("values", number)


@DBOS.workflow()
def write_moments(count: int) -> None:
    for _ in range(count):
        gate.wait(LIVE_PAUSE_SECONDS)
        DBOS.write_stream("moments", time.time())
    DBOS.close_stream("moments")


# Only the process that recovers opens it.
gate = threading.Event()
begun: list[int] = []


@DBOS.step()
def gated_step(number: int) -> int:
    begun.append(number)
    if number == STEPS_RECOVERED // 2:
        assert gate.wait(LIMIT_SECONDS), "neither killed nor let through"
    return number


@DBOS.workflow()
def gated_sequence(count: int) -> int:
    for number in range(count):
        gated_step(number)
    return count


@DBOS.workflow()
def one_step(number: int) -> int:
    return step(number)


@DBOS.workflow()
def fanning_out(count: int) -> int:
    handles = [DBOS.enqueue_workflow(QUEUE, one_step, number) for number in range(count)]
    return sum(handle.get_result() for handle in handles)


# -- measuring -------------------------------------------------------------------------------------------------


def seconds_of(body: Callable[[], Any]) -> float:
    began = time.perf_counter()
    body()
    return time.perf_counter() - began


def median_rate(count: int, body: Callable[[], Any], enough_seconds: float = 1.0) -> float:
    """How many a second, when `body` does `count`; what is fast is repeated, for a short run is mostly noise."""
    # One whole run is for nothing, on every side: else only the fast ones would be measured warm.
    body()
    taken: list[float] = []
    while sum(taken) < enough_seconds:
        taken.append(seconds_of(body))
    return count / statistics.median(taken)


@contextlib.contextmanager
def launched(url: str, *, serves: bool = True) -> Iterator[None]:
    configure(url)
    if not serves:
        DBOS.listen_queues(["another"])
    DBOS.launch()
    try:
        yield
    finally:
        DBOS.destroy()


def configure(url: str) -> None:
    config: DBOSConfig = {
        "name": "bench-app",
        "system_database_url": url,
        "application_version": "1",
        "log_level": "ERROR",
        "run_admin_server": False,
    }
    DBOS(config=config)


# -- the scenarios ---------------------------------------------------------------------------------------------


def sequential(url: str, count: int) -> list[Measured]:
    """One workflow, called directly, of trivial steps one after another."""
    with launched(url):
        return [Measured("sequential", median_rate(count, lambda: sequence(count)), "steps/s")]


def concurrent(url: str, count: int) -> list[Measured]:
    """Sync workflows that are all started, and then all awaited."""

    def run() -> None:
        handles = [DBOS.start_workflow(sequence, STEPS_CONCURRENT) for _ in range(count)]
        assert [STEPS_CONCURRENT] * count == [handle.get_result() for handle in handles]

    with launched(url):
        return [Measured("concurrent", median_rate(count * STEPS_CONCURRENT, run), "steps/s")]


def concurrent_async(url: str, count: int) -> list[Measured]:
    """Async workflows that are started one after another on one loop, and then all awaited."""

    async def run() -> None:
        handles = [await DBOS.start_workflow_async(async_sequence, STEPS_ASYNC) for _ in range(count)]
        results = await asyncio.gather(*[handle.get_result() for handle in handles])
        assert [STEPS_ASYNC] * count == list(results)

    with launched(url), asyncio.Runner() as loop:
        return [Measured("async", median_rate(count * STEPS_ASYNC, lambda: loop.run(run())), "steps/s")]


def sleepers(url: str, count: int) -> list[Measured]:
    """Async workflows that all sleep at once."""

    async def run(count: int, seconds: float) -> None:
        starts = [DBOS.start_workflow_async(sleeper, seconds) for _ in range(count)]
        handles = await asyncio.gather(*starts)
        await asyncio.gather(*[handle.get_result() for handle in handles])

    with launched(url), asyncio.Runner() as loop:
        loop.run(run(WARM_UP, 0.01))
        taken = seconds_of(lambda: loop.run(run(count, SLEEP_SECONDS)))
    return [
        Measured("sleepers", count / taken, "workflows/s"),
        Measured("sleepers: beyond their sleep", taken - SLEEP_SECONDS, "s"),
    ]


def long(url: str, count: int) -> list[Measured]:
    """One workflow of many steps, started in the background."""

    def run() -> None:
        assert count == DBOS.start_workflow(sequence, count).get_result()

    with launched(url):
        return [Measured("long", median_rate(count, run), "steps/s")]


def growth(url: str, count: int) -> list[Measured]:
    """What a step costs at the end of a very long workflow, divided by what it costs in one of a thousand."""
    pace = count // 20
    with launched(url):
        paced(WARM_UP, WARM_UP)
        # Short ones on both sides of the long one, so that a machine that slows down is not taken for growth.
        before = [paced(pace, pace)[0] for _ in range(3)]
        late = paced(count, pace)[-5:]
        after = [paced(pace, pace)[0] for _ in range(3)]
    return [Measured("growth", statistics.median(late) / statistics.median(before + after), "times")]


def fork(url: str, count: int) -> list[Measured]:
    """A finished workflow, run once more from its last step."""

    def run(workflow_id: str, last: int) -> None:
        assert last == DBOS.fork_workflow(workflow_id, last).get_result()

    with launched(url):
        for workflow_id, steps in (("short", WARM_UP), ("whole", count)):
            with SetWorkflowID(workflow_id):
                sequence(steps)
        run("short", WARM_UP)
        taken = [seconds_of(lambda: run("whole", count)) for _ in range(3)]
    return [Measured("fork", statistics.median(taken) * 1_000, "ms")]


def recovery(url: str, count: int) -> list[Measured]:
    """From launch to the end of all workflows whose process was killed when each was half done."""
    leave_half_done(url, count)
    gate.set()

    def recover() -> None:
        DBOS.launch()
        handles = [DBOS.retrieve_workflow(f"half-{number}") for number in range(count)]
        assert [STEPS_RECOVERED] * count == [handle.get_result() for handle in handles]

    configure(url)
    try:
        taken = seconds_of(recover)
    finally:
        DBOS.destroy()
    # What was recorded is not run again, or this measured another thing than recovery.
    assert count * (STEPS_RECOVERED // 2) == len(begun)
    assert STEPS_RECOVERED // 2 == min(begun)
    return [Measured("recovery", count / taken, "workflows/s")]


def leave_half_done(url: str, count: int) -> None:
    """Start the workflows in a process of its own, and kill it as soon as all wait in the middle."""
    command = [sys.executable, "-I", __file__, "half_done", url, str(count)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as victim:
        assert victim.stdout is not None
        try:
            assert any(line.strip() == "half done" for line in victim.stdout), "the first process failed"
        finally:
            victim.send_signal(signal.SIGKILL)


def half_done(url: str, count: int) -> list[Measured]:
    """The victim of `recovery`: says when every workflow is in the middle, and waits for its end."""
    configure(url)
    DBOS.launch()
    for number in range(count):
        with SetWorkflowID(f"half-{number}"):
            DBOS.start_workflow(gated_sequence, STEPS_RECOVERED)
    until = time.monotonic() + LIMIT_SECONDS
    # A step begins only after those before it are recorded.
    while begun.count(STEPS_RECOVERED // 2) < count:
        assert time.monotonic() < until, f"{len(begun)} steps after {LIMIT_SECONDS} seconds"
        gate.wait(0.01)
    print("half done", flush=True)
    gate.wait(LIMIT_SECONDS)
    raise AssertionError("nobody killed this process")


def round_trip(url: str, count: int) -> list[Measured]:
    """A message from one workflow to another, and one back, each as soon as the other was heard."""

    def run(name: str, count: int) -> float:
        with SetWorkflowID(f"{name}-echo"):
            other = DBOS.start_workflow(echo, f"{name}-call", count)
        with SetWorkflowID(f"{name}-call"):
            taken = call_and_hear(f"{name}-echo", count)
        other.get_result()
        return taken

    with launched(url):
        run("warm", 3)
        return [Measured("round trip", run("measured", count) * 1_000, "ms")]


def stream(url: str, count: int) -> list[Measured]:
    """A workflow that writes values to a stream, one after another."""
    with launched(url):
        return [Measured("stream", median_rate(count, lambda: write_values(count)), "values/s")]


def live_reader(url: str, count: int) -> list[Measured]:
    """How old a value of a stream is when a reader in another process has it."""
    with launched(url):
        command = [sys.executable, "-I", __file__, "live_writer", url, str(count)]
        with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as writer:
            assert writer.stdout is not None
            assert any(line.strip() == "writing" for line in writer.stdout), "the writer failed"
            ages = [time.time() - moment for moment in DBOS.read_stream("live", "moments")]
            writer.communicate()
    assert count == len(ages)
    return [Measured("live reader", statistics.median(ages) * 1_000, "ms")]


def live_writer(url: str, count: int) -> list[Measured]:
    """The other process of `live_reader`."""
    with launched(url):
        with SetWorkflowID("live"):
            handle = DBOS.start_workflow(write_moments, count)
        print("writing", flush=True)
        handle.get_result()
    return [Measured("live writer", 0, "ms")]


def enqueue(url: str, count: int) -> list[Measured]:
    """Workflows put on a queue, one after another; nobody takes them."""
    with launched(url, serves=False):
        DBOS.register_queue(QUEUE)
        rate = median_rate(count, lambda: [DBOS.enqueue_workflow(QUEUE, one_step, number) for number in range(count)])
        return [Measured("enqueue", rate, "workflows/s")]


def drain(url: str, count: int) -> list[Measured]:
    """From launch to the end of all workflows that another process has put on a queue."""
    subprocess.run([sys.executable, "-I", __file__, "filled", url, str(count)], check=True, stdout=subprocess.DEVNULL)

    def drained() -> None:
        DBOS.launch()
        handles = [DBOS.retrieve_workflow(f"queued-{number}") for number in range(count)]
        assert list(range(count)) == [handle.get_result() for handle in handles]

    configure(url)
    try:
        return [Measured("drain", count / seconds_of(drained), "workflows/s")]
    finally:
        DBOS.destroy()


def filled(url: str, count: int) -> list[Measured]:
    """The other process of `drain`."""
    with launched(url, serves=False):
        DBOS.register_queue(QUEUE)
        for number in range(count):
            with SetWorkflowID(f"queued-{number}"):
                DBOS.enqueue_workflow(QUEUE, one_step, number)
    return [Measured("filled", count, "workflows")]


def queue(url: str, count: int) -> list[Measured]:
    """From enqueueing a workflow to its result, here and by a client in another process."""
    with launched(url):
        DBOS.register_queue(QUEUE)
        DBOS.enqueue_workflow(QUEUE, one_step, 0).get_result()
        taken = [seconds_of(lambda: DBOS.enqueue_workflow(QUEUE, one_step, 1).get_result()) for _ in range(count)]
        asked = subprocess.check_output([sys.executable, "-I", __file__, "asking", url, str(count)], text=True)
    here = Measured("queue", statistics.median(taken) * 1_000, "ms")
    return [here, Measured("queue: from a client", json.loads(asked.splitlines()[-1])["value"], "ms")]


def asking(url: str, count: int) -> list[Measured]:
    """The client of `queue`."""
    client = dbos.DBOSClient(system_database_url=url)
    options: dbos.EnqueueOptions = {"workflow_name": "one_step", "queue_name": QUEUE, "app_version": "1"}
    client.enqueue(options, 0).get_result()
    taken = [seconds_of(lambda: client.enqueue(options, 1).get_result()) for _ in range(count)]
    client.destroy()
    return [Measured("asking", statistics.median(taken) * 1_000, "ms")]


def fan_out(url: str, count: int) -> list[Measured]:
    """A workflow that puts children on a queue and waits for all of them."""
    with launched(url):
        DBOS.register_queue(QUEUE)
        return [Measured("fan-out", median_rate(count, lambda: fanning_out(count)), "children/s")]


def idle(url: str, seconds: int) -> list[Measured]:
    """What a process with ten queues and nothing to do uses of a core."""
    with launched(url):
        for number in range(10):
            DBOS.register_queue(f"{QUEUE}-{number}")
        gate.wait(2)  # for what follows a launch
        before = time.process_time()
        gate.wait(seconds)
        return [Measured("idle", (time.process_time() - before) / seconds * 100, "%")]


PROGRAMS = {
    "sequential": sequential,
    "concurrent": concurrent,
    "async": concurrent_async,
    "sleepers": sleepers,
    "long": long,
    "growth": growth,
    "fork": fork,
    "recovery": recovery,
    "half_done": half_done,
    "round trip": round_trip,
    "stream": stream,
    "live reader": live_reader,
    "live_writer": live_writer,
    "enqueue": enqueue,
    "drain": drain,
    "filled": filled,
    "queue": queue,
    "asking": asking,
    "fan-out": fan_out,
    "idle": idle,
}


def line_of(first: Measured, *others: Measured) -> str:
    """The last line of stdout: the first measurement, the others, and which package was measured."""
    return json.dumps({**vars(first), "also": [vars(each) for each in others], "package": dbos.__file__})


if __name__ == "__main__":
    name, url, *count = sys.argv[1:]
    measured = PROGRAMS[name](url, int(count[0]) if count else SIZES[name].ours)
    print(line_of(*measured), flush=True)
