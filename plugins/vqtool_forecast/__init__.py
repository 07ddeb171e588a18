"""Forecasting of time series: data and files, norms, metrics and plain baselines."""

from vqtool.catalog import Component, hookimpl, scan


@hookimpl
def vqtool_components() -> list[Component]:
    """Everything in this package, found by file name; imports none of it."""
    folders = (("data", "data"), ("norms", "norm"), ("metrics", "metric"), ("baselines", "baseline"))
    return [part for folder, role in folders for part in scan(f"vqtool_forecast.{folder}", role=role)]
