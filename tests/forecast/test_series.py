"""The data kind `series`: which windows there are, what they may see, and how they are scaled."""

from __future__ import annotations

import functools
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch

from tests.forecast.tiny import frame, long
from vqtool.api import DataSpec
from vqtool.errors import VqtoolError
from vqtool_forecast.data.series import Series
from vqtool_forecast.user_file import SeriesFiles

ETT = Path(__file__).parents[2] / "recipes" / "data" / "ETTh1.csv"
COUNTS = {96: 2785, 192: 2689, 336: 2545, 720: 2161}


@functools.cache
def etth1(lookback: int = 96) -> Series:
    """The benchmark's data."""
    return Series(path=ETT, protocol="ltsf", lookback=lookback)


def opened(folder: Path, table: pd.DataFrame, **options: object) -> Series:
    """The table as data, with short windows."""
    path = folder / "series.csv"
    table.to_csv(path, index=False)
    return Series(path=path, **({"lookback": 48, "horizons": (6, 12)} | options))  # type: ignore[arg-type]


@pytest.mark.parametrize("lookback", [96, 336])
def test_the_benchmark_s_windows_are_counted_as_it_counts_them(lookback: int) -> None:
    data = etth1(lookback)
    rows = data.rows("test")
    assert len(rows) == 7 * COUNTS[96]
    at = rows.at[rows.of == 3]
    assert (int(at[0]), int(at[-1])) == (11520, 14400 - 96)
    for horizon, count in COUNTS.items():
        assert int((at + horizon <= 14400).sum()) == count
    assert len(data.rows("valid")) == 7 * (2880 - 720 + 1)
    assert len(data.rows("train")) == 7 * (8640 - lookback - 720 + 1)


def test_a_history_ends_where_its_future_begins() -> None:
    data, table = etth1(), pd.read_csv(ETT)
    about = data.spec.metadata
    for split, index in (("train", 0), ("train", -1), ("valid", 5000), ("test", 2784), ("test", -1)):
        rows = data.rows(split)
        row = rows[index % len(rows)]
        s, at = int(row["series"]), int(row["at"])
        true = (table.iloc[:, s + 1].to_numpy() - about["mean"][s]) / about["std"][s]
        np.testing.assert_allclose(row["x"][0], true[at - 96 : at], rtol=1e-5, atol=1e-6)
        inside = min(720, data.rows(split).table.split(split)[1, s].item() - at)
        np.testing.assert_allclose(row["future"][0, :inside], true[at : at + inside], rtol=1e-5, atol=1e-6)
        assert row["future"][0, inside:].isnan().all()
        assert split == "test" or inside == 720


def test_the_scaler_sees_training_rows_only(tmp_path: Path) -> None:
    table = frame()
    data = opened(tmp_path, table)
    train = table.iloc[: int(600 * 0.7)]
    assert data.spec.metadata["mean"] == pytest.approx([train.a.mean(), train.b.mean()])
    assert data.spec.metadata["std"] == pytest.approx([train.a.std(ddof=0), train.b.std(ddof=0)])
    table.loc[420:, ["a", "b"]] *= 100
    changed = opened(tmp_path, table).spec
    assert changed.to_json() == data.spec.to_json()
    assert opened(tmp_path, table, scale="none").spec.metadata["std"] == [1, 1]


def test_splits_by_shares_leave_no_row_out(tmp_path: Path) -> None:
    rows = long(frame(400)).drop(index=range(330, 400))  # `a` is shorter
    table = opened(tmp_path, rows, shares=(0.6, 0.2, 0.2)).rows("train").table
    assert table.split("train").tolist() == [[0, 0], [198, 240]]
    assert table.split("valid").tolist() == [[198, 240], [264, 320]]
    assert table.split("test").tolist() == [[264, 320], [330, 400]]
    with pytest.raises(VqtoolError, match="sum to 1"):
        opened(tmp_path, rows, shares=(0.6, 0.2, 0.1))


def test_joint_channels(tmp_path: Path) -> None:
    data, apart = (opened(tmp_path, frame(), channels=kind) for kind in ("joint", "independent"))
    assert data.spec.fields["x"].shape == (2, 48)
    assert data.spec.channels == 2
    rows, alone = data.rows("test"), apart.rows("test")
    assert 2 * len(rows) == len(alone)
    batch = rows.__getitems__([0, 7])
    assert set(batch) == {"x", "future", "at", "phase"}
    for row, index in enumerate((0, 7)):
        both = alone.__getitems__([index, len(rows) + index])
        for name in ("x", "future"):
            assert torch.equal(batch[name][row], both[name][:, 0])
    uneven = long(frame(400)).drop(index=range(330, 400))
    with pytest.raises(VqtoolError, match="needs series of the same stamps"):
        opened(tmp_path, uneven, channels="joint")


def test_an_interpolated_value_never_leans_on_what_comes_after_the_history(tmp_path: Path) -> None:
    gap = slice(495, 505)
    table = frame()
    table.loc[gap, "a"] = np.nan
    one = opened(tmp_path, table, fill="interp").rows("test")
    table.loc[506:, "a"] += 50
    other = opened(tmp_path, table, fill="interp").rows("test")
    before = [i for i in range(len(one)) if one.of[i] == 0 and one.at[i] <= 506]
    assert len(before) > 20
    assert torch.equal(one.__getitems__(before)["x"], other.__getitems__(before)["x"])
    inside = one[before[[int(one.at[i]) for i in before].index(500)]]["x"][0]
    assert (inside[-5:] == inside[-6]).all()  # nothing was measured since row 494


def test_what_of_a_future_was_measured(tmp_path: Path) -> None:
    table = frame()
    table.loc[[300, 550, 551], "a"] = np.nan
    data = opened(tmp_path, table, fill="ffill")
    assert data.spec.fields["measured"].shape == (1, 12)
    batch = data.rows("test").__getitems__(list(range(len(data.rows("test")))))
    where = batch["at"][:, None, None] + torch.arange(12)
    gap = ((where == 550) | (where == 551)) & (batch["series"][:, None, None] == 0)
    inside = batch["future"].isfinite()
    assert torch.equal(batch["measured"][inside], ~gap[inside])
    kept = table["a"].iloc[:420]
    step = ((kept - kept.mean()) / kept.std(ddof=0)).diff(24).dropna()  # pandas' differences from and to gaps are none
    assert data.spec.metadata["mase_scale"][0] == pytest.approx(step.abs().mean())
    assert "measured" not in opened(tmp_path, frame()).rows("test")[0]


def test_windows_that_do_not_fit_and_strides(tmp_path: Path) -> None:
    with pytest.raises(VqtoolError, match=r"no window of 48 \+ 100 rows fits into the valid part"):
        opened(tmp_path, frame(), horizons=(100,))
    full, thin = (opened(tmp_path, frame(), test_stride=k, train_stride=k).rows("test") for k in (1, 4))
    assert torch.equal(thin.at[thin.of == 1], full.at[full.of == 1][::4])
    with pytest.raises(VqtoolError, match="needs 14400 rows of `h`; a series has 600"):
        opened(tmp_path, frame(), protocol="ltsf")
    daily = frame().assign(date=pd.date_range("2020-01-01", periods=600, freq="D"))
    with pytest.raises(VqtoolError, match="for steps of hours or minutes, not `D`"):
        opened(tmp_path, daily, protocol="ltsf")


def test_a_constant_series(tmp_path: Path) -> None:
    data = opened(tmp_path, frame().assign(a=7.0, b=0.0))
    assert data.spec.metadata["std"] == [7, 1]
    assert data.spec.metadata["mase_scale"] == [None, None]
    assert "no MASE without any seasonal change in the training rows: `a`, `b`" in data.notes
    assert (data.rows("train")[0]["x"] == 0).all()


@pytest.mark.parametrize("channels", ["independent", "joint"])
@pytest.mark.parametrize("name", ["back.csv", "back.parquet"])
def test_a_file_cut_into_windows_comes_back_in_its_own_units(tmp_path: Path, channels: str, name: str) -> None:
    table = frame()
    spec = DataSpec.from_json(opened(tmp_path, table, channels=channels).spec.to_json())
    files = SeriesFiles(spec)
    (piece,) = files.open(tmp_path / "series.csv")
    assert piece.batch["x"].shape == ((12, 2, 48) if channels == "joint" else (24, 1, 48))
    assert "the first 24 rows of `a` fill no window and are left out" in piece.notes
    assert files.save(tmp_path / name, iter([piece])) == [tmp_path / name]
    back = pd.read_csv(tmp_path / name) if name.endswith("csv") else pd.read_parquet(tmp_path / name)
    wide = back.pivot(index="ds", columns="unique_id", values="y")
    np.testing.assert_allclose(wide[["a", "b"]], table[["a", "b"]].iloc[24:], rtol=1e-5)
    assert str(wide.index[0]) == "2020-03-02 00:00:00"
    with pytest.raises(VqtoolError, match="forecast, not generated"):
        next(files.open(tmp_path / "series.csv", condition=True))


def test_with_shortest_histories_begin_with_the_series(tmp_path: Path) -> None:
    table = long(frame())
    whole, data = opened(tmp_path, table), opened(tmp_path, table, shortest=20)
    rows, before = data.rows("train"), whole.rows("train")
    assert len(rows) == len(before) + 2 * (48 - 20)
    batch = rows.__getitems__(list(range(len(rows))))
    assert torch.equal(batch["mask"].sum(1), batch["at"].clamp_max(48))
    assert bool(batch["mask"][:, -20:].all())
    values = data.table.values
    for row in (0, 5, len(rows) // 2):
        at, begin = int(batch["at"][row]), int(data.table.offset[batch["series"][row]])
        count = min(48, at)
        assert torch.equal(batch["x"][row, 0, 48 - count :], values[begin + at - count : begin + at])
    full = batch["mask"].all(1)
    assert torch.equal(batch["x"][full], before.__getitems__(list(range(len(before))))["x"])
    with pytest.raises(VqtoolError, match="`shortest` is 60, and a history has 48 values"):
        opened(tmp_path, table, shortest=60)
