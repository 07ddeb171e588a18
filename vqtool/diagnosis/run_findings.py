"""What can be wrong beside the codebooks: the deployed path, the range, the negatives, the tokens."""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Iterator, Mapping
from dataclasses import replace
from typing import Any

from vqtool.diagnosis import fixes
from vqtool.diagnosis.measures import folded
from vqtool.diagnosis.report import SEVERITIES, Finding, Report, Severity

SKILL = 0.1  # of the way from chance to certainty: a context that does not get there predicts nothing
WORTH = 0.02  # of the signal's variance: what rescaling must take off the error for the range to be to blame


def worse(
    report: Report, name: str, grade: Callable[[float], tuple[Severity, float | None]]
) -> tuple[Mapping[str, float], str]:
    """The figures where `name` is worse: the checkpoint's, or those at the end of the stage; and when that was.

    The checkpoint that is kept is the best one, so it may be from before the problem began.
    """
    stage = report.stage().get("name")
    rows = (r for r in reversed(report.history) if r.get("split") == "valid" and r.get("stage") == stage)
    last: Mapping[str, Any] = next(rows, {})
    if not isinstance(last.get(name), float) or not math.isfinite(last[name]):
        return report.measures, ""
    now = report.measures.get(name)
    if now is not None and SEVERITIES.index(grade(last[name])[0]) <= SEVERITIES.index(grade(now)[0]):
        return report.measures, ""
    kept = (report.metadata.get("validation") or {}).get("step")
    aside = f" (the checkpoint is of step {kept}, before)" if kept is not None and kept != last["step"] else ""
    figures = {key: float(value) for key, value in last.items() if isinstance(value, int | float)}
    return figures, f"at step {last['step']}{aside} "


def soft_hard_gap(report: Report) -> Iterator[Finding]:
    """The soft path is trained, the hard one deployed, and they are no longer the same."""
    measures, when = worse(report, "soft_hard.gap", report.limit("soft-hard-gap").grade)
    gap = measures.get("soft_hard.gap")
    if gap is None or not math.isfinite(gap):
        return
    hard, soft = measures.get("hard.loss", math.nan), measures.get("soft.loss", math.nan)
    bits = measures.get("soft.token_bits")
    spread = f" (a token is spread over 2^{bits:.2g} codes)" if bits is not None else ""
    why = (f". The decoder learned to read mixtures{spread}, and gets single codes when deployed: results will be "
           "worse than training shows")  # fmt: skip
    cause = f"{when}the deployed path's loss is {hard:.3g}, the soft path's {soft:.3g}"
    yield report.judge("soft-hard-gap", gap, cause, why=why, fix=fixes.hardening(report))


def accuracy_gap(report: Report) -> Iterator[Finding]:
    """The same by the accuracies of both paths, which a channel has at each of its levels."""
    m = report.measures
    gaps = {name.removeprefix("accuracy.soft").strip("."): value - m[name.replace("soft", "hard", 1)]
            for name, value in m.items()
            if re.match(r"accuracy\.soft\b", name) and name.replace("soft", "hard", 1) in m}  # fmt: skip
    if not gaps or "soft_hard.gap" in m:
        return
    where, gap = max(gaps.items(), key=lambda item: item[1])
    at = f"at {where} " if where else ""
    yield report.judge(
        "soft-hard-gap", gap, f"{at}the soft path is right in {100 * gap:+.3g} % more cases than the deployed one",
        why=": the classifier learned from soft values that the deployed path never gives",
        fix=fixes.hardening(report), limit=report.limit("soft-hard-accuracy"),
    )  # fmt: skip


def range_drift(report: Report) -> Iterator[Finding]:
    """The output is too small or too large, whatever its shape."""
    limit = report.limit("range-drift")
    measures, when = worse(report, "range_ratio", lambda value: limit.grade(folded(value)))
    ratio = measures.get("range_ratio")
    if ratio is None:
        return
    cause = f"{when}the output's spread is {ratio:.3g} of the signal's"
    rescale = measures.get("rescale")  # what the output must be multiplied by to fit best
    if limit.grade(folded(ratio))[0] != "ok" and rescale is not None and (ratio * (1 - rescale)) ** 2 < WORTH:
        yield Finding("range-drift", "ok", folded(ratio), limit.warn, limit.source,
                      f"{cause}, and no other scale would fit better: the output is vague, not drifted")  # fmt: skip
        return
    better = f"; multiplied by {rescale:.3g} it would fit better" if rescale is not None else ""
    why = (f"{better}. Likely causes: a loss that rewards a smaller output (a spectral or adversarial one alone, or "
           "one whose target is in another scale than the norm's output), or a norm whose inverse is not that of the "
           "data")  # fmt: skip
    yield report.judge("range-drift", folded(ratio), cause, why=why, fix=fixes.waveform_loss(report))


def dc_offset(report: Report) -> Iterator[Finding]:
    """The output has an offset."""
    dc = report.measures.get("dc")
    if dc is None:
        return
    why = ". Likely causes: a decoder's last bias that is never trained, or a norm that does not add back its mean"
    cause = f"the output's mean is off by {dc:+.3g} of the signal's spread"
    yield report.judge("dc-offset", abs(dc), cause, why=why, fix=fixes.waveform_loss(report))


def too_uniform(report: Report) -> Iterator[Finding]:
    """Codes of a contrastive task that are all used alike because a loss rewards just that.

    Even use is good where codes must describe a signal, and may come from the data themselves.
    """
    stage, books = report.stage(), [b for b in report.codebooks if b.measures.get("tokens", 0) > 0 and b.size > 2]
    contrastive = any(loss["kind"] == "info-nce" for loss in stage.get("losses", ()))
    pull = next((term for term in fixes.DIVERSITY if report.weight(term) > 0 and report.gives(term)), None)
    if not (contrastive and pull and books):
        return
    figure = min(b.measures["spread"] for b in books)
    accuracy, chance = (report.measures.get(f"contrastive.{name}") for name in ("accuracy", "chance"))
    found = accuracy is not None and chance is not None and accuracy - chance > SKILL * (1 - chance)
    cause = f"the codes of every codebook are used almost alike: {figure:.0%} of what uniform use would give"
    why = (f". Sounds and silence are not equally frequent: `{pull}`, of weight {report.weight(pull):g}, spreads the "
           "tokens evenly whatever they are, and codes say less about the signal")  # fmt: skip
    judged = report.judge("too-uniform", figure, cause, why=why, fix=fixes.weaker(report, pull))
    if found and judged.severity != "ok":
        judged = replace(judged, severity="note", cause=f"{cause}; the context still finds {accuracy:.0%} of them")
    yield judged


def no_negatives(report: Report) -> Iterator[Finding]:
    """A contrastive task without negatives."""
    left = report.measures.get("contrastive.effective_negatives")
    if left is None:
        return
    accuracy = report.measures.get("contrastive.accuracy")
    empty = f", so the accuracy of {accuracy:.3g} means nothing" if accuracy is not None else ""
    fix = fixes.more_negatives(report)
    reason = ("Too few tokens are hidden, drawn as negatives, or far enough away" if fix and report.recipe else
              "Negatives equal to the positive are masked: all are where codes are collapsed, the sampled positions "
              "coincide, or the mask is inverted")  # fmt: skip
    why = f"{empty}. {reason}"
    cause = f"a position is compared with {left:.3g} negatives that differ from it"
    yield report.judge("no-negatives", left, cause, why=why, fix=fix)


def codes_ignored(report: Report) -> Iterator[Finding]:
    """The output is the same whatever the codes are."""
    own = report.measures.get("reconstruction.error.mean", report.measures.get("error.mean"))
    other = report.measures.get("shuffled.error.mean")
    if own is None or other is None or own <= 0:
        return
    cause = f"with the codes of another signal the error is {other / own:.3g} times that with its own"
    why = ". What the decoder needs reaches it another way: by the condition, or as side information"
    yield report.judge("codes-ignored", other / own, cause, why=why)


def repeated_tokens(report: Report) -> Iterator[Finding]:
    """Sequences that hardly ever change."""
    share = report.measures.get("sequence.repeated")
    if share is None:
        return
    why = (". Tokens come faster than the signal changes, or the encoder sees no detail: a larger stride of the "
           "encoder gives fewer tokens with more in each")  # fmt: skip
    yield report.judge("repeated-tokens", share, f"{share:.0%} of the tokens repeat the one before", why=why)


CHECKS = (
    soft_hard_gap,
    accuracy_gap,
    range_drift,
    dc_offset,
    too_uniform,
    no_negatives,
    codes_ignored,
    repeated_tokens,
)
