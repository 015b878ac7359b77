"""How a command says that it failed: in one line, and with no password in it."""

from __future__ import annotations

import re

# In the address of a database: the password of its user, or one among the parameters.
SECRETS = (
    (re.compile(r"(://[^:/@\s]*:)\S+@"), r"\1***@"),
    (re.compile(r"(?i)\b(\w*pass(?:word|wd|phrase|file)?)=('[^']*'|[^\s&]+)"), r"\1=***"),
)


class Failure(Exception):  # noqa: N818 - as other errors of this package
    """The command cannot do what it was asked for; the message says why."""

    exit_code = 1


class Misuse(Failure):
    """The command line lacks something, or contradicts itself."""

    exit_code = 2


def expected_errors() -> tuple[type[Exception], ...]:
    """What tells its reader enough without a traceback."""
    # Here and not above: nothing needs them as long as all goes well.
    from sqlalchemy.exc import SQLAlchemyError

    from dbos.error import DBOSException

    return DBOSException, SQLAlchemyError, OSError


def in_one_line(error: BaseException) -> str:
    """What the error says, for a person."""
    # The driver's own words: around them SQLAlchemy puts a statement, and a link. Ours without their number.
    said = getattr(error, "orig", None) or getattr(error, "message", None) or error
    return without_secrets(" ".join(str(said).split()) or type(error).__name__)


def without_secrets(text: str) -> str:
    for pattern, masked in SECRETS:
        text = pattern.sub(masked, text)
    return text
