"""Images: pictures from files, folders and archives, image metrics, and decoded pictures back to files."""

from vqtool.catalog import Component, hookimpl, scan


@hookimpl
def vqtool_components() -> list[Component]:
    """Everything in this package, found by file name; imports none of it."""
    return [
        part
        for folder, role in (("data", "data"), ("metrics", "metric"))
        for part in scan(f"vqtool_images.{folder}", role=role)
    ]
