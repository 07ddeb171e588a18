"""What exists and who provides it: components, plugins and hooks, found without importing what they name."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from vqtool.catalog.component import Component, scan
from vqtool.catalog.file_format import FileFormat
from vqtool.catalog.limit import Limit
from vqtool.catalog.pretrained import Pretrained

if TYPE_CHECKING:
    from vqtool.catalog.discovery import Catalog, catalog, use_files
    from vqtool.catalog.hookspecs import hookimpl
    from vqtool.catalog.loading import nested_options

_HOMES = {"hookimpl": "hookspecs", "Catalog": "discovery", "catalog": "discovery", "use_files": "discovery",
          "nested_options": "loading"}  # fmt: skip

__all__ = ["Catalog", "Component", "FileFormat", "Limit", "Pretrained", "catalog", "hookimpl", "nested_options", "scan",
           "use_files"]  # fmt: skip


def __getattr__(name: str) -> Any:
    """Load what needs pluggy when it is first asked for."""
    if name not in _HOMES:
        raise AttributeError(f"module `vqtool.catalog` has no attribute `{name}`")
    import importlib

    return getattr(importlib.import_module(f"vqtool.catalog.{_HOMES[name]}"), name)
