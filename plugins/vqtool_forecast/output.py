"""Forecasts for the user: tables in CSV or Parquet, and pictures."""

from __future__ import annotations

import io
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from vqtool.api import Forecast
from vqtool.errors import VqtoolError, missing_extra
from vqtool.files import text_cell, write_atomic
from vqtool_forecast.read_table import pandas

PANELS = 12  # the most forecasts in one picture


def write_forecasts(path: Path, forecasts: Sequence[Forecast]) -> None:
    """`unique_id, ds, median, q0.1, ...`; of a backtest also `cutoff` and `y`, and a column for every baseline."""
    first = forecasts[0]
    steps = [len(one.ds) for one in forecasts]
    columns: dict[str, Any] = {
        "unique_id": np.repeat([one.id for one in forecasts], steps),
        "ds": [stamp for one in forecasts for stamp in one.ds],
    }

    def joined(values: Iterable[Sequence[float]]) -> NDArray[np.float64]:
        return np.concatenate([np.asarray(each) for each in values])

    if first.actual is not None:
        columns["cutoff"] = np.repeat([one.cutoff for one in forecasts], steps)
        columns["y"] = joined(one.actual for one in forecasts)  # type: ignore[misc]  # of a backtest
    columns["median"] = joined(one.median for one in forecasts)
    for name in first.quantiles:
        columns[f"q{name}"] = joined(one.quantiles[name] for one in forecasts)
    for name in first.baselines:
        columns[name] = joined(one.baselines[name] for one in forecasts)
    write_table(path, columns)


def write_table(path: Path, columns: Mapping[str, Any]) -> None:
    """A table as the file's name says: Parquet with real time stamps, or CSV. Written whole or not at all."""
    pd = pandas("writing series")
    table = pd.DataFrame(dict(columns))
    kind = [s.lower() for s in path.suffixes]
    content = io.BytesIO()
    if kind[-1:] in ([".parquet"], [".pq"]):
        for name in {"ds", "cutoff"} & set(table):
            whole = table[name].str.fullmatch(r"-?\d{1,18}").all() and not table[name].str.fullmatch(r"\d{4}").all()
            table[name] = table[name].astype(np.int64) if whole else pd.to_datetime(table[name], format="ISO8601")
        table.to_parquet(content, index=False)
    elif kind[-1:] == [".csv"] or kind[-2:] == [".csv", ".gz"]:
        table["unique_id"] = [text_cell(str(name)) for name in table["unique_id"]]
        packed = {"method": "gzip", "mtime": 0} if kind[-1] == ".gz" else None  # the same bytes again
        table.to_csv(content, index=False, compression=packed, lineterminator="\n")
    else:
        raise VqtoolError(f"cannot write a table as `{path.name}`", hint="--out FILE.csv, .csv.gz or .parquet")
    write_atomic(path, content.getvalue())


def plot_forecasts(path: Path, forecasts: Sequence[Forecast]) -> None:
    """A panel a forecast: the history's end, the median, the fan of the central intervals, and the truth if known."""
    try:
        from matplotlib.figure import Figure
    except ImportError as error:
        raise missing_extra("matplotlib", "plot", "--plot") from error
    shown = forecasts[:PANELS]
    figure = Figure(figsize=(9, 0.6 + 2.2 * len(shown)), layout="constrained")
    for axes, one in zip(figure.subplots(len(shown), squeeze=False)[:, 0], shown, strict=True):
        kept = min(len(one.past), max(3 * len(one.ds), 24))
        before, after = np.arange(-kept, 0), np.arange(len(one.ds))
        axes.plot(before, np.asarray(one.past)[-kept:], color="0.25", lw=1, label="history")
        levels = sorted(one.quantiles, key=float)
        pairs = list(zip(levels, reversed(levels), strict=True))[: len(levels) // 2]
        percent = ", ".join(f"{100 * (float(high) - float(low)):g}" for low, high in pairs)
        for low, high in pairs:
            axes.fill_between(after, one.quantiles[low], one.quantiles[high], color="tab:blue", lw=0,
                              alpha=0.55 / len(pairs), label=f"{percent} %" if low == levels[0] else None)  # fmt: skip
        joined, name = [one.past[-1], *one.median], "median" if levels else "forecast"  # from the last value on
        axes.plot(np.arange(-1, len(one.ds)), joined, color="tab:blue", lw=1.4, label=name)
        if one.actual is not None:
            axes.plot(after, one.actual, color="0.25", lw=1, ls=":", label="truth")
        places = np.unique(np.linspace(-kept, len(one.ds) - 1, 5).astype(int))
        stamps = [*list(one.past_ds)[-kept:], *one.ds]
        axes.set_xticks(places, [stamps[p + kept] for p in places])
        axes.set_title(one.id, loc="left", fontsize=10, parse_math=False)
        axes.spines[["top", "right"]].set_visible(False)
        if one is shown[0]:
            figure.legend(*axes.get_legend_handles_labels(), loc="outside upper right", ncols=8, frameon=False)
    content = io.BytesIO()
    try:
        figure.savefig(content, format=path.suffix[1:].lower() or "png", dpi=120)
    except ValueError as error:
        raise VqtoolError(f"cannot draw a picture as `{path.name}`: {error}", hint="--plot FILE.png") from error
    write_atomic(path, content.getvalue())
