"""What Python users call in one line: diagnose a checkpoint, check the laws of a quantizer."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from torch import Tensor, nn

    from vqtool.conformance import Report as VerifyReport
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


def verify(
    target: Callable[..., nn.Module] | nn.Module,
    dim: int | None = None,
    *,
    example: Tensor | None = None,
    forward: str | Callable[[Any, Tensor], Any] | None = None,
    update: str | Callable[[Any], Any] | None = None,
    decode: str | Callable[[Any, Tensor], Any] | None = None,
    layout: str | None = None,
    laws: Sequence[str] = (),
    skip: Sequence[str] = (),
    seed: int = 0,
    **options: Any,
) -> VerifyReport:
    """Check the laws of quantizers on a module, or on fresh ones that `target(dim, **options)` builds.

    Args:
        target: a module, which is copied; or a class of `vqtool.quantizers`, one's own subclass of
            `vqtool.api.Quantizer`, any module's class, or a function that builds one.
        dim: the width D of the latents; of a class of one's own, its first argument where it is given.
        example: latents as the module takes them, [B, T, D], [B, D, T], [B, D, H, W], [N, D], ...: they give its
            layout, and the mean and deviation of what it is tried on. Standard normal without.
        forward: how it is called, in place of `m(x)`: a function of module and latents, or an expression of m and x.
        update: what follows each training step: a function of the module, a method's name, or an expression of m.
        decode: the way from its codes to vectors, likewise, of m and codes.
        layout: BTD, BDT, BDHW, ND, BHWD, BDTHW or BTHWD, where it is not found by trying.
        laws, skip: ids of laws to check alone, or to leave out.
        seed: of its weights and of the latents.
        options: what `target` is called with.

    Returns:
        A sequence of outcomes (`.law.id`, `.verdict.status`, `.verdict.figure`, `.grade`), with the broken laws by
        grade: `.fatal`, `.harmful`, `.cosmetic`; `.passes()` as a gate; `print(report)`.

    Raises:
        VqtoolError: the module takes no latents, or a law or layout does not exist.
    """
    from torch import nn

    from vqtool.api import Quantizer
    from vqtool.conformance import FOREIGN_LAWS, QUANTIZER_LAWS, Subject, report_on, report_on_module
    from vqtool.conformance.foreign_module import copied
    from vqtool.conformance.interface import signature_gaps, with_configs
    from vqtool.conformance.law import tried

    name = getattr(target, "__name__", type(target).__name__)
    rebuilt = not isinstance(target, nn.Module)
    if rebuilt and forward is None:
        subject = Subject(target, dim=dim or 8, options=options, seed=seed)  # type: ignore[arg-type]  # checked inside
        if (isinstance(target, type) and issubclass(target, Quantizer)) or isinstance(tried(subject.new), Quantizer):
            return report_on(name, QUANTIZER_LAWS, subject, laws, skip)

    def make() -> nn.Module:
        if isinstance(target, nn.Module):
            return copied(target)
        full = with_configs(target, options)
        return target(**full) if dim is None and not signature_gaps(target, full) else target(dim or 8, **full)

    return report_on_module(
        FOREIGN_LAWS, make, name, options if dim is None else {"dim": dim, **options},
        only=laws, skip=skip, layout=layout, example=example, forward=forward, update=update, decode=decode,
        rebuilt=rebuilt, seed=seed,
    )  # fmt: skip
