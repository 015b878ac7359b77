"""What each status looks like everywhere, and which operations are waits: facts that many share."""

from __future__ import annotations

from typing import NamedTuple


class Sign(NamedTuple):
    """A glyph, and a colour that stands out on white and on black (3:1), also for the colour-blind."""

    glyph: str
    color: str


SIGNS = {
    "DELAYED": Sign("\u25cc", "#9467BD"),
    "ENQUEUED": Sign("\u25cb", "#AD7A00"),
    "PENDING": Sign("\u25b6", "#2B83C6"),
    "CANCELLED": Sign("\u2298", "#7F7F7F"),
    "ERROR": Sign("\u2717", "#D9480F"),
    "MAX_RECOVERY_ATTEMPTS_EXCEEDED": Sign("\u203c", "#B8417C"),
    "SUCCESS": Sign("\u2713", "#0A9373"),
}
UNKNOWN = Sign("?", "#7F7F7F")
# The form in which figures go to a front end.
PLOTLY = "application/vnd.plotly.v1+json"

SLEEP = "DBOS.sleep"
# These wait for something from elsewhere, and record a sleep of their own for their timeout.
TIMED = frozenset({"DBOS.recv", "DBOS.getEvent", "DBOS.getResult", "DBOS.readStreamOffset"})
WAITS = frozenset({SLEEP, "DBOS.waitFirst", *TIMED})

# So the identities of kernels begin. What a dead one ran is taken up by itself, and never has to be resumed.
KERNEL = "nb-"
# The attribute of a run that the stop button cancelled: where it was then.
STOPPED_AT = "interrupted"
