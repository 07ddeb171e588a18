"""The hooks: what every installed plugin may implement. A thing that a recipe picks by name is a component instead."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any, Literal

import pluggy

from vqtool.catalog.component import Component
from vqtool.catalog.file_format import FileFormat
from vqtool.catalog.limit import Limit
from vqtool.catalog.pretrained import Pretrained

hookspec = pluggy.HookspecMarker("vqtool")
hookimpl = pluggy.HookimplMarker("vqtool")


@hookspec
def vqtool_components() -> Iterable[Component]:
    """Yield the components that this plugin offers; must not import torch."""
    return ()


@hookspec
def vqtool_diagnose(report: Any) -> Iterable[Any]:
    """Yield `vqtool.diagnosis.report.Finding`s about a `Report`: codebooks, measures, history, recipe.

    Called by every `vqtool diagnose` and, without the codes' vectors, while training. The findings are sorted in among
    vqtool's own; `--strict` and `--stop-on` act on a "fail". `report.limit(id)` gives the limits of a finding.
    """
    return ()


@hookspec
def vqtool_limits() -> Iterable[Limit]:
    """Yield the limits of this plugin's findings, which a recipe's `[diagnose]` can set; must not import torch."""
    return ()


@hookspec
def vqtool_pretrained() -> Iterable[Pretrained]:
    """Yield the trained models in this plugin's package: where no run can do what is asked, they are tried in order."""
    return ()


@hookspec
def vqtool_file_formats() -> Iterable[FileFormat]:
    """Yield the formats of this plugin's own files, which `vqtool show` then describes; must not import torch."""
    return ()


@hookspec
def vqtool_run_started(run: Any) -> None:
    """A run's folder was created and training begins."""


@hookspec
def vqtool_metrics(run: Any, row: Mapping[str, Any]) -> None:
    """One row of `metrics.jsonl`, as written."""


@hookspec
def vqtool_validated(run: Any, validation: Any) -> None:
    """A validation was measured: a `vqtool.training.validate.Validation`, after its row of `metrics.jsonl`."""


@hookspec
def vqtool_checkpoint_saved(run: Any, path: Path) -> None:
    """A complete checkpoint was written to `path`."""


@hookspec
def vqtool_run_finished(run: Any, status: Literal["done", "interrupted", "failed"]) -> None:
    """A run ended."""
