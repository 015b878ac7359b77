"""Serializers for databases that others can write to: values that are signed, and values that are only data.

Reading a pickle may run code that lies in it, so who can write a row could run code where it is read. A signed value is
read only if it was written by who has the key, and the key is never in the database. What is stored as JSON is data,
whoever wrote it. Neither falls back: a value of another format is refused, whatever it looks like.

The signature binds a value to its application and to its slot: whose it is, and which. So who can write to the database
cannot put one signed value in another's place. Whoever copies a value, such as a fork, signs the copy anew. What stays
possible to them: to put back what was in the same slot before, to exchange the values that one slot holds (see `Slot`),
to write portable JSON, which every language may and nobody signs, and all that is no value: to delete, or to change the
name of a function or the status of a workflow.
"""

from __future__ import annotations

import base64
import binascii
import hashlib
import hmac
import os
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NoReturn, Self

from dbos._kernel.codec import SIGNED, DBOSPortableJSONSerializer, DefaultSerializer, Serializer
from dbos._kernel.slot import NOWHERE, Slot
from dbos.error import DBOSInitializationError, DBOSSerializationError

KEYS_VARIABLE = "DBOS_SERIALIZER_KEYS"
KEY_ID = re.compile(r"[A-Za-z0-9_-]{1,32}")
SHORTEST_KEY = 32


class JSONOnlySerializer(DBOSPortableJSONSerializer):
    """Stores portable JSON, and refuses to read pickle: nothing that is stored can run code.

    What a workflow takes, returns and records must be JSON: dates become text, sets and tuples lists, and what
    operations such as `list_workflows` return cannot be recorded in a workflow.
    """

    refuses_pickle = True

    def __repr__(self) -> str:
        return f"<{type(self).__name__}>"


class SignedSerializer(Serializer):
    """Signs what another serializer stores (pickle, unless one is given), with HMAC-SHA256.

    `keys` are secrets of at least 32 bytes by their ids: the first one signs, all of them verify. To change the key,
    put a new one in front, and drop the old one when no value is left that it signed. Values that are not signed by
    one of them, or for another `application`, or for another place in the database, are refused before anything of
    them is read; so is pickle that was stored before there were signatures. What is stored as portable JSON is read as
    the data that it is. Give the same keys to clients, and to whoever forks or imports.
    """

    refuses_pickle = True

    def __init__(self, keys: Mapping[str, bytes], *, application: str = "", inner: Serializer | None = None) -> None:
        if not keys:
            raise DBOSInitializationError("A SignedSerializer needs at least one key")
        for key_id, key in keys.items():
            if not isinstance(key_id, str) or not KEY_ID.fullmatch(key_id):
                raise DBOSInitializationError(f"The id of a key is 1 to 32 letters, digits, - and _, not {key_id!r}")
            if not isinstance(key, bytes) or len(key) < SHORTEST_KEY:
                raise DBOSInitializationError(f"The key {key_id!r} must be at least {SHORTEST_KEY} bytes")
        self._keys = dict(keys)
        self._signing = next(iter(self._keys))
        self.application, self.inner = application, inner or DefaultSerializer()

    @classmethod
    def from_environment(
        cls, variable: str = KEYS_VARIABLE, *, application: str = "", inner: Serializer | None = None
    ) -> Self:
        """With the keys of an environment variable: `id:key` in base64, several of them separated by commas."""
        text = os.environ.get(variable)
        if not text:
            raise DBOSInitializationError(f"There are no keys for signatures: set {variable}")
        return cls(_parsed(text.split(","), variable), application=application, inner=inner)

    @classmethod
    def from_file(cls, path: str | os.PathLike[str], *, application: str = "", inner: Serializer | None = None) -> Self:
        """With the keys of a file: `id:key` in base64, one in a line."""
        try:
            lines = Path(path).read_text(encoding="utf-8").splitlines()
        except (OSError, UnicodeDecodeError) as error:
            raise DBOSInitializationError(f"The keys for signatures cannot be read: {type(error).__name__}") from None
        return cls(
            _parsed([each for each in lines if each.strip()], os.fspath(path)), application=application, inner=inner
        )

    def __repr__(self) -> str:
        return f"<{type(self).__name__} of {self.inner.name()}, keys {', '.join(self._keys)}>"

    def __reduce__(self) -> NoReturn:
        raise TypeError("A SignedSerializer cannot be pickled: it holds keys")

    def name(self) -> str:
        return f"{SIGNED}{self.inner.name()}"

    def shape(self) -> str:
        return self.inner.shape()

    def serialize(self, data: Any) -> str:
        return self.serialize_at(data, NOWHERE)

    def deserialize(self, serialized_data: str) -> Any:
        return self.deserialize_at(serialized_data, NOWHERE)

    def serialize_at(self, data: Any, slot: Slot) -> str:
        return self._signed(self.inner.serialize(data), slot)

    def deserialize_at(self, serialized_data: str, slot: Slot) -> Any:
        return self.inner.deserialize(self._verified(serialized_data, slot))

    def moved(self, serialized_data: str, slot: Slot, to: Slot) -> str:
        return self._signed(self._verified(serialized_data, slot), to)

    def _signed(self, text: str, slot: Slot) -> str:
        return f"{self._signing}:{self._signature(self._signing, text, slot)}:{text}"

    def _verified(self, signed: str, slot: Slot) -> str:
        key_id, _, rest = signed.partition(":")
        signature, _, text = rest.partition(":")
        if key_id not in self._keys:
            raise DBOSSerializationError(f"The value ({slot}) is not signed with a key that is known here")
        if not hmac.compare_digest(signature.encode(), self._signature(key_id, text, slot).encode()):
            raise DBOSSerializationError(
                f"The signature of the value ({slot}) is wrong: it was changed, or signed for another place or application"
            )
        return text

    def _signature(self, key_id: str, text: str, slot: Slot) -> str:
        mac = hmac.new(self._keys[key_id], digestmod=hashlib.sha256)
        part = "" if slot.part is None else str(slot.part)
        # Each part with its length, so that no two ways to divide the same letters are signed alike.
        for each in ("dbos-signed-1", self.name(), self.application, slot.sort, slot.owner, part, text):
            content = each.encode()
            mac.update(len(content).to_bytes(8, "big") + content)
        return base64.urlsafe_b64encode(mac.digest()).decode().rstrip("=")


def _parsed(entries: list[str], where: str) -> dict[str, bytes]:
    keys: dict[str, bytes] = {}
    for place, entry in enumerate(entries, 1):
        key_id, separator, text = entry.strip().partition(":")
        try:
            key = base64.b64decode(text, validate=True)
        except (binascii.Error, ValueError):
            key = b""
        if not separator or not key or key_id in keys:  # and not what it says: it may be the key
            raise DBOSInitializationError(f"Key {place} of {where} cannot be read: it must be `id:key` in base64, once")
        keys[key_id] = key
    return keys
