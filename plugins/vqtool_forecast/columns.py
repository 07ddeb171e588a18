"""Which columns of a table are ids, times and values, by the names that people use; what was recognised is noted."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import combinations
from typing import TYPE_CHECKING, Annotated, Literal

import numpy as np
from annotated_doc import Doc
from annotated_types import Ge

from vqtool.errors import VqtoolError
from vqtool_forecast.dialect import plain
from vqtool_forecast.numbers import Decimal, is_flag, is_mostly_words, is_text
from vqtool_forecast.time_columns import TIME_NAMES, joined_times, listed, time_column

if TYPE_CHECKING:
    import pandas as pd

REPEATING = 0.2  # share of the rows of a long file whose time was there before, at least
FEWEST_ROWS = 3  # of a series in a long file, on average
ROWS = "#"  # in place of a time column: the rows are counted
ID_NAMES = ("uniqueid", "itemid", "seriesid", "tsid", "ticker", "symbol", "sensorid", "storeid", "id", "series", "item",
            "store", "key", "name", "level0")  # fmt: skip
TARGET_NAMES = (
    "y",
    "target",
    "value",
    "values",
    "close",
    "price",
    "sales",
    "demand",
    "load",
    "consumption",
    "obsvalue",
)


@dataclass(frozen=True, slots=True, kw_only=True)
class ReadOptions:
    """How to read a file: the options of every data kind that reads series."""

    layout: Annotated[Literal["auto", "long", "wide"], Doc("a row per value with an id, or a column per series")] = (
        "auto"
    )
    id: Annotated[str, Doc("column that names the series of a long file; several: store,item")] = "unique_id"
    time: Annotated[str, Doc("column of time stamps; by default `ds`, or the one column without numbers")] = ""
    target: Annotated[str, Doc("column of a long file that holds the values")] = "y"
    series: Annotated[tuple[str, ...], Doc("the series to take; all by default")] = ()
    freq: Annotated[str, Doc("step of the calendar: h, 15min, D, B, W, M, Q, Y; inferred by default")] = ""
    time_format: Annotated[str, Doc("how stamps are written, as %d/%m/%Y; ISO needs none")] = ""
    timezone: Annotated[str, Doc("the stamps' zone, as Europe/Berlin, where days of summer time count")] = ""
    fill: Annotated[
        Literal["none", "ffill", "interp"], Doc("what to do with gaps, NaN and sentinels; none makes them errors")
    ] = "none"
    sentinels: Annotated[tuple[float, ...], Doc("values that stand for a missing one")] = (-999.0, -9999.0, -99999.0)
    encoding: Annotated[str, Doc("how text is written, as latin-1; by default seen from the bytes")] = ""
    decimal: Annotated[Decimal, Doc("the decimal mark; the other one marks thousands")] = "auto"
    header: Annotated[bool, Doc("whether the first line of text names the columns")] = True
    repeated: Annotated[
        Literal["none", "first", "last", "mean", "sum"],
        Doc("what to take of rows of one time; none makes them errors"),
    ] = "none"
    sort: Annotated[bool, Doc("sort the rows of each series by time")] = False
    until: Annotated[str, Doc("ignore the rows after this time")] = ""
    leave_out: Annotated[int, Ge(0), Doc("rows at the end of each series that are not read")] = 0
    known: Annotated[
        tuple[str, ...], Doc("columns known ahead, as promotions; their future stands in rows without a value")
    ] = ()
    observed: Annotated[tuple[str, ...], Doc("columns that are known up to the last value only")] = ()

    @property
    def covariates(self) -> tuple[str, ...]:
        """The columns beside the values: the known ones, then the observed."""
        return (*self.known, *self.observed)

    @property
    def text(self) -> tuple[str, ...]:
        """The columns that are names, whatever is in them."""
        if self.layout == "wide":
            return ()
        return (*self.id.split(","), self.id, *(ID_NAMES[:8] if self.id == "unique_id" else ()))


@dataclass(frozen=True, slots=True)
class Columns:
    """What the columns of a table are; a wide table has no id and no target."""

    time: str
    id: str = ""
    target: str = ""

    @property
    def long(self) -> bool:
        """Whether there is a row for each value."""
        return bool(self.id)


def find_columns(table: pd.DataFrame, options: ReadOptions, notes: list[str]) -> tuple[pd.DataFrame, Columns]:
    """What the columns are; the table is another one where times or ids were put together from several columns."""
    parts = options.id.split(",")
    if options.id not in table.columns and len(parts) > 1 and set(parts) <= set(table.columns):
        table = table.assign(**{options.id: table[parts].astype(str).agg("/".join, axis=1)}).drop(columns=parts)
    if options.time == ROWS:
        return table.assign(**{ROWS: np.arange(1, len(table) + 1)}), Columns(ROWS)
    wanted = Columns(options.time or "ds", options.id, options.target)
    missing = [name for name in (wanted.id, wanted.time, wanted.target) if name not in table.columns]
    joined = ""
    if missing and options.time not in table.columns:
        table, joined = joined_times(table, notes)
        missing = [name for name in missing if name not in table.columns]
    there = list(table.columns)
    if options.layout == "long" or (options.layout == "auto" and not missing):
        if missing:
            raise VqtoolError(
                f"a long file needs the column{'s' if len(missing) > 1 else ''} {listed(missing)}; "
                f"it has {listed(there)}",
                hint=long_form(table, options.time or joined or _any_time(table))
                or 'name yours: -s data.id="..." -s data.time="..." -s data.target="..."',
            )
        return table, wanted
    if options.time and options.time not in there:
        raise VqtoolError(f"there is no column `{options.time}`; there are {listed(there)}")
    if options.layout == "auto" and (found := _by_name(table, options, joined)):
        notes.append(f"read as a long file: ids in `{found.id}`, times in `{found.time}`, values in `{found.target}`")
        return table, found
    time = options.time or joined or time_column(table)
    if options.layout == "auto" and options.id not in there and (hint := long_form(table, time)):
        both = listed(c for c in there if c in (time, *likely_ids(table, time)))
        raise VqtoolError(f"which of the columns {both} is the time, and which names the series?", hint=hint)
    return table, Columns(time)


def _by_name(table: pd.DataFrame, options: ReadOptions, joined: str) -> Columns | None:
    """The columns of a long file under other names that people use; None where one of the three is missing."""
    names = {plain(name): str(name) for name in reversed(table.columns)}

    def named(given: str, usual: str, known: Sequence[str]) -> str:
        if given and given != usual:
            return given if given in table.columns else ""
        return next((names[name] for name in known if name in names), "")

    found = Columns(
        joined or named(options.time, "", TIME_NAMES), named(options.id, "unique_id", ID_NAMES),
        named(options.target, "y", TARGET_NAMES),
    )  # fmt: skip
    if not (found.time and found.id and found.target) or len({found.time, found.id, found.target}) < 3:
        return None
    return found if is_text(table[found.id]) or plain(found.id) in ID_NAMES[:4] else None


def _any_time(table: pd.DataFrame) -> str:
    """The column of times; "" where there is none or more than one."""
    try:
        return time_column(table)
    except VqtoolError:
        return ""


def likely_ids(table: pd.DataFrame, time: str) -> list[str]:
    """The fewest columns of names or whole numbers that tell apart all rows of the same time; [] where none do."""
    n = len(table)
    several = {c: table[c].nunique() for c in table.columns if c != time and not is_flag(table[c])
               and (is_text(table[c]) or table[c].dtype.kind in "iuO")}  # fmt: skip
    some = [c for c, many in several.items() if 2 <= many <= n / FEWEST_ROWS]
    if not some or table[time].duplicated().mean() < REPEATING:
        return []
    some.sort(key=lambda c: (not is_text(table[c]), plain(c) not in ID_NAMES, several[c]))
    for size in (1, 2, 3):
        for ids in combinations(some[:8], size):
            groups = table.groupby(list(ids), dropna=False).ngroups
            if groups <= n / FEWEST_ROWS and not table.duplicated([*ids, time]).any():
                return [c for c in table.columns if c in ids]
    return []


def long_form(table: pd.DataFrame, time: str) -> str:
    """The options that read a table as a long file; "" where it does not look like one."""
    if time not in table.columns or not (ids := likely_ids(table, time)):
        return ""
    values = [c for c in table.columns if c not in (*ids, time) and not is_mostly_words(table[c])
              and not is_flag(table[c]) and not str(c).startswith("Unnamed")]  # fmt: skip
    named = [c for name in TARGET_NAMES for c in values if plain(c) == name]
    parts = [c for c in values if table[c].dtype.kind == "f"]  # rather than whole numbers, which may be a code
    target = (named or parts or values or ["..."])[0]
    return f'-s data.layout=long -s data.id="{",".join(ids)}" -s data.time="{time}" -s data.target="{target}"'


def series_columns(table: pd.DataFrame, time: str, options: ReadOptions, notes: list[str]) -> list[str]:
    """The columns of a wide file that may be series: unless some are asked for, no id, index, flags or words."""
    there = [str(c) for c in table.columns if c != time and c not in options.covariates]
    if options.series:
        return there
    if options.layout == "auto" and options.id in there and options.time != ROWS:
        others = listed(c for c in table.columns if c != options.id)
        raise VqtoolError(
            f"`{options.id}` names the series of a long file, but which of {others} are its times and values?",
            hint=f"{long_form(table, time)}; if it is a series: -s data.layout=wide".removeprefix("; "),
        )
    left_out = {c: "true or false" for c in there if is_flag(table[c])}
    left_out |= {c: "text" for c in there if c not in left_out and is_mostly_words(table[c])}
    if "Unnamed: 0" in there and len(there) > 1:
        left_out["Unnamed: 0"] = "a column without a name, as of an index"
    notes += [f"`{name}` is not a series ({why}) and is left out" for name, why in left_out.items()]
    if len(left_out) == len(there):
        words = "; ".join(f"`{c}` has cells like `{str(table[c].iloc[0])[:30]}`" for c in there[:3])
        raise VqtoolError(f"no column is a series: {listed(there)}", hint=f"columns of numbers; {words}")
    return [name for name in there if name not in left_out]
