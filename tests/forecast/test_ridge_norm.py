"""The linear forecast inside the norm: exact on what is linear, blind to units, fitted on training windows."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch

from vqtool_forecast import frequency
from vqtool_forecast.data.series import Series
from vqtool_forecast.norms.ridge import RidgeNorm
from vqtool_forecast.ridge import seasonal_mean


def opened(folder: Path, table: pd.DataFrame, **options: object) -> Series:
    table.to_csv(folder / "s.csv", index=False)
    return Series(path=folder / "s.csv", **({"lookback": 48, "horizons": (6, 12)} | options))


def waves(rows: int = 900, noise: float = 0.0) -> pd.DataFrame:
    """Two hourly series that two sines and a level make up: linear in their own past."""
    rng, hour = np.random.default_rng(0), np.arange(rows) * 2 * np.pi / 24
    stamps = pd.date_range("2021-05-01 07:00", periods=rows, freq="h")
    walk = noise * rng.standard_normal((2, rows)).cumsum(1)
    return pd.DataFrame(
        {"date": stamps, "a": 5 + np.sin(hour) + walk[0], "b": np.cos(2 * hour) + 0.3 * np.sin(hour) + walk[1]}
    )


def fitted(data: Series, **options: bool) -> RidgeNorm:
    norm = RidgeNorm(data.spec, **options)
    norm.fit(data.rows("train"))
    return norm


@pytest.mark.parametrize("profile", [True, False])
def test_what_is_linear_is_predicted(tmp_path: Path, profile: bool) -> None:
    data = opened(tmp_path, waves())
    batch = data.rows("test").__getitems__(list(range(50)))
    centre, _ = fitted(data, profile=profile).future_stats(batch, 12)
    known = batch["future"].isfinite()
    assert float((centre - batch["future"])[known].abs().max()) < 0.05


def test_a_profile_knows_what_the_history_does_not(tmp_path: Path) -> None:
    """One series drops at a certain hour by more than its past hours show: noise hides it, the calendar does not."""
    rng = np.random.default_rng(0)
    stamps = pd.date_range("2021-05-01 07:00", periods=3000, freq="h")
    value = np.where(stamps.hour < 6, -1.0, 1.0) + rng.standard_normal(3000)
    data = opened(tmp_path, pd.DataFrame({"date": stamps, "a": value}))
    batch = data.rows("test").__getitems__(list(range(500)))
    known = batch["future"].isfinite()
    errors = [
        float((fitted(data, profile=p).future_stats(batch, 12)[0] - batch["future"])[known].square().mean())
        for p in (True, False)
    ]
    assert errors[0] < 0.98 * errors[1]


def test_the_forecast_of_a_scaled_history_is_scaled(tmp_path: Path) -> None:
    data = opened(tmp_path, waves(noise=0.1))
    norm, batch = fitted(data), data.rows("test").__getitems__(list(range(20)))
    centre, scale = norm.future_stats(batch, 12)
    for a, b in ((1e-3, 0.0), (1.0, 50.0), (1e6, -2e6)):
        other, larger = norm.future_stats({**batch, "x": a * batch["x"] + b}, 12)
        torch.testing.assert_close(other, a * centre + b, rtol=1e-4, atol=1e-4 * a)
        torch.testing.assert_close(larger, a * scale, rtol=1e-3, atol=0)


def test_unknown_series_and_stamps_have_no_profile(tmp_path: Path) -> None:
    data = opened(tmp_path, waves(noise=0.1))
    norm, batch = fitted(data), data.rows("test").__getitems__([0, 5])
    norm.shape.fill_(0.5)
    last = batch["x"][..., -1:]
    plain = last + (batch["x"] - last) @ norm.plain
    for lacking in ({"series": torch.tensor([-1, -1])}, {"phase": torch.tensor([-1, -1])}):
        torch.testing.assert_close(norm.future_stats({**batch, **lacking}, 12)[0], plain)
    assert not torch.allclose(norm.future_stats(batch, 12)[0], plain, atol=1e-4)
    torch.testing.assert_close(norm.future_stats(batch, 5)[0], norm.future_stats(batch, 12)[0][..., :5])


def test_the_place_in_the_season_moves_on_with_the_history(tmp_path: Path) -> None:
    data = opened(tmp_path, waves(noise=0.1))
    norm, rows = fitted(data), data.rows("test")
    now, later = rows.__getitems__([0]), rows.__getitems__([12])
    moved = norm.append(now, now["future"])
    assert torch.equal(moved["x"], later["x"])
    assert torch.equal(moved["phase"], later["phase"])


def test_only_rows_before_the_test_part_are_fitted_on(tmp_path: Path) -> None:
    table = waves(noise=0.1)
    one = fitted(opened(tmp_path, table))
    table.loc[table.index >= 720, ["a", "b"]] = 1e6
    other = fitted(opened(tmp_path, table))
    for name, value in one.state_dict().items():
        assert torch.equal(value, other.state_dict()[name]), name


@pytest.mark.parametrize(("lookback", "season"), [(48, 24), (50, 24), (5, 24), (7, 1)])
def test_the_seasonal_mean_reads_the_same_hours(lookback: int, season: int) -> None:
    weight = seasonal_mean(lookback, 30, season)
    torch.testing.assert_close(weight.sum(0), torch.ones(30, dtype=torch.float64))
    x = torch.arange(lookback, dtype=torch.float64) % season  # a sawtooth of the season's length
    result = x @ weight
    want = torch.arange(lookback, lookback + 30) % season
    seen = torch.isin(want, torch.arange(lookback) % season)
    torch.testing.assert_close(result[seen], want[seen].double())


@pytest.mark.parametrize(
    ("freq", "start", "season"),
    [("h", "2021-03-27 05:00", 24), ("15min", "2021-01-01 00:45", 96), ("D", "2020-02-27", 7), ("B", "2020-02-27", 5),
     ("W-TUE", "2020-01-07", 52), ("ME", "2019-11-30", 12), ("MS", "2019-11-01", 12), ("QS-FEB", "2019-11-01", 4),
     ("YS-JAN", "2001-01-01", 1), ("2h", "2020-02-29 22:00", 12)],
)  # fmt: skip
def test_stamps_are_numbered_one_after_the_other(freq: str, start: str, season: int) -> None:
    stamps = pd.date_range(start, periods=40, freq=freq)
    numbers = [frequency.number(stamp, freq) for stamp in stamps]
    assert np.diff(numbers).tolist() == [1] * 39
    if freq == "h":
        assert [n % season for n in numbers[:3]] == [5, 6, 7]
    if season == 12 and freq != "2h":
        assert numbers[0] % season == 10
    assert frequency.number(7, "1") == 7


@pytest.mark.parametrize("zone", ["Europe/Berlin", "America/New_York", "Australia/Sydney", "Europe/Moscow", "UTC"])
@pytest.mark.parametrize("freq", ["h", "15min", "4h", "D", "W-SUN", "MS"])
def test_a_stamp_s_number_does_not_depend_on_where_a_file_begins(zone: str, freq: str) -> None:
    """Over the changes of summer time, and Moscow's new zone in October 2014."""
    stamps = pd.date_range("2014-02-02", "2014-12-07", freq=freq, tz=zone)
    numbers = [frequency.number(stamp, freq) for stamp in stamps[:: max(1, len(stamps) // 200)]]
    assert len(set(np.diff(numbers))) == 1
    plain = pd.Timestamp("2014-02-02" if zone != "Australia/Sydney" else "2014-06-01")  # winter: the clock's time
    if freq in ("h", "15min", "D"):
        assert frequency.number(plain.tz_localize(zone), freq) % 24 == frequency.number(plain, freq) % 24 or (
            zone == "Europe/Moscow"
        )  # which kept another winter in 2000
