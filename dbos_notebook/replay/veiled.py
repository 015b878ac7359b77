"""Errors, and what is printed, of code that runs on the recorded values where fields of them are hidden.

The variables of a frame cannot be replaced. So each frame that `%debug` could open gets a stand-in: code of the same
name at the same line of the same file, that raises with the masked variables around it.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager, redirect_stderr, redirect_stdout, suppress
from types import TracebackType
from typing import Any, TextIO

from dbos_notebook.masking import Mask

RAISED = "__raised__"
# Of a chain of errors no more are looked at.
MOST_ERRORS = 10


def veiled_error(
    error: BaseException,
    mask: Mask,
    frames: Callable[[TracebackType | None], Iterable[TracebackType]],
    most: int = MOST_ERRORS,
) -> BaseException:
    """The error in a copy without what is hidden, its traceback of stand-ins for the frames that `frames` chooses."""
    made = _copy(error, mask)
    for name, inner in (("__cause__", error.__cause__), ("__context__", error.__context__)):
        setattr(made, name, veiled_error(inner, mask, frames, most - 1) if inner is not None and most > 0 else None)
    made.__suppress_context__ = error.__suppress_context__
    traceback: TracebackType | None = None
    for each in reversed(list(frames(error.__traceback__))):
        stand_in = _stand_in(each, mask)
        traceback = TracebackType(traceback, stand_in.tb_frame, stand_in.tb_lasti, each.tb_lineno)
    return made.with_traceback(traceback)


def _copy(error: BaseException, mask: Mask) -> BaseException:
    kind = type(error)
    made = mask.value(error)
    if made is error:
        try:
            made = kind.__new__(kind, *error.args)
            made.__dict__.update(error.__dict__)
        except Exception:  # noqa: BLE001 - a class may refuse to be made; its words are made of nothing that is hidden
            made = None
    if isinstance(made, kind):
        return made
    words = type(kind.__name__, (Exception,), {"__module__": kind.__module__, "__qualname__": kind.__qualname__})
    stands: BaseException = words(mask.text(_words(error)))
    return stands


def _words(error: BaseException) -> str:
    try:
        return str(error)
    except Exception as why:  # noqa: BLE001 - a user's __str__
        return f"its words cannot be shown, {type(why).__name__}"


def _stand_in(traceback: TracebackType, mask: Mask) -> TracebackType:
    """A traceback of one frame, that looks as the one of this does but for what is hidden."""
    code, frame = traceback.tb_frame.f_code, traceback.tb_frame
    text = "\n" * max(traceback.tb_lineno - code.co_firstlineno, 0) + f"raise {RAISED}"
    stands = compile(text, code.co_filename, "exec").replace(
        co_name=code.co_name, co_qualname=code.co_qualname, co_firstlineno=code.co_firstlineno
    )
    held = mask.fields(frame.f_locals)
    held[RAISED] = raised = StopIteration()
    with suppress(StopIteration):
        exec(stands, frame.f_globals, held)  # noqa: S102 - our own line, in the place of the user's
    del held[RAISED]
    reached = raised.__traceback__
    assert reached is not None
    assert reached.tb_next is not None
    return reached.tb_next


class _Veiled:
    """A stream that is written line by line, without what is hidden."""

    def __init__(self, stream: TextIO, mask: Mask) -> None:
        self._stream, self._mask, self._begun = stream, mask, ""

    def write(self, text: str) -> int:
        *lines, self._begun = (self._begun + text).split("\n")
        for each in lines:
            self._stream.write(f"{self._mask.text(each)}\n")
        return len(text)

    def end(self) -> None:
        begun, self._begun = self._begun, ""
        self._stream.write(self._mask.text(begun))

    def flush(self) -> None:
        """What is begun waits for its line: half of a field cannot be told from a word."""

    def __getattr__(self, name: str) -> Any:
        return getattr(self._stream, name)


@contextmanager
def veiled_prints(mask: Mask) -> Iterator[None]:
    """What is printed meanwhile is printed without what is hidden."""
    if not mask:
        yield
        return
    out, err = _Veiled(sys.stdout, mask), _Veiled(sys.stderr, mask)
    try:
        with redirect_stdout(out), redirect_stderr(err):
            yield
    finally:
        out.end()
        err.end()
