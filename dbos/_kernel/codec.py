"""Values to text and back: serializers, arguments, errors.

Every stored value says its format by name, and the row decides on reading, never the configuration. A format
is never guessed from the content: a fallback by content is how data becomes code. An exception is read back
once before it is stored, because one that pickles but cannot be unpickled would lose its workflow's outcome.
"""

from __future__ import annotations

import copyreg
import io
import json
import logging
import math
import pickle
from abc import ABC, abstractmethod
from binascii import a2b_base64, b2a_base64
from collections.abc import Mapping
from datetime import UTC, date, datetime
from decimal import Decimal
from enum import Enum
from typing import Any

from dbos._kernel.slot import Slot
from dbos.error import DBOSSerializationError

logger = logging.getLogger("dbos")

# The protocol that every DBOS release for Python writes and reads.
PICKLE_PROTOCOL = 4
PICKLE, PORTABLE = "py_pickle", "portable_json"
# So begin the names of formats whose texts are bound to their slots.
SIGNED = "signed_"


class WorkflowSerializationFormat(str, Enum):  # noqa: UP042 - the bases that such programs expect
    """Which format a workflow, message, event or stream value is stored in."""

    #: Portable JSON, readable by every language.
    PORTABLE = "portable"
    #: Python pickle.
    NATIVE = "native"
    #: The serializer of the configuration; inside a portable workflow, that workflow's format.
    DEFAULT = None


class Serializer(ABC):
    """Turns values into text and back; give your own as `serializer` in the configuration."""

    #: Values that were stored as pickle are not read where this is configured, because that may run code.
    refuses_pickle = False

    @abstractmethod
    def serialize(self, data: Any) -> str:
        """The text to store."""

    @abstractmethod
    def deserialize(self, serialized_data: str) -> Any:
        """The value that the text stands for."""

    def name(self) -> str:
        """Stored beside each value; must not change while such values exist."""
        return "custom_serializer"

    def shape(self) -> str:
        """Whose shape arguments and errors have: one that wraps another serializer gives that one's name."""
        return self.name()

    def serialize_at(self, data: Any, slot: Slot) -> str:
        """The text to store there; where it is stored matters only to one that signs."""
        return self.serialize(data)

    def deserialize_at(self, serialized_data: str, slot: Slot) -> Any:
        """The value of a text that is stored there."""
        return self.deserialize(serialized_data)

    def moved(self, serialized_data: str, slot: Slot, to: Slot) -> str:
        """The text of one slot as it is stored in another; nothing is read."""
        return serialized_data


class DefaultSerializer(Serializer):
    """Pickle, as base64 text."""

    def serialize(self, data: Any) -> str:
        return b2a_base64(_pickled(data), newline=False).decode("ascii")

    def deserialize(self, serialized_data: str) -> Any:
        return pickle.loads(a2b_base64(serialized_data))  # noqa: S301 - the format other DBOS programs write

    def name(self) -> str:
        return PICKLE


class DBOSPortableJSONSerializer(Serializer):
    """JSON that every language reads: dates become text, sets and tuples lists; nothing else is converted."""

    def serialize(self, data: Any) -> str:
        return json.dumps(_portable(data), separators=(",", ":"), ensure_ascii=False)

    def deserialize(self, serialized_data: str) -> Any:
        return json.loads(serialized_data)

    def name(self) -> str:
        return PORTABLE


class PortableWorkflowError(Exception):
    """An error that was stored as JSON, by any language: `name` is its type there."""

    def __init__(self, message: str, name: str = "Error", code: int | str | None = None, data: Any = None) -> None:
        super().__init__(message)
        self.args = (message, name, code, data)
        self.message, self.name, self.code, self.data = message, name, code, data

    def __str__(self) -> str:
        return self.message


PortableWorkflowError.__module__ = "dbos._serialization"


def _portable(value: Any) -> Any:
    """The value with what JSON lacks written as text or list."""
    if value is None or isinstance(value, (bool, int, str)):
        return value
    if isinstance(value, float):
        if not math.isfinite(value):
            raise DBOSSerializationError(f"{value!r} is not portable JSON serializable: JSON has no such number")
        return value
    if isinstance(value, datetime):
        moment = value.replace(tzinfo=UTC) if value.tzinfo is None else value.astimezone(UTC)
        return moment.isoformat(timespec="milliseconds").replace("+00:00", "Z")
    if isinstance(value, date):
        return value.isoformat()
    if isinstance(value, Decimal):
        return format(value, "f")
    if isinstance(value, Mapping):
        for key in value:
            if not isinstance(key, str):
                raise DBOSSerializationError(f"The key {key!r} is not portable JSON serializable: keys must be str")
        return {key: _portable(item) for key, item in value.items()}
    if isinstance(value, (list, tuple, set, frozenset)):
        return [_portable(item) for item in value]
    raise DBOSSerializationError(f"A value of type {type(value).__qualname__} is not portable JSON serializable")


def _portable_error(error: BaseException) -> dict[str, Any]:
    """An error as the plain fields that every language has."""
    codes = (getattr(error, key, None) for key in ("code", "error_code", "errno", "status", "status_code"))
    fields: dict[str, Any] = {
        "name": type(error).__name__,
        "message": str(error),
        "code": next((code for code in codes if isinstance(code, (int, str))), None),
    }
    extras = (getattr(error, key, None) for key in ("data", "details", "payload", "extra", "meta", "metadata"))
    data = next((extra for extra in extras if extra is not None), None)
    if data is not None:
        try:
            fields["data"] = _portable(data)
        except TypeError:
            fields["data"] = str(data)
    return fields


def survives(error: Exception) -> Exception:
    """The error, if pickling keeps it; else its type and message as one that it keeps."""
    try:
        if isinstance(pickle.loads(_pickled(error)), BaseException):  # noqa: S301 - what was pickled just now
            return error
    except Exception as reason:  # noqa: BLE001 - user code, on both ways; the original error matters more
        logger.warning("Cannot keep %s as it is (%s); keeping its message", type(error).__qualname__, reason)
    return _plainly(error)


def _pickled(value: Any) -> bytes:
    if not isinstance(value, BaseException):
        return pickle.dumps(value, PICKLE_PROTOCOL)
    # tblib, which Dask installs, makes every error take its traceback along, and none readable where tblib is missing.
    buffer = io.BytesIO()
    pickler = pickle.Pickler(buffer, PICKLE_PROTOCOL)
    pickler.dispatch_table = {
        kind: reduce
        for kind, reduce in copyreg.dispatch_table.items()
        if not getattr(reduce, "__module__", "").startswith("tblib.")
    }
    pickler.dump(value)
    return buffer.getvalue()


def _plainly(error: BaseException) -> Exception:
    return Exception(f"{type(error).__qualname__}: {error}")


class Codec:
    """The serializers of one application, by the names under which values are stored."""

    def __init__(self, serializer: Serializer | None = None) -> None:
        self.default = serializer or DefaultSerializer()
        known = [DBOSPortableJSONSerializer(), self.default]
        if not self.default.refuses_pickle:
            known.insert(0, DefaultSerializer())
        self._by_name = {each.name(): each for each in known}

    def named(self, name: str | None) -> Serializer:
        """The serializer of that name; no name means the configured one."""
        if name is None:
            return self.default
        try:
            return self._by_name[name]
        except KeyError:
            why = (
                "The configured serializer refuses it, because reading a pickle may run code."
                if name == PICKLE
                else "Configure the serializer that wrote this value."
            )
            raise DBOSSerializationError(f"Serialization {name} is not available. {why}") from None

    def writing(self, name: str | None) -> Serializer:
        """The serializer of that name for an outcome that must be written; the configured one if there is none such."""
        return self.default if name is None else self._by_name.get(name, self.default)

    def chosen(self, choice: WorkflowSerializationFormat | None, otherwise: str | None = None) -> Serializer:
        """The serializer of a `serialization_type` argument; DEFAULT means `otherwise`, else the configured one."""
        if choice is WorkflowSerializationFormat.PORTABLE:
            return self._by_name[PORTABLE]
        if choice is WorkflowSerializationFormat.NATIVE:
            return self.named(PICKLE)
        return self.named(otherwise)

    def is_bound(self, name: str | None) -> bool:
        """Whether a text of this format is read in its own slot only, so that a copy of it must be `copied`."""
        return (self.default.name() if name is None else name).startswith(SIGNED)

    def moved(self, text: str | None, name: str | None, slot: Slot, to: Slot) -> str | None:
        """A stored text for another slot. Raises DBOSSerializationError where its signature is not known here, or wrong."""
        return text if text is None or not self.is_bound(name) else self.named(name).moved(text, slot, to)

    def copied(self, text: str | None, name: str | None, slot: Slot, to: Slot) -> str | None:
        """The same for a faithful copy: what cannot be read in its slot cannot be read in the other one either."""
        if text is None or not self.is_bound(name):
            return text
        serializer = self.named(name)
        try:
            return serializer.moved(text, slot, to)
        except DBOSSerializationError:
            return text

    def encode(self, value: Any, serializer: Serializer, slot: Slot, what: str) -> str:
        """The value's text. The serializer's own error goes up, with a note on what could not be stored."""
        try:
            text = serializer.serialize_at(value, slot)
        except Exception as error:
            error.add_note(f"while storing {what} with {serializer.name()}")
            raise
        if "\0" in text:  # Postgres cannot hold it, SQLite would cut it: one verdict for both
            raise DBOSSerializationError(
                f"{what} contains a NUL character after {serializer.name()}; it cannot be stored"
            )
        if not text.isascii():
            try:
                text.encode()
            except UnicodeEncodeError:
                raise DBOSSerializationError(
                    f"{what} contains half a surrogate pair after {serializer.name()}; it cannot be stored"
                ) from None
        return text

    def decode(self, text: str | None, name: str | None, slot: Slot) -> Any:
        """The value that was stored."""
        return None if text is None else self.named(name).deserialize_at(text, slot)

    def read(self, text: str | None, name: str | None, slot: Slot, what: str) -> Any:
        """The value of somebody else's, who may have stored anything: DBOSSerializationError if it cannot be read."""
        try:
            return self.decode(text, name, slot)
        except Exception as error:
            raise DBOSSerializationError(f"{what} cannot be read: {error!r}") from error

    def encode_args(
        self, args: tuple[Any, ...], kwargs: dict[str, Any], serializer: Serializer, slot: Slot, what: str
    ) -> str:
        """A call's arguments, in the shape that other readers of this format know."""
        if serializer.shape() == PORTABLE:
            return self.encode({"positionalArgs": list(args), "namedArgs": kwargs}, serializer, slot, what)
        return self.encode({"args": args, "kwargs": kwargs}, serializer, slot, what)

    def decode_args(self, text: str | None, name: str | None, slot: Slot) -> WorkflowArguments:
        """A call's arguments. Raises what the serializer raises, and DBOSSerializationError for a wrong shape."""
        value = self.decode(text, name, slot)
        if isinstance(value, dict):
            portable = self.named(name).shape() == PORTABLE
            args = value.get("positionalArgs" if portable else "args")
            kwargs = value.get("namedArgs" if portable else "kwargs")
            if isinstance(args, (list, tuple, type(None))) and isinstance(kwargs, (dict, type(None))):
                return tuple(args or ()), kwargs or {}
        raise DBOSSerializationError(f"The stored inputs are not the arguments of a call but {type(value).__name__}")

    def encode_error(self, error: BaseException, serializer: Serializer, slot: Slot) -> str:
        """The error's text; where it cannot be stored as it is, its type and message are."""
        if serializer.shape() == PORTABLE:
            return serializer.serialize_at(_portable_error(error), slot)
        try:
            text = serializer.serialize_at(error, slot)
            if isinstance(serializer.deserialize_at(text, slot), BaseException):
                return text
        except Exception as reason:  # noqa: BLE001 - user code, on both ways; the original error matters more
            logger.warning("Cannot store %s as it is (%s); storing its message", type(error).__qualname__, reason)
        if serializer.shape() == PICKLE:
            return serializer.serialize_at(_plainly(error), slot)
        return serializer.serialize_at(_portable_error(error), slot)

    def decode_error(self, text: str, name: str | None, slot: Slot) -> BaseException:
        """The error that was stored, as an object to raise."""
        value = self.decode(text, name, slot)
        if isinstance(value, BaseException):
            return value
        if isinstance(value, dict) and "message" in value:
            return PortableWorkflowError(
                str(value["message"]), str(value.get("name") or "Error"), value.get("code"), value.get("data")
            )
        return PortableWorkflowError(str(value))

    def shown(self, text: str | None, name: str | None, slot: Slot) -> Any:
        """The value for a listing: never an error, the stored text where it cannot be read."""
        try:
            return self.decode(text, name, slot)
        except Exception as error:  # noqa: BLE001 - one bad row must not hide the others
            logger.warning("A stored value cannot be read with %s: %s", name or self.default.name(), error)
            return text

    def shown_error(self, text: str | None, name: str | None, slot: Slot) -> Any:
        """The error for a listing; see `shown`."""
        try:
            return None if text is None else self.decode_error(text, name, slot)
        except Exception as error:  # noqa: BLE001 - one bad row must not hide the others
            logger.warning("A stored error cannot be read with %s: %s", name or self.default.name(), error)
            return text


WorkflowArguments = tuple[tuple[Any, ...], dict[str, Any]]
