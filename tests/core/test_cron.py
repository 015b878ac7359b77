"""When expressions fire: against an oracle that looks at the clock on the wall minute by minute."""

from __future__ import annotations

import itertools
import os
import subprocess
import sys
from datetime import UTC, date, datetime, timedelta
from zoneinfo import ZoneInfo

import pytest

from dbos._kernel.cron import Cron, zone_of

START, END = datetime(2026, 1, 1, tzinfo=UTC), datetime(2036, 1, 1, tzinfo=UTC)
MINUTE, DAY = timedelta(minutes=1), timedelta(days=1)
# North and south, halves and quarters of hours, gaps at midnight, months without summer time, and none at all.
ZONES = """UTC Europe/Berlin Europe/London Europe/Chisinau America/New_York America/Los_Angeles America/St_Johns
America/Santiago America/Havana America/Nuuk Africa/Cairo Africa/Casablanca Asia/Beirut Asia/Jerusalem Asia/Kolkata
Asia/Kathmandu Asia/Gaza Australia/Adelaide Australia/Lord_Howe Pacific/Chatham""".split()


def first(cron: Cron, number: int, after: str = "2026-01-01T00:00+00:00") -> list[str]:
    moments = cron.between(datetime.fromisoformat(after), datetime(2100, 1, 1, tzinfo=UTC))
    return [each.isoformat() for each in itertools.islice(moments, number)]


def changes(zone: ZoneInfo) -> list[datetime]:
    """The first whole hours, of ten years, after which the clock was moved."""
    days = [START + timedelta(days=number) for number in range((END - START).days)]
    moved = [day for day in days if day.astimezone(zone).utcoffset() != (day + DAY).astimezone(zone).utcoffset()]
    hours = [day + timedelta(hours=number) for day in moved for number in range(1, 25)]
    return [
        hour
        for hour in hours
        if hour.astimezone(zone).utcoffset() != (hour - timedelta(hours=1)).astimezone(zone).utcoffset()
    ]


def shown(zone: ZoneInfo, around: datetime) -> list[tuple[datetime, datetime]]:
    """What the clock on the wall shows in each minute of a day, and when."""
    moments = [around + MINUTE * number for number in range(-12 * 60, 12 * 60)]
    return [(each.astimezone(zone).replace(tzinfo=None), each) for each in moments]


def named_times(seen: list[tuple[datetime, datetime]]) -> list[datetime]:
    """When `*/30 0-4,23 * * *` is to fire, by the rule as it is written: each time of day once."""
    first_shown: dict[datetime, datetime] = {}
    for wall, moment in seen:
        first_shown.setdefault(wall, moment)
    walls, fires = sorted(first_shown), set()
    wanted = walls[0]
    while wanted <= walls[-1]:
        if wanted.hour in (0, 1, 2, 3, 4, 23) and wanted.minute in (0, 30):
            fires.add(first_shown[next(wall for wall in walls if wall >= wanted)])
        wanted += MINUTE
    return sorted(fires)


@pytest.mark.parametrize("name", ZONES)
def test_what_fires_where_the_clock_is_moved(name: str) -> None:
    """Named times once: after a gap, or the first time. An expression for every hour whenever the clock shows it."""
    zone = ZoneInfo(name)
    named, every_hour = Cron("*/30 0-4,23 * * *", zone), Cron("*/30 * * * *", zone)
    for change in changes(zone):
        seen = shown(zone, change)
        start, end = seen[0][1] - MINUTE, seen[-1][1] + MINUTE
        expected = [moment for wall, moment in seen if wall.minute in (0, 30)]

        assert named_times(seen) == [each.astimezone(UTC) for each in named.between(start, end)], change
        assert expected == [each.astimezone(UTC) for each in every_hour.between(start, end)], change


@pytest.mark.parametrize("name", ZONES)
def test_every_week_of_ten_years_has_its_moment(name: str) -> None:
    zone = ZoneInfo(name)
    weeks = [each.astimezone(zone).date() for each in Cron("30 2 * * SUN", zone).between(START, END)]

    assert [weeks[0] + timedelta(weeks=number) for number in range(len(weeks))] == weeks
    assert (weeks[0] - date(2026, 1, 1)).days < 7
    assert (date(2036, 1, 1) - weeks[-1]).days <= 7


def test_there_are_nights_to_be_looked_at() -> None:
    assert 20 == len(changes(ZoneInfo("Europe/Berlin")))
    assert 0 == len(changes(ZoneInfo("Asia/Kolkata")))


@pytest.mark.parametrize(
    ("expression", "expected"),
    [
        ("*/20 * * * *", ["2026-01-01T00:20:00+00:00", "2026-01-01T00:40:00+00:00", "2026-01-01T01:00:00+00:00"]),
        ("*/25 0 0 * * *", ["2026-01-01T00:00:25+00:00", "2026-01-01T00:00:50+00:00", "2026-01-02T00:00:00+00:00"]),
        ("0 0 1 jan mon", ["2026-01-05T00:00:00+00:00", "2026-01-12T00:00:00+00:00", "2026-01-19T00:00:00+00:00"]),
        ("0 0 L * *", ["2026-01-31T00:00:00+00:00", "2026-02-28T00:00:00+00:00", "2026-03-31T00:00:00+00:00"]),
        ("0 9 * * fri#2", ["2026-01-09T09:00:00+00:00", "2026-02-13T09:00:00+00:00", "2026-03-13T09:00:00+00:00"]),
        ("0 0 29 2 *", ["2028-02-29T00:00:00+00:00", "2032-02-29T00:00:00+00:00", "2036-02-29T00:00:00+00:00"]),
        ("0 0 6 4 7 * 2028", ["2028-07-04T06:00:00+00:00"]),
        ("0 0 6 4 7 * 2028,2040", ["2028-07-04T06:00:00+00:00", "2040-07-04T06:00:00+00:00"]),
        ("0 0 0 1 1 * 2020", []),
        ("@daily", ["2026-01-02T00:00:00+00:00", "2026-01-03T00:00:00+00:00", "2026-01-04T00:00:00+00:00"]),
    ],
)
def test_what_an_expression_says(expression: str, expected: list[str]) -> None:
    assert expected == first(Cron(expression), 3)


@pytest.mark.parametrize(
    "expression",
    ["", "x", "* * * *", "61 * * * *", "0 0 30 2 *", "0 0 0 29 2 * 2027", "* * * * * * * *", "@reboot", None],
)
def test_what_never_fires_is_refused(expression: str) -> None:
    with pytest.raises(ValueError):
        Cron(expression)


@pytest.mark.parametrize("name", ["", "America", "Nowhere/Else", "../UTC", "/etc/localtime", 5])
def test_a_zone_that_does_not_exist_is_refused(name: str) -> None:
    with pytest.raises(ValueError):
        zone_of(name)


def test_hashed_and_random_fields_come_from_the_name_alone() -> None:
    """Every process must come to the same moments."""
    script = "from dbos._kernel.cron import *; print(*Cron('R H(3-5) * * *', name='me').between(EPOCH, EPOCH.replace(day=9)))"
    outputs = {
        subprocess.run(
            [sys.executable, "-c", script], capture_output=True, text=True, check=True, env=environment
        ).stdout
        for environment in (
            {**os.environ, "PYTHONHASHSEED": "1"},
            {**os.environ, "PYTHONHASHSEED": "2", "TZ": "Asia/Tokyo"},
        )
    }

    assert 1 == len(outputs)
    assert first(Cron("H H * * *", name="me"), 2) != first(Cron("H H * * *", name="you"), 2)


def test_the_moment_itself_and_parts_of_a_second_are_passed_over() -> None:
    cron = Cron("* * * * * *")
    moment = datetime(2026, 1, 1, 0, 0, 5, tzinfo=UTC)

    assert moment + timedelta(seconds=1) == cron.after(moment)
    assert moment + timedelta(seconds=1) == cron.after(moment + timedelta(milliseconds=999))
