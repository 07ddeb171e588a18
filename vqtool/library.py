"""What Python users call in one line: diagnose a checkpoint, check the laws of a quantizer, improve one."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from torch import nn

    from vqtool.api import Quantizer
    from vqtool.conformance import Outcome
    from vqtool.diagnosis.report import Report


def diagnose(path: str | Path | None = None) -> Report:
    """How healthy a checkpoint's codebooks are: `report.healthy`, `report.findings` with causes and fixes. No torch.

    Args:
        path: as for `load`.

    Raises:
        VqtoolError: there is no checkpoint, or it is damaged.
    """
    from vqtool.diagnosis.findings import diagnosed
    from vqtool.diagnosis.reading import report_of
    from vqtool.model.runs import checkpoint_path

    return diagnosed(report_of(checkpoint_path(None if path is None else Path(path))))


def verify(make: Callable[..., nn.Module], dim: int = 8, *, seed: int = 0, **options: Any) -> list[Outcome]:
    """Check the laws of quantizers on fresh ones that `make(dim, **options)` builds; one outcome for each law.

    Args:
        make: a class of `vqtool.quantizers`, one's own subclass of `vqtool.api.Quantizer`, or any module's class.
        dim: the width D of the latents [B, T, D] it is tried at.
        seed: of its weights and of the latents.
        options: what `make` is called with.

    Returns:
        An outcome for each law: its `law` (`.id`, `.meaning`, `.fix`) and `verdict` (`.status`, `.figure`).

    Raises:
        VqtoolError: `make` builds something that takes no latents.
    """
    from vqtool.api import Quantizer
    from vqtool.conformance import FOREIGN_LAWS, QUANTIZER_LAWS, Subject, infer_interface, judge_all

    subject = Subject(make, dim=dim, options=options, seed=seed)  # type: ignore[arg-type]  # checked inside
    if isinstance(subject.new(), Quantizer):
        return judge_all(QUANTIZER_LAWS, subject)
    name = getattr(make, "__name__", type(make).__name__)
    return judge_all(FOREIGN_LAWS, infer_interface(lambda: make(dim, **options), name, options))


def improve(
    quantizer: Quantizer,
    latents: Any,
    *,
    encoder: Any = None,
    steps: int = 200,
    merge: bool = False,
    device: str = "auto",
) -> dict[str, Any]:
    """Reinitialise the dead codes of a quantizer on latents, and train it on; in place.

        vqtool.improve(quantizer, latents)                         # a tensor in the quantizer's layout
        vqtool.improve(quantizer, batches, encoder=model.encoder)  # what the encoder gives for each of them

    A tenth of the latents is kept for validation, whose best step is taken. Only the quantizer changes.

    Args:
        quantizer: any of vqtool's that holds codebooks, one from `vqtool.convert` for example.
        latents: a tensor or array; with an `encoder`, an iterable of its inputs.
        encoder: a module with a method `encode`, or anything else that can be called, which gives latents.
        steps: of training, after the dead codes were reinitialised.
        merge: also reinitialise one of two codes that are nearly the same.
        device: "auto", "cpu", "cuda" or "mps".

    Returns:
        `codebooks` (what was done to each), and the figures of the validation latents `before` and `after`.

    Raises:
        VqtoolError: the latents do not fit the layout, there are too few, or the quantizer has no codes to move.
    """
    from vqtool.training.latents import improve_on_latents

    return improve_on_latents(quantizer, latents, encoder, steps=steps, merge=merge, device=device)
