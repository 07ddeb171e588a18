"""What must hold of any forecaster, through the commands' own code: no look-ahead, no company, no drift."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from tests.forecast.tiny import frame, long
from vqtool.commands import forecast as forecast_command

DECILES = "0.1,0.2,0.3,0.4,0.5,0.6,0.7,0.8,0.9"
ASKED: dict[str, Any] = {
    "data": None, "overrides": [], "cutoff": None, "freq": None, "fill": None, "quantiles": DECILES, "samples": 12,
    "temperature": None, "top_k": None, "top_p": None, "greedy": False, "seed": 0, "device": "cpu",
    "force": True,
}  # fmt: skip
LAST = "2020-03-20 07:00:00"  # row 463 of the tiny data


def forecast(run: Path, out: Path, steps: int, **asked: Any) -> pd.DataFrame:
    """What `vqtool forecast` writes."""
    given = ASKED | {"plot": None} | asked
    assert forecast_command.run(checkpoint=run, steps=steps, out_file=out, **given) == 0
    return read(out)


def backtest(run: Path, out: Path, horizon: int, n_windows: int, **asked: Any) -> pd.DataFrame:
    """What `vqtool backtest` writes."""
    given = ASKED | {"step_size": None} | asked
    assert forecast_command.backtest(checkpoint=run, horizon=horizon, n_windows=n_windows, out_file=out, **given) == 0
    return read(out)


def read(path: Path) -> pd.DataFrame:
    """A written table."""
    return pd.read_parquet(path) if path.suffix == ".parquet" else pd.read_csv(path)


def told(table: pd.DataFrame) -> pd.DataFrame:
    """The model's columns alone."""
    return table[[c for c in table.columns if c in ("unique_id", "ds", "median") or c.startswith("q0")]]


def no_look_ahead(run: Path, folder: Path) -> None:
    """Rows after the cutoff may change, vanish or be rubbish."""
    first = forecast(run, folder / "a.csv", 9, cutoff=LAST)
    table = frame()
    changed = table.assign(a=table.a.where(table.index < 464, 1e9), b=table.b.where(table.index < 464, np.nan))
    for name, other in (("changed", changed), ("gone", table.iloc[:464])):
        other.to_csv(folder / f"{name}.csv", index=False)
        again = forecast(run, folder / "b.csv", 9, cutoff=LAST, data=folder / f"{name}.csv")
        pd.testing.assert_frame_equal(first, again, check_exact=True)
    assert list(first[first.unique_id == "a"].ds[:2]) == ["2020-03-20 08:00:00", "2020-03-20 09:00:00"]


def a_backtest_is_forecasts_of_what_was_known(run: Path, folder: Path) -> None:
    """Every window of a backtest is what `forecast` says with that cutoff."""
    windows = backtest(run, folder / "w.csv", 6, 3, step_size=11)
    assert windows.cutoff.nunique() == 3
    for cutoff, rows in windows.groupby("cutoff"):
        alone = forecast(run, folder / "f.csv", 6, cutoff=cutoff)
        pd.testing.assert_frame_equal(told(rows).reset_index(drop=True), told(alone), rtol=1e-5, atol=1e-9)
        true = long(frame()).merge(rows[["unique_id", "ds"]])
        np.testing.assert_allclose(true.y, rows.y)


def scale_and_shift(run: Path, folder: Path) -> None:
    """forecast(a x + b) = a forecast(x) + b, for sizes from micro to mega."""
    table = frame()
    plain = forecast(run, folder / "p.csv", 12)
    for a, b in ((1e-3, 0.0), (1.0, 1000.0), (1e6, -5e5), (1e-6, 0.0)):
        moved = table.assign(a=a * table.a + b, b=a * table.b + b)
        moved.to_csv(folder / "moved.csv", index=False)
        other = forecast(run, folder / "m.csv", 12, data=folder / "moved.csv")
        for name in ("a", "b"):
            x, y = (t[t.unique_id == name].drop(columns=["unique_id", "ds"]).to_numpy() for t in (plain, other))
            size = a * np.ptp(x) + a * float(table[name].std())
            np.testing.assert_allclose(y, a * x + b, atol=1e-4 * size + 2e-7 * abs(b), rtol=0)


def a_longer_forecast_begins_with_the_shorter(run: Path, folder: Path, longest: int = 97) -> None:
    """Exactly as many rows as steps, and the first ones do not depend on how many follow."""
    whole = told(forecast(run, folder / "whole.csv", longest))
    for steps in (1, 3, 30, 33, 96):
        if steps > longest:
            continue
        some = told(forecast(run, folder / "some.csv", steps))
        assert len(some) == 2 * steps
        for name in ("a", "b"):
            one, two = (t[t.unique_id == name].reset_index(drop=True) for t in (whole[: 2 * longest], some))
            pd.testing.assert_frame_equal(one[:steps], two, rtol=1e-5, atol=1e-7)


def company_changes_nothing(run: Path, folder: Path) -> None:
    """A series alone, among many, and in another order."""
    rng = np.random.default_rng(3)
    table = long(frame())
    more = [table[table.unique_id == "a"].assign(unique_id=f"x{i}", y=rng.standard_normal(600)) for i in range(33)]
    pd.concat([*more, table]).to_csv(folder / "many.csv", index=False)
    table[table.unique_id == "b"].to_csv(folder / "one.csv", index=False)
    many = forecast(run, folder / "many_out.csv", 7, data=folder / "many.csv", samples=9)
    one = forecast(run, folder / "one_out.csv", 7, data=folder / "one.csv", samples=9)
    both = many[many.unique_id == "b"].reset_index(drop=True)
    pd.testing.assert_frame_equal(both, one, rtol=1e-4, atol=1e-9)


def seeds(run: Path, folder: Path) -> None:
    """The same seed, the same bytes; another, other paths; greedy has no seed."""
    for name, seed in (("one", 1), ("same", 1), ("other", 2)):
        forecast(run, folder / f"{name}.csv", 8, seed=seed)
    one, same, other = ((folder / f"{name}.csv").read_bytes() for name in ("one", "same", "other"))
    assert one == same
    assert one != other
    greedy = [forecast(run, folder / "g.csv", 8, seed=seed, greedy=True) for seed in (1, 2)]
    pd.testing.assert_frame_equal(*greedy)
    assert list(greedy[0].columns) == ["unique_id", "ds", "median"]


def quantiles_do_not_cross(run: Path, folder: Path) -> None:
    """Ascending at every step, and the median is the middle one."""
    table = forecast(run, folder / "q.csv", 12, samples=40)
    values = table[[f"q0.{k}" for k in range(1, 10)]].to_numpy()
    assert np.isfinite(values).all()
    assert (np.diff(values, axis=1) >= 0).all()
    np.testing.assert_allclose(table["median"], table["q0.5"])


LAWS = (
    no_look_ahead,
    a_backtest_is_forecasts_of_what_was_known,
    scale_and_shift,
    a_longer_forecast_begins_with_the_shorter,
    company_changes_nothing,
    seeds,
    quantiles_do_not_cross,
)
