"""Plans, effects, and the two hands that perform them.

A plan is an `async def` that is one durable operation. It awaits effects and nothing else; awaiting one hands
it to whoever drives the plan. The sync hand (`run`) performs effects by blocking, the async hand (`arun`) by
awaiting: effects are the only place where the two colours differ, so no operation is written twice.

An `Op` is a plan with a name. `op.pair(ambient)` makes the public method and its `_async` twin from it.
"""

from __future__ import annotations

import asyncio
import functools
import inspect
from abc import ABC, abstractmethod
from collections.abc import Callable, Coroutine, Generator
from typing import Any, Concatenate, Generic, Literal, ParamSpec, TypeVar

from dbos._kernel.extension import installed
from dbos._kernel.trace import operation

T = TypeVar("T")
H = TypeVar("H")
P = ParamSpec("P")
R = TypeVar("R")
A = TypeVar("A")
B = TypeVar("B")
C = TypeVar("C")

Plan = Coroutine["Effect[Any]", Any, R]


class Effect(ABC, Generic[T]):
    """Something that only a hand may do."""

    __slots__ = ()

    def __await__(self) -> Generator[Effect[T], T, T]:
        return (yield self)

    @abstractmethod
    def block(self) -> T:
        """Perform it in this thread."""

    @abstractmethod
    async def wait(self) -> T:
        """Perform it without holding this thread."""


# Told of every effect before and after it is performed. Tests kill a runtime at such a moment; None costs nothing.
Probe = Callable[[Effect[Any], Literal["before", "after"]], None]
_probe: Probe | None = None


def set_probe(probe: Probe | None) -> None:
    """Let a test watch, or interrupt, every effect."""
    global _probe  # noqa: PLW0603 - one switch for the whole process, off outside tests
    _probe = probe


def perform(effect: Effect[T]) -> T:
    """Perform one effect in this thread."""
    if _probe is None:
        return effect.block()
    _probe(effect, "before")
    value = effect.block()
    _probe(effect, "after")
    return value


def run(plan: Coroutine[Any, Any, R]) -> R:
    """The sync hand: perform the plan's effects in this thread."""
    try:
        effect = plan.send(None)
        while True:
            try:
                value = effect.block() if _probe is None else perform(effect)
            except BaseException as error:  # noqa: BLE001 - whatever it is, it belongs to the plan
                effect = plan.throw(error)
            else:
                effect = plan.send(value)
    except StopIteration as done:
        return done.value  # type: ignore[no-any-return]  # StopIteration is untyped


async def arun(plan: Coroutine[Any, Any, R]) -> R:
    """The async hand: perform the plan's effects without holding the event loop's thread."""
    try:
        effect = plan.send(None)
        while True:
            try:
                if _probe is None:
                    value = await effect.wait()
                else:
                    _probe(effect, "before")
                    value = await effect.wait()
                    _probe(effect, "after")
            except BaseException as error:  # noqa: BLE001 - whatever it is, it belongs to the plan
                effect = plan.throw(error)
            else:
                effect = plan.send(value)
    except StopIteration as done:
        return done.value  # type: ignore[no-any-return]  # StopIteration is untyped


def loop_is_running() -> bool:
    """Whether this thread is inside an event loop, where blocking would stall everybody."""
    return running_loop() is not None


def running_loop() -> asyncio.AbstractEventLoop | None:
    """The event loop that this thread is inside of."""
    return asyncio._get_running_loop()  # noqa: SLF001 - the documented form raises; this is hot


def refuse_to_block(name: str) -> None:
    """The one rule about sync calls inside a running event loop, unless an extension sees to that."""
    if loop_is_running() and installed() is None:
        raise RuntimeError(f"{name}() was called while an event loop is running. Use await {name}_async(...) instead.")


def _same(value: R) -> R:
    return value


Methods = tuple[Callable[Concatenate[C, P], A], Callable[Concatenate[C, P], Coroutine[Any, Any, B]]]


def in_its_colour(fn: Callable[..., Any], is_async: bool, plan: Callable[..., Any]) -> Callable[..., Any]:
    """The plan as a function that looks like the user's."""
    if is_async:

        @functools.wraps(fn)
        async def call_async(*args: Any, **kwargs: Any) -> Any:
            return await arun(plan(args, kwargs))

        return call_async

    @functools.wraps(fn)
    def call_sync(*args: Any, **kwargs: Any) -> Any:
        return run(plan(args, kwargs))

    return call_sync


class Op(Generic[H, P, R]):
    """A plan under its name; the faces make methods of it, tests walk over `every`."""

    every: list[Op[Any, ..., Any]] = []  # noqa: RUF012 - the one list of all operations

    def __init__(self, plan: Callable[Concatenate[H, P], Coroutine[Any, Any, R]], title: str, blocks: bool) -> None:
        self.plan, self.title, self.blocks = plan, title, blocks
        self.name = plan.__name__
        Op.every.append(self)

    @property
    def doc(self) -> str:
        return inspect.getdoc(self.plan) or ""

    def pair(self, ambient: Callable[[], H]) -> tuple[staticmethod[P, R], staticmethod[P, Coroutine[Any, Any, R]]]:
        """The method and its `_async` twin, for a face that knows by itself where it is called."""
        return self.pair_as(ambient, _same, _same)

    def pair_as(
        self, ambient: Callable[[], H], wrap: Callable[[R], A], wrap_async: Callable[[R], B]
    ) -> tuple[staticmethod[P, A], staticmethod[P, Coroutine[Any, Any, B]]]:
        """The same for a result that has a colour itself, like a handle."""
        plan, name, title, blocks = self.plan, self.name, self.title, self.blocks

        def call(*args: P.args, **kwargs: P.kwargs) -> A:
            if not blocks:
                refuse_to_block(name)
            place = ambient()
            with operation(title, place):
                return wrap(run(plan(place, *args, **kwargs)))

        async def call_async(*args: P.args, **kwargs: P.kwargs) -> B:
            place = ambient()
            with operation(title, place):
                return wrap_async(await arun(plan(place, *args, **kwargs)))

        self._dress(call, name)
        self._dress(call_async, f"{name}_async")
        return staticmethod(call), staticmethod(call_async)

    def methods(self, place: Callable[[C], Coroutine[Any, Any, H]]) -> Methods[C, P, R, R]:
        """The method and its `_async` twin for a class whose instances know their place, such as a client.

        `place` is a plan itself, because a client may have to connect first. The sync form is allowed inside a
        running event loop, and blocks it.
        """
        return self.methods_as(place, _same, _same)

    def methods_as(
        self, place: Callable[[C], Coroutine[Any, Any, H]], wrap: Callable[[R], A], wrap_async: Callable[[R], B]
    ) -> Methods[C, P, A, B]:
        """The same for a result that has a colour itself, like a handle."""
        plan, name = self.plan, self.name

        async def placed(client: C, /, *args: P.args, **kwargs: P.kwargs) -> R:
            return await plan(await place(client), *args, **kwargs)

        def call(self: C, /, *args: P.args, **kwargs: P.kwargs) -> A:
            return wrap(run(placed(self, *args, **kwargs)))

        async def call_async(self: C, /, *args: P.args, **kwargs: P.kwargs) -> B:
            return wrap_async(await arun(placed(self, *args, **kwargs)))

        itself = inspect.Parameter("self", inspect.Parameter.POSITIONAL_ONLY)
        self._dress(call, name, itself)
        self._dress(call_async, f"{name}_async", itself)
        return call, call_async

    def _dress(self, call: Callable[..., Any], name: str, *first: inspect.Parameter) -> None:
        """Give the method the plan's documentation, and its signature without the place it is called from."""
        functools.update_wrapper(call, self.plan)
        call.__name__ = call.__qualname__ = name
        signature = inspect.signature(self.plan)
        _, *rest = signature.parameters.values()
        call.__signature__ = signature.replace(parameters=[*first, *rest])  # type: ignore[attr-defined]  # functions allow it
        del call.__wrapped__  # type: ignore[attr-defined]  # whoever unwraps would find a plan, with its place first


def op(
    title: str, *, blocks: bool = False
) -> Callable[[Callable[Concatenate[H, P], Coroutine[Any, Any, R]]], Op[H, P, R]]:
    """Make an operation of a plan. `blocks` allows its sync form inside a running event loop."""

    def make(plan: Callable[Concatenate[H, P], Coroutine[Any, Any, R]]) -> Op[H, P, R]:
        return Op(plan, title, blocks)

    return make
