"""Forecasting of time series: data and files, norms, metrics and plain baselines."""

from pathlib import Path

from vqtool.catalog import Component, Pretrained, hookimpl, scan


@hookimpl
def vqtool_components() -> list[Component]:
    """Everything in this package, found by file name; imports none of it."""
    folders = (("data", "data"), ("norms", "norm"), ("metrics", "metric"), ("baselines", "baseline"),
               ("regressors", "regressor"), ("tasks", "task"))  # fmt: skip
    return [part for folder, role in folders for part in scan(f"vqtool_forecast.{folder}", role=role)]


@hookimpl
def vqtool_pretrained() -> list[Pretrained]:
    """The forecaster of any series."""
    folder = Path(__file__).parent / "pretrained"
    return [Pretrained("forecaster", folder / "forecaster.safetensors", folder / "finetune.toml")]
