"""What the rows of `metrics.jsonl` show: what went wrong over time, when it began, and what changed then."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import pairwise
from typing import Any

from vqtool.diagnosis import fixes
from vqtool.diagnosis.measures import folded, thirds
from vqtool.diagnosis.report import Finding, Report

ENOUGH = {"valid": 3, "train": 6}  # rows that a trend is read from
SUDDEN = 0.3  # of a figure's whole range, from one row to the next: it turned there
GROWN = 3.0  # dB of signal to quantization noise lost: the error has grown, not only the scale of the encoder's outputs


@dataclass(frozen=True, slots=True)
class Series:
    """One figure over the rows of one stage and split that hold it."""

    steps: tuple[int, ...]
    values: tuple[float, ...]
    split: str

    def since(self, bad: Callable[[float], bool]) -> int | None:
        """The first step from which on the figure stayed bad; None if it is not bad now."""
        began = None
        for step, value in zip(reversed(self.steps), reversed(self.values), strict=True):
            if not bad(value):
                break
            began = step
        return began


def series(report: Report, name: str, *, stage: str | None = None) -> Series | None:
    """A figure in the stage that trains the quantizer: of validation, where there are enough rows, else of training."""
    stage = stage if stage is not None else report.stage().get("name")
    for split, enough in ENOUGH.items():
        rows = [row for row in report.history
                if row.get("split") == split and isinstance(row.get(name), int | float)
                and (stage is None or row.get("stage") == stage)]  # fmt: skip
        if len(rows) >= enough:
            return Series(tuple(int(r["step"]) for r in rows), tuple(float(r[name]) for r in rows), split)
    return None


def not_a_number(report: Report) -> Iterator[Finding]:
    """A loss that became NaN or infinite."""
    for row in report.history:
        bad = [k for k, v in row.items() if isinstance(v, float) and not math.isfinite(v) and k not in ("lr",)]
        losses = [name for name in bad if name == "loss" or name in _losses_of(report, row.get("stage"))]
        if losses:
            named = ", ".join(f"`{name}`" for name in losses)
            yield Finding(
                "nan", "fail", math.nan, None, "a loss must be a number",
                f"{named} became NaN or infinite in stage `{row.get('stage')}` at step {row.get('step')}. A step too "
                "large for a low precision, or an input that holds one",
                fixes.learning_rate(report) or (*fixes.full_precision(report), *fixes.clip(report)),
                where=str(row.get("stage", "")), step=row.get("step"),
            )  # fmt: skip
            return


def _losses_of(report: Report, stage: Any) -> list[str]:
    """The names of a stage's losses."""
    found = [s for s in report.recipe.get("stages") or [] if s["name"] == stage]
    return [loss["name"] for loss in found[0]["losses"]] if found else []


def perplexity_falling(report: Report) -> Iterator[Finding]:
    """Codes fall out of use while training goes on."""
    seen = series(report, "codes.perplexity")
    if seen is None or max(seen.values) <= 0:
        return
    top, now = max(seen.values), seen.values[-1]
    if report.limit("perplexity-falling").grade(now / top)[0] == "ok":
        yield report.judge("perplexity-falling", now / top, "use of the codes holds")
        return
    cause = f"perplexity fell from {top:.3g} to {now:.3g} while training: the encoder leaves codes behind, and "
    closer = fixes.weighted(report, "commitment", 0.25) if report.recipe else ()
    if closer:
        cause += "no commitment loss holds it near them"
        fix = (*closer, *fixes.faster_codebook(report))
    else:
        cause += "nothing brings them back"
        fix = (*fixes.diversity(report), *fixes.revival(report)) or fixes.learning_rate(report, above=1e-4)
    found = report.judge("perplexity-falling", now / top, cause, fix=fix)
    yield _since(found, report, seen, lambda value: value < (top + now) / 2)


def _since(finding: Finding, report: Report, seen: Series, bad: Callable[[float], bool]) -> Finding:
    """The finding of the stage that trains the quantizer, with the step at which it began."""
    stage, step = str(report.stage().get("name", "")), seen.since(bad)
    return replace(finding, where=stage, step=step, changed=changed_at(report, stage, step, seen))


def commitment_growing(report: Report) -> Iterator[Finding]:
    """The encoder runs away from its codes."""
    seen, error = series(report, "commitment"), series(report, "codes.snr_db")
    if seen is None or min(seen.values) <= 0:
        return
    limit = report.limit("commitment-growing")
    low, now = min(seen.values), seen.values[-1]
    worse = max(error.values) - error.values[-1] >= GROWN if error is not None else now / low >= 10
    growing = now >= 0.8 * max(seen.values) and limit.grade(now / low)[0] != "ok"
    if not (growing and worse):
        yield Finding("commitment-growing", "ok", now / low, limit.warn, limit.source, "the encoder keeps to its codes")
        return
    cause = (f"the commitment loss grew from {low:.3g} to {now:.3g} and is still growing: the encoder's outputs run "
             "away from the codes faster than these follow")  # fmt: skip
    closer = (*fixes.weighted(report, "commitment", 0.25), *fixes.faster_codebook(report))
    fix = closer or fixes.learning_rate(report, above=1e-4)
    found = report.judge("commitment-growing", now / low, cause, fix=fix)
    yield _since(found, report, seen, lambda value: value > math.sqrt(low * now))


def loss_stuck(report: Report) -> Iterator[Finding]:
    """The first stage learns nothing: its loss does not fall, and its output is no better than a constant."""
    stages = report.recipe.get("stages") or []
    if not stages:
        return
    stage = stages[0]
    rows = [row["loss"] for row in report.history
            if row.get("stage") == stage["name"] and row.get("split") == "train"
            and isinstance(row.get("loss"), int | float)]  # fmt: skip
    if len(rows) < 10 or min(rows) <= 0 or not all(map(math.isfinite, rows)):
        return
    first, last = thirds(rows)
    better = report.measures.get("output.snr_db")
    if better is None:  # a loss alone cannot distinguish a stuck model from a converged one
        return
    cause = f"in stage `{stage['name']}` the loss went from {rows[0]:.4g} to {last:.4g}; the output has {better:.2g} dB"
    if last <= 0.99 * max(first, rows[0]):
        limit = report.limit("loss-stuck")
        yield Finding("loss-stuck", "ok", better, limit.warn, limit.source, cause, where=stage["name"])
        return
    why = (". Nothing is learned: a learning rate far off, a part that no gradient reaches, or a term of large weight "
           "that hides the others")  # fmt: skip
    fix = fixes.learning_rate(report) or fixes.higher_rate(report)
    yield report.judge("loss-stuck", better, cause, why=why, fix=fix, where=stage["name"])


def begun(finding: Finding, report: Report) -> Finding:
    """The finding with the step at which it began and what changed there, where the history shows it."""
    if finding.severity not in ("warn", "fail") or finding.step is not None:
        return finding
    name, bad = _trace(finding, report)
    seen = series(report, name) if name else None
    step = seen.since(bad) if seen is not None else None
    if seen is None or step is None:
        return finding
    stage = str(report.stage().get("name", ""))
    first = f"from the first {seen.split} row on" if step == seen.steps[0] else ""
    return replace(finding, step=step, changed=first or changed_at(report, stage, step, seen))


def _trace(finding: Finding, report: Report) -> tuple[str, Callable[[float], bool]]:
    """The logged figure in which a finding shows, and when that figure is bad."""
    if finding.id in ("collapse", "dead-codes", "dead-level"):
        own = len(report.codebooks) > 1 and finding.where
        name = f"codes.perplexity.{finding.where}" if own else "codes.perplexity"
        seen = series(report, name)
        middle = (max(seen.values) + seen.values[-1]) / 2 if seen else 0.0
        return name, lambda value: value <= middle
    name = {
        "frozen-codebook": f"codes.moved.{finding.where}",
        "outputs-fed": f"codes.moved.{finding.where}",
        "range-drift": "range_ratio",
        "soft-hard-gap": "soft_hard.gap",
        "no-negatives": "contrastive.effective_negatives",
    }.get(finding.id, "")
    if not name:
        return "", lambda value: False
    limit = report.limit(finding.id)
    seen_as = folded if finding.id == "range-drift" else float
    return name, lambda value: limit.grade(seen_as(value))[0] != "ok"


def changed_at(report: Report, stage: str, step: int | None, seen: Series | None = None) -> str:
    """What changed at `step` of a stage, where a figure, if `seen`, turned: the stage, or a scheduled knob.

    A knob is named where it turned or jumped there, between two rows of the figure: one that moves all the time is not
    to blame for what happens at one step, and no knob is for a slow decline.
    """
    rows = [row for row in report.history if row.get("split") == "train" and row.get("stage") == stage]
    before = [row for row in rows if row.get("step", 0) <= (step or 0)]
    if step is None or not before:
        return ""
    if len(before) == 1:
        earlier = any(row.get("split") == "valid" and row.get("stage") == stage and row.get("step", 0) < step
                      for row in report.history)  # fmt: skip
        return "" if earlier else f"stage `{stage}` had just begun"
    since = int(before[-2]["step"])
    if seen is not None:
        at = seen.steps.index(step)
        if at and abs(seen.values[at] - seen.values[at - 1]) < SUDDEN * (max(seen.values) - min(seen.values)):
            return ""
        since = min(since, seen.steps[at - 1]) if at else since
    changes = []
    for knob in _knobs(report, stage):
        path = [(int(row["step"]), float(row[knob])) for row in rows if isinstance(row.get(knob), int | float)]
        turns = [f"`{knob}` went from {old:.3g} to {new:.3g}" for (_, old), (when, new) in pairwise(path)
                 if since < when <= step and jumped(path, when)]  # fmt: skip
        changes += turns[:1]
    return "; ".join(changes)


def jumped(path: Sequence[tuple[int, float]], step: int) -> bool:
    """Whether a knob's (step, value) path changes far more at `step` than at the other rows where it moves."""
    moves = {when: abs(new - old) for (_, old), (when, new) in pairwise(path)}
    others = sorted(move for when, move in moves.items() if when < step)
    usual = others[len(others) // 2] if others else 0.0
    return moves[step] > 3 * usual and bool(others)


def _knobs(report: Report, stage: str) -> Sequence[str]:
    """The knobs that a stage schedules."""
    found: Mapping[str, Any] = next((s for s in report.recipe.get("stages") or [] if s["name"] == stage), {})
    return [s["target"] for s in found.get("schedules", [])]


CHECKS = (not_a_number, perplexity_falling, commitment_growing, loss_stuck)
