"""What this plugin offers: named by recipes, imported when one does. This file must not import torch."""

from vqtool.catalog import Component, hookimpl


@hookimpl
def vqtool_components() -> list[Component]:
    return [
        Component("quantizer", "grid", "vqtool_example.grid:Grid", "Each feature rounded to evenly spaced values."),
        Component("loss", "slope", "vqtool_example.slope:Slope", "Mean squared error of the signal's slope."),
        Component("data", "sines", "vqtool_example.sines:Sines", "Sines of random phase, made on the spot."),
    ]
