"""The fingerprint of a failure: its kind and its message without what differs from run to run.

Made for very many at once: the type and the message of an ordinary error stand at the beginning of its pickle, and are
read there without making anything of it.
"""

from __future__ import annotations

import functools
import hashlib
import json
import re
from binascii import Error, a2b_base64
from typing import Any

from dbos_notebook.stored import PICKLE, PORTABLE, StandIn, inert

# Of a message so much is compared.
LONGEST_MESSAGE = 300
# No number of a group is as long.
FINGERPRINT_SIGNS = 10
RETRIED = "DBOSMaxStepRetriesExceeded"
UNREADABLE = "an error that cannot be read"

# What differs from run to run, the longest kinds first: each is replaced by a word.
QUOTED = re.compile(r"""(?<!\w)'[^'\n]*'(?!\w)|"[^"\n]*"|`[^`\n]*`""")
ADDRESS = re.compile(r"\b\w+://[^\s'\"]+|[\w.+-]+@[\w-]+\.[\w.]+|\b0+(?:\.0+){3}(?::0+)?\b")
ID = re.compile(
    r"\b[0a-fA-F]{8}(?:-?[0a-fA-F]{4}){3}-?[0a-fA-F]{12}\b|\b0[xX][0a-fA-F]+\b|\b(?=[a-fA-F]*0)[0a-fA-F]{8,}\b"
)
PATH = re.compile(r"(?:\b[A-Za-z]:|(?<![\w.])[.~]{0,2})(?:[/\\][\w.@~+-]+){2,}[/\\]?")
NUMBER = re.compile(r"(?:(?<!\w)[-+])?0+(?:[._,:]0+)*(?:e[-+]?0+)?")
# Digits count alike, so that words that differ in their digits alone are looked into once.
ALIKE = str.maketrans("123456789", "000000000")
# The pickle of `Kind(message)`: a frame, two names, and a text, of which the length comes first.
RAISED = re.compile(
    rb"\x80[\x04\x05]\x95.{8}\x8c.[\w.]+\x94\x8c.(\w+)\x94\x93\x94(?:\x8c(?P<short>.)|X(?P<long>.{4})|(?P<none>\)\x94R))?",
    re.DOTALL,
)
DASHES_OF_ID = 4
# So long is what is before the names, which says how long all of it is; this comes after them.
FRAME_BYTES, NAMED = 11, b"\x94\x93\x94"
ALIKE_BYTES = bytes.maketrans(b"123456789", b"000000000")
# Ids are the commonest words that are all different: those in a message are taken out of what it is known by.
UUID = re.compile(rb"\b[0a-fA-F]{8}-[0a-fA-F]{4}-[0a-fA-F]{4}-[0a-fA-F]{4}-[0a-fA-F]{12}\b")
MOST_KNOWN = 20_000
ONE_ARGUMENT = b"\x94\x85\x94R"
JSON_NAME = re.compile(r'"name"\s*:\s*"([^"\\]{1,200})"')


def normalised(message: str) -> str:
    """The message without numbers, ids, quoted texts, paths and addresses."""
    flat = message[: 2 * LONGEST_MESSAGE].translate(ALIKE)
    if "'" in flat or '"' in flat or "`" in flat:
        flat = QUOTED.sub("'…'", flat)
    return " ".join(map(_normalised_word, flat.split()))[:LONGEST_MESSAGE]


@functools.lru_cache(maxsize=20_000)
def _normalised_word(word: str) -> str:
    # Each pattern is only tried where it could be: most words are plain.
    if word.isalpha():
        return word
    if (
        len(word) == 36 and word.count("-") == 4 and ID.fullmatch(word)
    ):  # they are all different, so this is asked often
        return "<id>"
    if "@" in word or "://" in word or word.count(".") > 2:
        word = ADDRESS.sub("<address>", word)
    if "/" in word or "\\" in word:
        word = PATH.sub("<path>", word)
    if "0" not in word:
        return word
    return NUMBER.sub("#", ID.sub("<id>", word) if len(word) > 2 else word)


def fingerprint(*parts: str) -> str:
    """A short word for a group of failures, the same in every session."""
    return hashlib.sha256("\0".join(parts).encode(errors="replace")).hexdigest()[:FINGERPRINT_SIGNS]


def kind_and_message(text: str | None, serialization: str | None) -> tuple[str, str]:
    """The type and the message of a stored error, of which only the beginning may be there. Nothing of it is run."""
    if text is None:
        return "", ""
    if serialization == PORTABLE:
        return _of_json(text)
    if serialization not in (None, PICKLE):
        return f"an error stored by {serialization}", ""
    try:
        data = a2b_base64(text[: len(text) // 4 * 4])
    except (Error, ValueError):
        return UNREADABLE, ""
    return _of_pickle(data, text)


def _of_pickle(data: bytes, text: str) -> tuple[str, str]:
    """The same, of a pickle and the text that it was stored as."""
    found = RAISED.match(data)
    kind = UNREADABLE if found is None else found.group(1).decode()
    message = None if found is None else _message(data, found)
    if found is None or message is None:
        return _by_looking_closer(text, kind)
    # The message of a KeyError is the key, and it says so by its quotes.
    return kind, repr(message) if kind == "KeyError" and not found["none"] else message


def _message(data: bytes, found: re.Match[bytes]) -> str | None:
    """The message of an error that was made of one text, or of nothing; None of any other."""
    if found["none"]:
        return ""
    size = found["short"] or found["long"]
    if not size:
        return None
    start = found.end()
    end = start + int.from_bytes(size, "little")
    if end + len(ONE_ARGUMENT) <= len(data) and not data.startswith(ONE_ARGUMENT, end):
        return None
    return data[start : min(end, start + 2 * LONGEST_MESSAGE)].decode(errors="replace")


def cause_of(text: str | None, serialization: str | None) -> tuple[str, str]:
    """The type of a stored error, and its message normalised: the same for all errors that differ in digits alone."""
    if text is None or serialization not in (None, PICKLE):
        kind, message = kind_and_message(text, serialization)
        return kind, normalised(message)
    try:
        data = a2b_base64(text[: len(text) // 4 * 4])
    except (Error, ValueError):
        return UNREADABLE, ""
    named = data.find(NAMED)
    told = data[named:].translate(ALIKE_BYTES)
    if told.count(b"-") >= DASHES_OF_ID:
        told = UUID.sub(b"<id>", told)
    key = data[FRAME_BYTES:named] + told
    found = _known.get(key)
    if found is None:
        kind, message = _of_pickle(data, text)
        if len(_known) >= MOST_KNOWN:
            _known.clear()
        found = _known[key] = kind, normalised(message)
    return found


_known: dict[bytes, tuple[str, str]] = {}


@functools.lru_cache(maxsize=20_000)
def _by_looking_closer(text: str, kind: str) -> tuple[str, str]:
    try:
        return _of_stand_in(inert(text))
    except Exception:  # noqa: BLE001 - cut off, or hostile: then its type is all that is told
        return kind, ""


def _of_json(text: str) -> tuple[str, str]:
    try:
        value = json.loads(text)
        return str(value.get("name") or "Error"), str(value.get("message") or "")
    except (ValueError, AttributeError):
        found = JSON_NAME.search(text)
        return (found.group(1) if found else "Error"), ""


def _of_stand_in(value: Any) -> tuple[str, str]:
    if not isinstance(value, StandIn):
        return UNREADABLE, ""
    kind, args = type(value).__name__, value.given[0]
    if kind == RETRIED:  # what the last attempt raised says more
        tried = [each for part in args if isinstance(part, list) for each in part if isinstance(each, StandIn)]
        if tried:
            return _of_stand_in(tried[-1])
    return kind, ", ".join(each for each in args if isinstance(each, str))
