"""When a cron expression fires, in a time zone whose clocks are set forward and back.

An expression speaks of the clock on the wall. It has 5 fields (minute, hour, day, month, weekday), 6 with the
seconds in front, or 7 with the year at the end. Where the hands of that clock are moved, this rule holds:

* An expression whose hour field admits every hour goes on with the clock. A time that does not exist does not fire,
  a time that comes twice fires twice: `*/5 * * * *` fires every five minutes through both nights.
* Any other names times of day, and fires once for each. A time that does not exist fires at the moment at which the
  clock is set forward, once for all that fall into the gap. A time that comes twice fires the first time.

The random fields `R` are taken for the hashed fields `H`, whose values follow from the name of the schedule: every
process must come to the same moments.
"""

from __future__ import annotations

import bisect
from collections.abc import Iterator
from datetime import UTC, datetime, tzinfo
from zoneinfo import ZoneInfo

from croniter import CroniterBadDateError, croniter

EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
# Between two looks at the offset of a zone; none changes its offset twice in less.
STRIDE_SECONDS = 12 * 3600


class Cron:
    """An expression in a time zone. Not for use by several threads at once."""

    def __init__(self, text: str, zone: tzinfo = UTC, name: str = "") -> None:
        """Read an expression; ValueError says that it is none, or fires at no time at all."""
        self.zone = zone
        fields = [f"h{field[1:]}" if field[:1] in "rR" else field for field in str(text).split()]
        # Given to an expression without hashed fields it would change what `@daily` and the like mean.
        seed = name if any(field[:1] in "hH" for field in fields) else None
        self._years: list[int] | None = None
        try:
            if len(fields) == 7:
                years = croniter.expand(" ".join(fields), hash_id=seed, second_at_beginning=True)[0][6]
                # Its search through years overlooks the last moment of the last year, so years are counted here.
                self._years = None if years == ["*"] else sorted(int(year) for year in years)
                fields.pop()
            self._ticks = croniter(" ".join(fields), 0.0, hash_id=seed, second_at_beginning=True)
        except (ValueError, KeyError, AttributeError, TypeError, IndexError) as error:
            raise ValueError(f"{text!r} is no cron expression: {error}") from None
        self._is_even = self._ticks.expanded[1] == ["*"]
        if self._next_wall(-1) is None:
            raise ValueError(f"{text!r} never fires")

    def after(self, moment: datetime) -> datetime | None:
        """The first moment after this one; None if there is no more."""
        epoch = (moment - EPOCH).total_seconds() // 1
        found = self._even_after(int(epoch)) if self._is_even else self._named_after(int(epoch))
        return None if found is None else datetime.fromtimestamp(found, self.zone)

    def between(self, start: datetime, end: datetime) -> Iterator[datetime]:
        """The moments strictly between these two."""
        moment = self.after(start)
        while moment is not None and moment < end:
            yield moment
            moment = self.after(moment)

    # -- by the clock on the wall: seconds since 1970 as it shows them ------------------------------------------

    def _next_wall(self, wall: int) -> int | None:
        while True:
            try:
                found = int(self._ticks.get_next(float, start_time=float(wall), update_current=False))
                year = datetime.fromtimestamp(found, UTC).year
            except (CroniterBadDateError, OverflowError, ValueError):
                return None
            if self._years is None or year in self._years:
                return found
            later = bisect.bisect_right(self._years, year)
            if later == len(self._years):
                return None
            wall = int((datetime(self._years[later], 1, 1, tzinfo=UTC) - EPOCH).total_seconds()) - 1

    def _named_after(self, epoch: int) -> int | None:
        wall: int | None = epoch + self._offset(epoch)
        while (wall := self._next_wall(wall)) is not None:  # type: ignore[arg-type]  # it is a number when it comes here
            moment = self._moment_of(wall)
            if moment > epoch:
                return moment
        return None

    def _even_after(self, epoch: int) -> int | None:
        offset = self._offset(epoch)
        wall = self._next_wall(epoch + offset)
        while wall is not None:
            change = self._change(epoch, wall - offset)
            if change is None:
                return wall - offset
            epoch, offset = change, self._offset(change)
            wall = self._next_wall(change + offset - 1)
        return None

    # -- the zone ----------------------------------------------------------------------------------------------

    def _offset(self, epoch: int) -> int:
        """How many seconds the clock on the wall is ahead of UTC."""
        offset = datetime.fromtimestamp(epoch, self.zone).utcoffset()
        return 0 if offset is None else int(offset.total_seconds())

    def _moment_of(self, wall: int) -> int:
        """When the wall shows this: the first time, or, where it never does, the moment it passes over it."""
        shown = datetime.fromtimestamp(wall, UTC).replace(tzinfo=self.zone)
        first = wall - int((shown.utcoffset() or EPOCH - EPOCH).total_seconds())
        if first + self._offset(first) == wall:
            return first
        second = wall - int((shown.replace(fold=1).utcoffset() or EPOCH - EPOCH).total_seconds())
        change = self._change(second, first)
        return first if change is None else change

    def _change(self, start: int, end: int) -> int | None:
        """The first moment after `start`, up to `end`, at which the offset is another."""
        if self.zone is UTC:
            return None
        offset = self._offset(start)
        while start < end:
            step = min(start + STRIDE_SECONDS, end)
            if self._offset(step) != offset:
                moments = range(start + 1, step + 1)
                return moments[bisect.bisect_left(moments, True, key=lambda moment: self._offset(moment) != offset)]
            start = step
        return None


def zone_of(name: str | None) -> tzinfo:
    """The time zone of that name; UTC without one. ValueError says that there is none."""
    if name is None or name == "UTC":
        return UTC
    try:
        return ZoneInfo(name)
    except (KeyError, ValueError, TypeError, OSError):
        raise ValueError(f"There is no time zone {name!r}") from None
