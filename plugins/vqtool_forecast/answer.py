"""Forecasts told: written to CSV or Parquet, drawn, and scored beside their rivals."""

from __future__ import annotations

import io
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from vqtool.api import Forecast
from vqtool.errors import VqtoolError, missing_extra
from vqtool.files import text_cell, write_atomic
from vqtool_forecast.frame import pandas
from vqtool_forecast.scores import PointErrors, QuantileErrors, in_sample

PANELS = 12  # the most forecasts in one picture


def write(path: Path, forecasts: Sequence[Forecast]) -> None:
    """`unique_id, ds, median, q0.1, ...`; of a backtest also `cutoff` and `y`, and a column for every rival."""
    first = forecasts[0]
    steps = [len(one.ds) for one in forecasts]
    columns: dict[str, Any] = {
        "unique_id": np.repeat([one.id for one in forecasts], steps),
        "ds": [stamp for one in forecasts for stamp in one.ds],
    }
    if first.actual is not None:
        columns["cutoff"] = np.repeat([one.cutoff for one in forecasts], steps)
        columns["y"] = np.concatenate([np.asarray(one.actual) for one in forecasts])
    columns["median"] = np.concatenate([np.asarray(one.median) for one in forecasts])
    for name in first.quantiles:
        columns[f"q{name}"] = np.concatenate([np.asarray(one.quantiles[name]) for one in forecasts])
    for name in first.baselines:
        columns[name] = np.concatenate([np.asarray(one.baselines[name]) for one in forecasts])
    write_table(path, columns)


def write_table(path: Path, columns: Mapping[str, Any]) -> None:
    """A table as the file's name says: Parquet with real time stamps, or CSV. Whole or not at all."""
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
        raise VqtoolError(f"`{path.name}` is of a kind that is not written", hint="--out FILE.csv, .csv.gz or .parquet")
    write_atomic(path, content.getvalue())


def plot(path: Path, forecasts: Sequence[Forecast]) -> None:
    """A panel a forecast: the history's end, the median, the fan of the central intervals, and what came if known."""
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
        told = ", ".join(f"{100 * (float(high) - float(low)):g}" for low, high in pairs)
        for low, high in pairs:
            axes.fill_between(after, one.quantiles[low], one.quantiles[high], color="tab:blue", lw=0,
                              alpha=0.55 / len(pairs), label=f"{told} %" if low == levels[0] else None)  # fmt: skip
        joined, name = [one.past[-1], *one.median], "median" if levels else "forecast"  # from the last value on
        axes.plot(np.arange(-1, len(one.ds)), joined, color="tab:blue", lw=1.4, label=name)
        if one.actual is not None:
            axes.plot(after, one.actual, color="0.25", lw=1, ls=":", label="what came")
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
        raise VqtoolError(f"`{path.name}` is of a kind that is not drawn: {error}", hint="--plot FILE.png") from error
    write_atomic(path, content.getvalue())


def scores(
    forecasts: Sequence[Forecast], before: Mapping[str, NDArray[np.float64]], season: int, notes: list[str]
) -> dict[str, Any]:
    """`{"overall": ..., "series": {id: ...}}`, each `{"model": metrics, "baselines": {name: metrics}}`.

    In the series' own units, over measured values: filled ones are NaN. `before` holds each series up to the first
    cutoff, for the denominators of MASE and RMSSE.
    """
    ids = list(before)
    scales = [in_sample(torch.from_numpy(np.ascontiguousarray(before[name])), season) for name in ids]
    flat = [f"`{name}`" for name, (mase, _) in zip(ids, scales, strict=True) if mase is None]
    if flat:
        notes.append(f"no MASE, for want of any seasonal change before the first cutoff: {', '.join(flat[:5])}")
    mase, rmsse = (torch.tensor([s[i] if s[i] is not None else torch.nan for s in scales]).double() for i in (0, 1))
    of = torch.tensor([ids.index(one.id) for one in forecasts])
    truth = torch.tensor(np.stack([np.asarray(one.actual) for one in forecasts]))
    if filled := int(truth.isnan().sum()):
        notes.append(f"{filled} of {truth.numel()} values to forecast were filled in, not measured, and are not scored")
    zero, one_ = torch.zeros(len(of)).double(), torch.ones(len(of)).double()
    points: dict[str, PointErrors] = {}
    for name in ("", *forecasts[0].baselines):
        guess = np.stack([np.asarray(one.baselines[name] if name else one.median) for one in forecasts])
        points[name] = PointErrors(len(ids))
        points[name].add(of, truth, torch.tensor(guess), zero, one_)
    levels = list(forecasts[0].quantiles)
    spread = QuantileErrors(len(ids), [float(q) for q in levels])
    if levels:
        each = np.stack([[np.asarray(one.quantiles[q]) for q in levels] for one in forecasts])
        spread.add(of, truth, torch.tensor(each), zero, one_)

    def told(only: int | None) -> dict[str, Any]:
        figures = {name: errors.figures(mase, rmsse, only) for name, errors in points.items()}
        return {"model": figures.pop("") | (spread.figures(only) if levels else {}), "baselines": figures}

    return {"overall": told(None), "series": {name: told(s) for s, name in enumerate(ids)}}
