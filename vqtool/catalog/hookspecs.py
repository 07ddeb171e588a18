"""The hooks: what every installed plugin may implement. A thing that a recipe picks by name is a component instead."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any, Literal

import pluggy

from vqtool.catalog.component import Component

hookspec = pluggy.HookspecMarker("vqtool")
hookimpl = pluggy.HookimplMarker("vqtool")


@hookspec
def vqtool_components() -> Iterable[Component]:
    """Yield the components that this plugin offers; must not import torch."""
    return ()


@hookspec
def vqtool_diagnose(report: Any) -> Iterable[Any]:
    """Yield `vqtool.diagnosis.report.Finding`s about a `Report`: codebooks, measures, history, recipe.

    Asked by every `vqtool diagnose`; their ids are shown and sorted among vqtool's own, and `--strict` heeds a "fail".
    """
    return ()


@hookspec
def vqtool_run_started(run: Any) -> None:
    """A run's folder stands and training begins."""


@hookspec
def vqtool_metrics(run: Any, row: Mapping[str, Any]) -> None:
    """One row of `metrics.jsonl`, as written."""


@hookspec
def vqtool_checkpoint_saved(run: Any, path: Path) -> None:
    """A checkpoint was written, whole, to `path`."""


@hookspec
def vqtool_run_finished(run: Any, status: Literal["done", "interrupted", "failed"]) -> None:
    """A run ended."""
