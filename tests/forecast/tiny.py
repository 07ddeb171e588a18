"""A small recipe and data to forecast: two hourly series with a daily season, and the toy forecaster."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pandas as pd

PLUGIN = Path(__file__).with_name("walk.py")
RECIPE = """
title = "tiny"
seed = 0

[data]
kind = "series"
path = "series.csv"
lookback = 48
horizons = [6, 12]
{data}

[encoder]
kind = "conv1d"
dim = 8
width = 8
strides = [4]

[quantizer]
kind = "ema"
codebook_size = 8

[decoder]
kind = "conv1d"
width = 8

[train]
batch = 32
lr = 3e-3

[evaluate]
metrics = ["forecast-error", "intervals", "reconstruction", "sequence-diversity", "codes"]
baselines = ["naive", "seasonal-naive", "seasonal-mean", "ridge-forecast"]

[[stage]]
name = "walk"
task = "walk"
steps = 4
losses = {{ mse = 1.0, commitment = 0.25 }}
"""


def frame(rows: int = 600, seed: int = 0) -> pd.DataFrame:
    """A wide table: `date`, `a` (a daily wave, slowly wandering) and `b` (another, of another size)."""
    rng = np.random.default_rng(seed)
    hour = np.arange(rows) * 2 * np.pi / 24
    return pd.DataFrame({
        "date": pd.date_range("2020-03-01", periods=rows, freq="h").strftime("%Y-%m-%d %H:%M:%S"),
        "a": 10 + np.sin(hour) + 0.1 * rng.standard_normal(rows).cumsum(),
        "b": 1e-3 * (np.cos(hour) + 0.3 * rng.standard_normal(rows)),
    })  # fmt: skip


def long(table: pd.DataFrame) -> pd.DataFrame:
    """The same values as `unique_id, ds, y`."""
    melted = table.melt("date", var_name="unique_id", value_name="y")
    return melted.rename(columns={"date": "ds"})[["unique_id", "ds", "y"]]


def write_recipe(folder: Path, data: str = "") -> Path:
    """The recipe and its data in `folder`."""
    frame().to_csv(folder / "series.csv", index=False)
    path = folder / "tiny.toml"
    path.write_text(RECIPE.format(data=data))
    return path
