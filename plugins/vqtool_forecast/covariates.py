"""Columns beside a series: known ahead of time (promotions, calendars) or observed with it, on the series' calendar."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from vqtool.errors import VqtoolError
from vqtool_forecast import frequency
from vqtool_forecast.columns import ReadOptions
from vqtool_forecast.numbers import Numbers, series_values
from vqtool_forecast.time_series import WARNING, Covariates, TimeSeries

if TYPE_CHECKING:
    import pandas as pd


def check_columns(table: pd.DataFrame, options: ReadOptions) -> None:
    """All columns that are asked for must be there, each in one role.

    Raises:
        VqtoolError: one is missing, or both known and observed.
    """
    for name in options.covariates:
        if name not in table.columns:
            there = ", ".join(f"`{c}`" for c in table.columns[:12])
            raise VqtoolError(f"there is no column `{name}`, which `known` or `observed` names; there are {there}")
        if options.covariates.count(name) > 1:
            raise VqtoolError(f"`{name}` is named twice in `known` and `observed`", hint="each column once")


def beside(
    numbers: Numbers, options: ReadOptions, rows: NDArray[np.intp], stamps: pd.Index, series: str
) -> Covariates | None:
    """What stands beside a series in `rows` (from 0 on); None where nothing is asked for."""
    if not options.covariates:
        return None
    for name in options.covariates:
        if wrong := numbers.wrong.get(name):
            row, cell = min(wrong.items())
            raise VqtoolError(
                f"`{cell}` in row {row + 1} of `{name}` is not a number",
                hint="`known` and `observed` are columns of numbers; of words, a column of 0 and 1 for each",
            )
    values = np.stack([series_values(numbers, name, rows, series) for name in options.covariates], axis=1)
    return Covariates(options.covariates, stamps, values, rows + 1)


def without_future(one: TimeSeries) -> TimeSeries:
    """A series without the rows after its last value: they are there for what is known ahead."""
    known = np.flatnonzero(np.isfinite(one.values))
    return one.only(np.arange(len(one.values)) <= known[-1]) if len(known) else one


def aligned(one: TimeSeries, freq: str, options: ReadOptions) -> TimeSeries:
    """A series on its calendar, with its covariates on the same, as far as they go beyond its last value.

    Gaps are filled if `options.fill` says so; what is only observed is filled by earlier values, and ends with the
    series.

    Raises:
        VqtoolError: a value is missing up to the series' last one.
    """
    import pandas as pd

    raw = one.covariates
    if raw is None:
        return one
    n, grid, last = len(one.stamps), one.stamps, raw.stamps.max()
    if last > grid[-1]:
        grid = grid.append(frequency.between(grid[-1], last, freq)[1:])
    place = pd.Series(grid.get_indexer(raw.stamps))
    there = (place >= 0).to_numpy()
    values = np.where(np.isin(raw.values, options.sentinels), np.nan, raw.values)
    rows_of = pd.DataFrame(values[there]).groupby(place[there].to_numpy())
    placed = getattr(rows_of, options.repeated if options.repeated in ("first", "last") else "mean")()
    values = placed.reindex(range(len(grid))).to_numpy(copy=True)  # which may be filled below
    rows = pd.Series(raw.rows[there]).groupby(place[there].to_numpy()).first().reindex(range(len(grid))).fillna(0)
    if options.fill != "none":
        for k, name in enumerate(raw.names):
            straight = options.fill == "interp" and name in options.known
            values[:, k] = filled(values[:, k], straight=straight)
    values[n:, len(options.known) :] = np.nan
    missing = np.argwhere(np.isnan(values[:n]))
    if len(missing):
        at, k = missing[0]
        row = f"row {rows[at]:.0f} ({grid[at]})" if rows[at] else f"the row of {grid[at]}"
        raise VqtoolError(f"series `{one.id}`: {row} has no `{raw.names[k]}`",
                          hint="--fill ffill or --fill interp fills gaps between values")  # fmt: skip
    return replace(one, covariates=Covariates(raw.names, grid, values, rows.to_numpy().astype(np.int64)))


def filled(values: NDArray[np.float64], *, straight: bool) -> NDArray[np.float64]:
    """Gaps between two values filled, with the earlier one or on a straight line; none at the ends."""
    places = np.flatnonzero(np.isfinite(values))
    if not len(places):
        return values
    full, inside = values.copy(), slice(places[0], places[-1] + 1)
    if straight:
        full[inside] = np.interp(np.arange(len(values))[inside], places, values[places])
    else:
        full[inside] = values[places[np.cumsum(np.isfinite(values[inside])) - 1]]
    return full


def unused(options: ReadOptions) -> list[str]:
    """A warning, as a note, where columns are asked for that the model does not read."""
    names = ", ".join(f"`{name}`" for name in options.covariates)
    return [f"{WARNING}this model reads no columns beside a series: {names} not used"] if names else []


def check_ahead(one: TimeSeries, known: tuple[str, ...], at: int, steps: int) -> None:
    """Everything that is known ahead must be there for all `steps` from row `at` of a series on.

    Raises:
        VqtoolError: naming the column, the series, and for how many steps it is there.
    """
    assert one.covariates is not None
    ahead = one.covariates.values[at : at + steps]
    for k, name in enumerate(known):
        finite = np.isfinite(ahead[:, k])
        have = int(finite.argmin()) if not finite.all() else len(finite)
        if have < steps:
            raise VqtoolError(
                f"`{name}` of series `{one.id}` is known for {have} of the {steps} steps after {one.stamps[at - 1]}",
                hint=f"rows of these times with `{name}` filled in and the value to forecast empty, or fewer --steps",
            )
