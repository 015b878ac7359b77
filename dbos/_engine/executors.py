"""Executors, and what is sent to them: another process or machine calls a function of ours.

What travels is the name of the function, where a module has it, and the function itself elsewhere: only executors that
pickle by value, such as Dask's, can send that. There is no workflow at the other end: operations of DBOS are refused
there.
"""

from __future__ import annotations

import asyncio
import inspect
import logging
import pickle
import sys
import threading
import uuid
from collections.abc import Callable
from concurrent.futures import Executor, Future, ThreadPoolExecutor
from importlib import import_module
from typing import Any, NamedTuple

from dbos._kernel.codec import survives
from dbos._kernel.scope import HERE, Elsewhere
from dbos.error import DBOSException

logger = logging.getLogger("dbos")

# An executor, or how to make one when the first step wants it.
ExecutorSource = Executor | Callable[[], Executor]


class Executors:
    """The executors that were made here: one for each callable, ended with the runtime. Users' own are left alone."""

    def __init__(self) -> None:
        self._made: dict[Callable[[], Executor], Executor] = {}
        self._lock = threading.Lock()

    def of(self, source: ExecutorSource) -> Executor:
        """The executor itself, or the one that this callable makes: asked once, and again after it broke."""
        if isinstance(source, Executor):
            return source
        with self._lock:
            executor = self._made.get(source)
            if executor is None:
                executor = self._made[source] = source()
            return executor

    def forget(self, executor: Executor) -> bool:
        """Have a broken executor made anew next time; False: it is not ours."""
        with self._lock:
            for source, made in self._made.items():
                if made is executor:
                    del self._made[source]
                    return True
        return False

    def close(self) -> None:
        with self._lock:
            made = list(self._made.values())
            self._made.clear()
        for executor in made:
            _shut_down(executor)


def _shut_down(executor: Executor) -> None:
    try:
        if isinstance(executor, ThreadPoolExecutor) or _is_process_pool(executor):
            executor.shutdown(wait=False, cancel_futures=True)
        else:
            executor.shutdown(wait=False)  # Dask's takes nothing else
    except Exception as error:  # noqa: BLE001 - what it reached may be gone; the runtime ends all the same
        logger.warning("An executor could not be shut down: %r", error)


def _is_process_pool(executor: Executor) -> bool:
    # Where there is one, its module is loaded; to load it for the question would bring all of multiprocessing.
    module = sys.modules.get("concurrent.futures.process")
    return module is not None and isinstance(executor, module.ProcessPoolExecutor)


class Parcel(NamedTuple):
    """What is to be called."""

    name: str
    fn: Callable[..., Any]
    args: tuple[Any, ...]
    kwargs: dict[str, Any]

    def send(self, executor: Executor) -> Future[Any]:
        if isinstance(executor, ThreadPoolExecutor):
            return executor.submit(_call, self.name, self.fn, self.args, self.kwargs)
        module = getattr(self.fn, "__module__", None)
        if _is_process_pool(executor):
            # Packed by us: what cannot be unpacked at the other end, or here, would break the whole pool.
            return executor.submit(_call_packed, self.name, self._packed())
        # By name too, except what the workers cannot import.
        target = (module != "__main__" and _name_of(self.fn)) or self.fn
        # Dask takes calls that look the same for one call, and would give a retry the failure that it follows.
        return executor.submit(_call, self.name, target, self.args, self.kwargs, uuid.uuid4().hex)

    def _packed(self) -> bytes:
        target = _name_of(self.fn) or self.fn
        try:
            pickle.dumps(target)
        except Exception as error:  # noqa: BLE001 - pickling runs user code, and may fail in any way
            raise DBOSException(
                f"The function of step {self.name} cannot be sent to another process ({error}). Define it at the top "
                "of a module, or use an executor that sends functions by value, such as Dask's."
            ) from None
        try:
            return pickle.dumps((target, self.args, self.kwargs))
        except Exception as error:  # noqa: BLE001 - as above
            raise DBOSException(
                f"The arguments of step {self.name} cannot be sent to another process: {error}"
            ) from None


# -- at the other end ------------------------------------------------------------------------------------------


class _Name(NamedTuple):
    """Where a function is found: in a module, and how far under its decorators."""

    module: str
    qualname: str
    depth: int

    def find(self) -> Callable[..., Any]:
        try:
            found: Any = import_module(self.module)
            for part in self.qualname.split("."):
                found = getattr(found, part)
        except (ImportError, AttributeError) as error:
            advice = (
                "Functions of a notebook or of an interactive session are not known to other processes: put it into "
                "a module, or use an executor that sends functions by value, such as Dask's."
                if self.module == "__main__"
                else "The worker must be able to import it."
            )
            raise DBOSException(
                f"There is no {self.module}.{self.qualname} in the worker ({error}). {advice}"
            ) from None
        for _ in range(self.depth):
            found = found.__wrapped__
        return found  # type: ignore[no-any-return]  # as it was when it was named


class Packed(NamedTuple):
    """A result on its way back."""

    content: bytes

    def unpacked(self, name: str) -> Any:
        try:
            return pickle.loads(self.content)  # noqa: S301 - from our own worker
        except Exception as error:
            raise DBOSException(f"What step {name} returned cannot be read here: {error!r}") from error


def _name_of(fn: Callable[..., Any]) -> _Name | None:
    """How another process finds this function; None where no module has it."""
    module, qualname = getattr(fn, "__module__", None), getattr(fn, "__qualname__", None)
    found: Any = sys.modules.get(module or "")
    if found is None or not module or not qualname:
        return None
    for part in qualname.split("."):
        found = getattr(found, part, None)
    depth = 0
    while found is not None and found is not fn:  # decorated, by us at least
        found = getattr(found, "__wrapped__", None)
        depth += 1
    return None if found is None else _Name(module, qualname, depth)


def _call_packed(name: str, packed: bytes) -> Packed:
    """Call what was sent to a process."""
    target, args, kwargs = pickle.loads(packed)  # noqa: S301 - from the process that made this one
    value = _call(name, target, args, kwargs)
    try:
        return Packed(pickle.dumps(value))
    except Exception as error:  # noqa: BLE001 - as above
        raise DBOSException(f"What step {name} returned cannot be sent back: {error}") from None


def _call(
    name: str, target: Callable[..., Any] | _Name, args: tuple[Any, ...], kwargs: dict[str, Any], _: str = ""
) -> Any:
    """Call what was sent, where no workflow is. The last argument makes this call another than any before."""
    fn = target.find() if isinstance(target, _Name) else target
    token = HERE.set(Elsewhere(name))
    try:
        value = fn(*args, **kwargs)
        return asyncio.run(value) if inspect.iscoroutine(value) else value
    except Exception as error:  # noqa: BLE001 - whatever it is, it belongs to the workflow
        raise survives(error) from error.__cause__
    finally:
        HERE.reset(token)
