"""Three-component seismograms: data of the field's own formats, metrics that read codes by phase, plain baselines."""

from vqtool.catalog import Component, hookimpl, scan


@hookimpl
def vqtool_components() -> list[Component]:
    """Everything in this package, found by file name; imports none of it."""
    folders = (("data", "data"), ("metrics", "metric"), ("baselines", "baseline"))
    return [part for folder, role in folders for part in scan(f"vqtool_seismic.{folder}", role=role)]
