"""A disk of our own under SQLite: whatever is changed on it is told, and may fail.

SQLite lets programs bring a file system. This one is the usual one, but that somebody is asked before each change: it
goes on, fails with a code of SQLite, or ends the process in the middle. It needs no rights and no tools, only the library
that Python's `sqlite3` has loaded already.
"""

from __future__ import annotations

import _sqlite3
import ctypes
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from ctypes import CFUNCTYPE, POINTER, Structure, c_char_p, c_int, c_int64, c_void_p, cast, pointer
from dataclasses import dataclass
from typing import Any, ClassVar, Literal

Kind = Literal["write", "sync", "truncate", "delete"]
IOERR_WRITE, IOERR_FSYNC, FULL = 778, 1034, 13


class Methods(Structure):
    """What SQLite calls of an open file, `sqlite3_io_methods`."""

    _fields_: ClassVar[list[Any]] = [
        ("version", c_int),
        *((name, c_void_p) for name in ("close", "read", "write", "truncate", "sync")),
        ("others", c_void_p * 13),
    ]


class File(Structure):
    """An open file, `sqlite3_file`."""

    _fields_: ClassVar[list[Any]] = [("methods", POINTER(Methods))]


class System(Structure):
    """A file system, `sqlite3_vfs`."""

    _fields_: ClassVar[list[Any]] = [
        *((name, c_int) for name in ("version", "file_size", "longest_name")),
        *((name, c_void_p) for name in ("next", "name", "data", "open", "delete")),
        ("others", c_void_p * 16),
    ]


_library = ctypes.CDLL(_sqlite3.__file__)
_library.sqlite3_vfs_find.restype = POINTER(System)

# The name as an address: SQLite keeps it as long as the file is open, so it must not be a copy.
Open = CFUNCTYPE(c_int, POINTER(System), c_void_p, POINTER(File), c_int, c_void_p)
Delete = CFUNCTYPE(c_int, POINTER(System), c_char_p, c_int)
Write = CFUNCTYPE(c_int, POINTER(File), c_void_p, c_int, c_int64)
Truncate = CFUNCTYPE(c_int, POINTER(File), c_int64)
Sync = CFUNCTYPE(c_int, POINTER(File), c_int)


@dataclass(frozen=True)
class Change:
    """Something that is about to be done to a file."""

    kind: Kind
    path: str
    place: int = 0
    data: bytes = b""
    #: Does it, or as much of it as one wants: for who dies in the middle.
    do: Callable[[int], int] = lambda _: 0


# What SQLite may call: kept for ever, because a file may be closed later than everything else has gone.
_kept: list[Any] = []

# Asked before each change: 0 lets it happen, anything else is the answer of the disk.
Watcher = Callable[[Change], int]


class Disk:
    """The usual file system, with somebody who watches it."""

    def __init__(self, watcher: Watcher) -> None:
        self._watcher = watcher
        self._lock = threading.RLock()
        self._usual = _library.sqlite3_vfs_find(None)
        self._paths: dict[int, str] = {}
        self._methods: dict[int, Any] = {}
        self._system = System.from_buffer_copy(self._usual.contents)
        self._name = ctypes.create_string_buffer(b"watched")
        self._system.name = ctypes.addressof(self._name)
        self._system.open = self._callable(Open, self._open)
        self._usual_delete = cast(self._usual.contents.delete, Delete)
        self._system.delete = self._callable(Delete, self._delete)

    @contextmanager
    def mounted(self) -> Iterator[None]:
        """All files that are opened in the block are on this disk."""
        _library.sqlite3_vfs_register(pointer(self._system), 1)
        try:
            yield
        finally:
            self._watcher = lambda _: 0
            _library.sqlite3_vfs_register(self._usual, 1)
            _library.sqlite3_vfs_unregister(pointer(self._system))

    def _callable(self, type_: Any, function: Any) -> Any:
        _kept.append(type_(function))
        return cast(_kept[-1], c_void_p)

    def _ask(self, change: Change) -> int:
        with self._lock:
            return self._watcher(change) or change.do(len(change.data))

    def _open(self, _: Any, name: int | None, file: Any, flags: int, flags_out: Any) -> int:
        answer = int(cast(self._usual.contents.open, Open)(self._usual, name, file, flags, flags_out))
        if answer == 0 and name is not None:
            self._paths[ctypes.addressof(file.contents)] = ctypes.string_at(name).decode()
            usual = ctypes.addressof(file.contents.methods.contents)
            if usual not in self._methods:
                self._methods[usual] = self._watched(file.contents.methods.contents)
            file.contents.methods = pointer(self._methods[usual])
        return answer

    def _watched(self, usual: Methods) -> Methods:
        made = Methods.from_buffer_copy(usual)
        write, truncate, sync = cast(usual.write, Write), cast(usual.truncate, Truncate), cast(usual.sync, Sync)

        def on_write(file: Any, data: int, size: int, place: int) -> int:
            do = lambda part: int(write(file, data, part, place))  # noqa: E731
            return self._ask(Change("write", self._path(file), place, ctypes.string_at(data, size), do))

        def on_truncate(file: Any, size: int) -> int:
            return self._ask(Change("truncate", self._path(file), size, do=lambda _: int(truncate(file, size))))

        def on_sync(file: Any, flags: int) -> int:
            return self._ask(Change("sync", self._path(file), do=lambda _: int(sync(file, flags))))

        made.write = self._callable(Write, on_write)
        made.truncate = self._callable(Truncate, on_truncate)
        made.sync = self._callable(Sync, on_sync)
        return made

    def _delete(self, _: Any, name: bytes, durably: int) -> int:
        do = lambda _: int(self._usual_delete(self._usual, name, durably))  # noqa: E731
        return self._ask(Change("delete", name.decode(), do=do))

    def _path(self, file: Any) -> str:
        return self._paths[ctypes.addressof(file.contents)]
