"""What Python users call in one line: load a model, diagnose a checkpoint, check the laws of a quantizer."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

from vqtool.errors import VqtoolError

if TYPE_CHECKING:
    from torch import nn

    from vqtool.conformance import Outcome
    from vqtool.diagnosis.report import Report
    from vqtool.model.build import Model


def load(path: str | Path) -> Model:
    """A trained model: its `parts` (`parts.quantizer`, `parts.encoder`, ...), its `recipe` and its data's `spec`.

    Args:
        path: a checkpoint of vqtool, or the folder of a run, whose newest checkpoint is taken.

    Raises:
        VqtoolError: there is none, it is damaged, or a plugin that it was made with is not installed.
    """
    from vqtool.model.build import from_checkpoint

    return from_checkpoint(_checkpoint(path))[0]


def diagnose(path: str | Path) -> Report:
    """How healthy a checkpoint's codebooks are: `report.healthy`, `report.findings` with causes and fixes. No torch.

    Args:
        path: as for `load`.

    Raises:
        VqtoolError: there is no checkpoint, or it is damaged.
    """
    from vqtool.catalog import catalog
    from vqtool.diagnosis.findings import diagnosed
    from vqtool.diagnosis.reading import report_of
    from vqtool.diagnosis.report import Finding

    found = report_of(_checkpoint(path))
    return diagnosed(found, catalog().hooks.collect("vqtool_diagnose", Finding, report=found))


def verify(make: Callable[..., nn.Module], dim: int = 8, *, seed: int = 0, **options: Any) -> list[Outcome]:
    """Check the laws of quantizers on fresh ones that `make(dim, **options)` builds; one outcome for each law.

    Args:
        make: a class of `vqtool.quantizers`, one's own subclass of `vqtool.api.Quantizer`, or any module's class.
        dim: the width of the latents it is tried at.

    Raises:
        VqtoolError: `make` builds something that takes no latents.
    """
    from vqtool.api import Quantizer
    from vqtool.conformance import QUANTIZER_LAWS, STRANGER_LAWS, Subject, judge_all, meet

    subject = Subject(make, dim=dim, options=options, seed=seed)  # type: ignore[arg-type]  # checked inside
    if isinstance(subject.new(), Quantizer):
        return judge_all(QUANTIZER_LAWS, subject)
    name = getattr(make, "__name__", type(make).__name__)
    return judge_all(STRANGER_LAWS, meet(lambda: make(dim, **options), name, options))


def _checkpoint(path: str | Path) -> Path:
    """The file itself, or the newest checkpoint of a run."""
    from vqtool.runs import newest_in

    given = Path(path)
    found = given if given.is_file() else newest_in(given) if given.is_dir() else None
    if found is None:
        raise VqtoolError(
            f"there is no checkpoint or run `{given}`", hint="a .safetensors file, or a folder under runs/"
        )
    return found
