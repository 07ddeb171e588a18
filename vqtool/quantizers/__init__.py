"""Quantizers for one's own models: `from vqtool.quantizers import VQ, Residual`; see docs/library.md."""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from vqtool.quantizers.fsq import FSQ
    from vqtool.quantizers.grouped import Grouped
    from vqtool.quantizers.gumbel import Gumbel
    from vqtool.quantizers.lfq import LFQ
    from vqtool.quantizers.residual import Residual
    from vqtool.quantizers.routed import Routed
    from vqtool.quantizers.soft import Soft
    from vqtool.quantizers.vq import VQ, RandomProjection
    from vqtool.quantizers.waterfill import Waterfill

__all__ = ["FSQ", "LFQ", "VQ", "Grouped", "Gumbel", "RandomProjection", "Residual", "Routed", "Soft", "Waterfill"]


def __getattr__(name: str) -> Any:
    """Load a class when it is first asked for (PEP 562): the catalog reads this package without torch."""
    if name not in __all__:
        raise AttributeError(f"module `{__name__}` has no attribute `{name}`")
    home = "vq" if name == "RandomProjection" else name.lower()
    return getattr(importlib.import_module(f"{__name__}.{home}"), name)
