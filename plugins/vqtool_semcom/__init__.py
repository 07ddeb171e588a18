"""Digital semantic communication: index bits on QAM symbols through noise, data, metrics and plain baselines."""

from vqtool.catalog import Component, hookimpl, scan


@hookimpl
def vqtool_components() -> list[Component]:
    """Everything in this package, found by file name; imports none of it."""
    folders = (
        ("data", "data"),
        ("channels", "channel"),
        ("losses", "loss"),
        ("metrics", "metric"),
        ("baselines", "baseline"),
    )
    return [part for folder, role in folders for part in scan(f"vqtool_semcom.{folder}", role=role)]
