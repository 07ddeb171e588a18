"""What Python users call in one line: diagnose any model's codebooks, check a quantizer's laws, improve one."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from torch import nn

    from vqtool.api import Quantizer
    from vqtool.conformance import Outcome
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
        source: a checkpoint or run of vqtool's (as for `load`; None is the newest), a file of tensors (.safetensors,
            .npz, .npy, .pt), the folder of a Hugging Face model, a module, a state dict, or codes: whole numbers, such
            as [N, T, Q] (see `layout`). torch is imported for its own files alone, and no code in them is run.
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

    given, made = (Path(one) if isinstance(one, str) else one for one in (source, codes))
    each = () if sizes is None else (sizes,) if isinstance(sizes, int) else tuple(sizes)
    return diagnosis_of(report_of_any(given, Reading(made, layout, each, vectors, usage)))


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
