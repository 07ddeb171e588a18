"""Forecasting of time series: data, plain rivals, metrics, and the parts of a forecaster that writes tokens."""

import contextlib

from vqtool.catalog import Component, hookimpl, scan

FOLDERS = {
    "data": "data",
    "norms": "norm",
    "encoders": "encoder",
    "decoders": "decoder",
    "priors": "prior",
    "regressors": "regressor",
    "tasks": "task",
    "losses": "loss",
    "metrics": "metric",
    "baselines": "baseline",
}


@hookimpl
def vqtool_components() -> list[Component]:
    """Everything in this package, found by file name; imports none of it."""
    found: list[Component] = []
    for folder, role in FOLDERS.items():
        with contextlib.suppress(ModuleNotFoundError):
            found += scan(f"vqtool_forecast.{folder}", role=role)
    return found
