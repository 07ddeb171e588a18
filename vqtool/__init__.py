"""vqtool: vector quantization in PyTorch, in one's own model or from one command line; importing it is light."""

from __future__ import annotations

import importlib

TYPE_CHECKING = False  # as of `typing`, which may be a stranger's while `python -m vqtool` has the working folder first
if TYPE_CHECKING:
    from typing import Any

__version__ = "0.1.0"
__all__ = [
    "CodebookMonitor", "Component", "Recipe", "VqtoolError", "attach", "convert", "diagnose", "hookimpl", "improve",
    "load", "quantizers",
    "scan", "verify",
]  # fmt: skip

_HOMES = {  # public names and the modules they are loaded from when first asked for
    "VqtoolError": "vqtool.errors",
    "Component": "vqtool.catalog",
    "scan": "vqtool.catalog",
    "hookimpl": "vqtool.catalog",
    "Recipe": "vqtool.recipe",
    "CodebookMonitor": "vqtool.diagnosis.monitor",
    "attach": "vqtool.quantizers.core.updates",
    "convert": "vqtool.foreign.convert",
    "diagnose": "vqtool.library",
    "improve": "vqtool.library",
    "load": "vqtool.model.load",
    "verify": "vqtool.library",
    "lightning": "vqtool",
    "quantizers": "vqtool",
    "transformers": "vqtool",
}


def __getattr__(name: str) -> Any:
    """Load a public name when it is first asked for (PEP 562)."""
    if name not in _HOMES:
        raise AttributeError(f"module `vqtool` has no attribute `{name}`")
    if _HOMES[name] == "vqtool":  # a package
        return importlib.import_module(f"vqtool.{name}")
    return getattr(importlib.import_module(_HOMES[name]), name)


def __dir__() -> list[str]:
    return sorted([*globals(), *_HOMES])
