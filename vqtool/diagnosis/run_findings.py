"""What can be wrong beside the codebooks: the deployed path, the range, the channel, the negatives, the tokens."""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Iterator, Mapping
from typing import Any

from vqtool.diagnosis import mends
from vqtool.diagnosis.measures import folded
from vqtool.diagnosis.report import SEVERITIES, Finding, Report, Severity
from vqtool.recipe.thresholds import limit_of

WORTH = 0.02  # of the signal's variance: what rescaling must take off the error for the range to be to blame


def worse(
    report: Report, name: str, grade: Callable[[float], tuple[Severity, float | None]]
) -> tuple[Mapping[str, float], str]:
    """The figures where `name` is worse: the checkpoint's, or those at the end of the stage; and words for the latter.

    The checkpoint that is kept is the best one, so it may be from before a disease broke out.
    """
    stage = report.stage().get("name")
    rows = (r for r in reversed(report.history) if r.get("split") == "valid" and r.get("stage") == stage)
    last: Mapping[str, Any] = next(rows, {})
    if not isinstance(last.get(name), float) or not math.isfinite(last[name]):
        return report.measures, ""
    now = report.measures.get(name)
    if now is not None and SEVERITIES.index(grade(last[name])[0]) <= SEVERITIES.index(grade(now)[0]):
        return report.measures, ""
    kept = (report.about.get("validation") or {}).get("step")
    aside = f" (the checkpoint is of step {kept}, before)" if kept is not None and kept != last["step"] else ""
    figures = {key: float(value) for key, value in last.items() if isinstance(value, int | float)}
    return figures, f"at step {last['step']}{aside} "


def soft_hard_gap(report: Report) -> Iterator[Finding]:
    """The soft path is trained, the hard one deployed, and they are no longer the same."""
    limit = limit_of("soft-hard-gap", report.recipe)
    measures, told = worse(report, "soft_hard.gap", limit.grade)
    gap = measures.get("soft_hard.gap")
    if gap is None or not math.isfinite(gap):
        return
    severity, at = limit.grade(gap)
    hard, soft = measures.get("hard.loss", math.nan), measures.get("soft.loss", math.nan)
    cause = f"{told}the deployed path's loss is {hard:.3g}, the soft path's {soft:.3g}"
    if severity != "ok":
        bits = measures.get("soft.token_bits")
        told = f" (a token is spread over 2^{bits:.2g} codes)" if bits is not None else ""
        cause += (f". The decoder learned to read mixtures{told}, and is given single codes when deployed: what "
                  "training shows is not what you will get")  # fmt: skip
    yield Finding("soft-hard-gap", severity, gap, at, limit.source, cause,
                  mends.hardening(report) if severity != "ok" else ())  # fmt: skip


def accuracy_gap(report: Report) -> Iterator[Finding]:
    """The same by accuracies of both paths, which a channel has at each of its levels."""
    m = report.measures
    gaps = {name.removeprefix("accuracy.soft").strip("."): value - m[name.replace("soft", "hard", 1)]
            for name, value in m.items()
            if re.match(r"accuracy\.soft\b", name) and name.replace("soft", "hard", 1) in m}  # fmt: skip
    if not gaps or "soft_hard.gap" in m:
        return
    where, gap = max(gaps.items(), key=lambda item: item[1])
    limit = limit_of("soft-hard-accuracy", report.recipe)
    severity, at = limit.grade(gap)
    at_level = f"at {where} " if where else ""
    cause = f"{at_level}the soft path is right in {100 * gap:+.3g} % more cases than the deployed one"
    if severity != "ok":
        cause += ": the classifier learned from soft values that the deployed path never gives"
    yield Finding("soft-hard-gap", severity, gap, at, limit.source, cause,
                  mends.hardening(report) if severity != "ok" else ())  # fmt: skip


def range_drift(report: Report) -> Iterator[Finding]:
    """The output is too small or too large, whatever its shape is worth."""
    limit = limit_of("range-drift", report.recipe)
    measures, when = worse(report, "range_ratio", lambda value: limit.grade(folded(value)))
    ratio = measures.get("range_ratio")
    if ratio is None:
        return
    severity, at = limit.grade(folded(ratio))
    cause = f"{when}the output's spread is {ratio:.3g} of the signal's"
    rescale = measures.get("rescale")  # what the output must be multiplied by to fit best
    if severity != "ok" and rescale is not None and (ratio * (1 - rescale)) ** 2 < WORTH:
        yield Finding("range-drift", "ok", folded(ratio), limit.warn, limit.source,
                      f"{cause}, and no other scale would fit better: the output is vague, not drifted")  # fmt: skip
        return
    lines: tuple[str, ...] = ()
    if severity != "ok":
        told = f"; multiplied by {rescale:.3g} it would fit better" if rescale is not None else ""
        cause += (f"{told}. A loss that rewards a smaller output (a spectral or adversarial one alone, a target in "
                  "another scale), or a norm whose inverse is not that of the data, does this")  # fmt: skip
        lines = mends_of_range(report)
    yield Finding("range-drift", severity, folded(ratio), at, limit.source, cause, lines)


def mends_of_range(report: Report) -> tuple[str, ...]:
    """A loss on the waveform itself, with enough weight."""
    stage = report.stage()
    if not stage:
        return ()
    waveform = [loss["name"] for loss in stage["losses"] if loss["name"] in ("mse", "l1")]
    if waveform:
        return (f"compare the target of `{waveform[0]}` with the norm's output: they must have one scale",)
    return (f"stage.{stage['name']}.losses.mse = 1.0",)


def dc_offset(report: Report) -> Iterator[Finding]:
    """The output sits beside the signal."""
    dc = report.measures.get("dc")
    if dc is None:
        return
    limit = limit_of("dc-offset", report.recipe)
    severity, at = limit.grade(abs(dc))
    cause = f"the output's mean is off by {dc:+.3g} of the signal's spread"
    if severity != "ok":
        cause += ". A decoder's last bias that is never trained, or a norm that takes off a mean and does not return it"
    yield Finding("dc-offset", severity, abs(dc), at, limit.source, cause,
                  mends_of_range(report) if severity != "ok" else ())  # fmt: skip


def no_negatives(report: Report) -> Iterator[Finding]:
    """A contrastive task that has nothing to tell apart."""
    left = report.measures.get("contrastive.effective_negatives")
    if left is None:
        return
    limit = limit_of("no-negatives", report.recipe)
    severity, at = limit.grade(left)
    accuracy = report.measures.get("contrastive.accuracy")
    cause = f"a position is compared with {left:.3g} negatives that differ from it"
    if severity != "ok":
        told = f", so the accuracy of {accuracy:.3g} says nothing" if accuracy is not None else ""
        cause += (f"{told}. Negatives equal to the positive are masked: all are when the codes are collapsed, the "
                  "sampled positions coincide, or the mask is inverted")  # fmt: skip
    lines = (*mends.diversity(report), *mends.revival(report)) if severity != "ok" else ()
    yield Finding("no-negatives", severity, left, at, limit.source, cause, lines)


def codes_ignored(report: Report) -> Iterator[Finding]:
    """The output is the same whatever the codes say."""
    own = report.measures.get("reconstruction.error.mean", report.measures.get("error.mean"))
    other = report.measures.get("shuffled.error.mean")
    if own is None or other is None or own <= 0:
        return
    limit = limit_of("codes-ignored", report.recipe)
    severity, at = limit.grade(other / own)
    cause = f"with the codes of another signal the error is {other / own:.3g} times that with its own"
    if severity != "ok":
        cause += ". What the decoder needs reaches it by another way: the condition, or scalars sent apart"
    yield Finding("codes-ignored", severity, other / own, at, limit.source, cause,
                  mends.slower_encoder(report) if severity != "ok" else ())  # fmt: skip


def repeated_tokens(report: Report) -> Iterator[Finding]:
    """Sequences that hardly ever change."""
    share = report.measures.get("sequence.repeated")
    if share is None:
        return
    limit = limit_of("repeated-tokens", report.recipe)
    severity, at = limit.grade(share)
    cause = f"{share:.0%} of the tokens repeat the one before"
    if severity != "ok":
        cause += ". Tokens come faster than the signal changes, or the encoder sees no detail"
    lines = ("a larger stride of the encoder: fewer, fuller tokens",) if severity != "ok" else ()
    yield Finding("repeated-tokens", severity, share, at, limit.source, cause, lines)


CHECKS = (soft_hard_gap, accuracy_gap, range_drift, dc_offset, no_negatives, codes_ignored, repeated_tokens)
