"""What Python users call in one line: diagnose any codebooks, check the laws of a quantizer, improve one."""

from __future__ import annotations

import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from torch import Tensor, nn

    from vqtool.api import Quantizer
    from vqtool.conformance import Report as VerifyReport
    from vqtool.diagnosis.diagnosis import Diagnosis


def diagnose(
    source: Any = None,
    *,
    codes: Any = None,
    layout: str | None = None,
    sizes: int | Sequence[int] | None = None,
    vectors: Any = None,
    usage: Any = None,
) -> Diagnosis:
    """How healthy codebooks are: `report.healthy`, `report.findings` with causes and fixes; `print(report)`.

    Args:
        source: a checkpoint or run of vqtool's (as for `load`, or loaded; None is the newest), a file of tensors
            (.safetensors, .npz, .npy, .pt), the folder of a Hugging Face model, a module, a state dict, or codes: whole
            numbers, such as [N, T, Q] (see `layout`). torch is imported for its own files alone, and no code in them is
            run.
        codes: codes that the model made, as an array or a file: what use is counted from.
        layout: a letter for each axis of the codes: "n" sequences, "q" levels or groups, any other positions, as in
            "nqt" or "nhw"; inferred by default.
        sizes: how many codes each codebook has; one number for all.
        vectors: a regular expression of the names of the tensors that hold code vectors, where they are not found by
            themselves; or the vectors themselves, an array [K, D] for each codebook.
        usage: the same of counts [K].

    Raises:
        VqtoolError: nothing is there, it is damaged or needs code to be read, or no codebook was found in it.
    """
    from vqtool.diagnosis.diagnosis import diagnosis_of
    from vqtool.diagnosis.foreign_report import Reading, report_of_any

    models = sys.modules.get("vqtool.model.model")  # where it is not imported, nothing is a model of vqtool's
    if models is not None and isinstance(source, models.Model):
        source = source.path or source.parts
    given, made = (Path(one) if isinstance(one, str) else one for one in (source, codes))
    each = () if sizes is None else (sizes,) if isinstance(sizes, int) else tuple(sizes)
    return diagnosis_of(report_of_any(given, Reading(made, layout, each, vectors, usage)))


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
        laws: ids of laws to check alone.
        skip: ids of laws to leave out.
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
