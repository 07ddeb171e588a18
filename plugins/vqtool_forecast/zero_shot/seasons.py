"""The season of a frequency, and the longer one above it."""

from __future__ import annotations

from vqtool_forecast.frequency import season_of
from vqtool_forecast.zero_shot.frame import LONGEST


def seasons_of(freq: str) -> tuple[int, int]:
    """Steps in the usual season and in the longer one: a week of hours, a year of days; the same where there is none.

    A day of seconds is too long to be read: it counts as no season.
    """
    season = season_of(freq)
    if season > LONGEST // 2:
        return 1, 1
    longer = {7: 364, 5: 260}.get(season, 7 * season if season >= 24 and season != 52 else season)
    return season, longer if longer <= LONGEST // 3 else season
