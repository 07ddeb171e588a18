"""What can be wrong between a decoder and its discriminator, as the rows of `metrics.jsonl` show it."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from typing import Any

from vqtool.diagnosis.fixes import option
from vqtool.diagnosis.history import series
from vqtool.diagnosis.measures import thirds
from vqtool.diagnosis.report import Finding, Report

LAST = 3  # rows in which a discriminator must win: it is ahead for a while in many healthy runs
FEATURES = "feature-matching"


def opposed(report: Report) -> Mapping[str, Any]:
    """The resolved stage, or its name alone, whose last rows show a discriminator; empty where none does."""
    rows = (row for row in reversed(report.history) if "discriminator.accuracy" in row)
    name = next((row.get("stage") for row in rows), None)
    stages = [stage for stage in report.recipe.get("stages") or [] if stage["name"] == name]
    return stages[0] if stages else {"name": name} if name is not None else {}


def weight(stage: Mapping[str, Any], name: str) -> float:
    """The weight of a loss in a stage."""
    return next((one["weight"] for one in stage.get("losses", ()) if one["name"] == name), 0.0)


def slower(stage: Mapping[str, Any], factor: float) -> tuple[str, ...]:
    """Another learning rate for the discriminator: `factor` of what it has."""
    train = stage.get("train") or {}
    own = (train.get("discriminator") or {}).get("lr") or train.get("lr")
    return (option(f"stage.{stage['name']}.discriminator.lr", f"{own * factor:.2g}"),) if own else ()


def discriminator_wins(report: Report) -> Iterator[Finding]:
    """The discriminator is always right: what it says no longer shows the decoder a way."""
    stage = opposed(report)
    seen = series(report, "discriminator.accuracy", stage=stage["name"]) if stage else None
    if seen is None:
        return
    figure = min(seen.values[-LAST:])
    cause = f"the discriminator is right in {figure:.0%} of its judgements, and stays so"
    why = ". It learns faster than the decoder, whose gradient from it becomes small or random"
    fix = slower(stage, 1 / 3)
    if stage.get("losses") and not weight(stage, FEATURES):
        fix = (option(f"stage.{stage['name']}.losses.{FEATURES}", 1), *fix)
    yield report.judge("discriminator-wins", figure, cause, why=why, fix=fix, where=str(stage["name"]))


def feature_matching_flat(report: Report) -> Iterator[Finding]:
    """The features of the discriminator never change what they say of the output."""
    stage = opposed(report)
    rows = [row[FEATURES] for row in report.history
            if stage and row.get("split") == "train" and row.get("stage") == stage["name"]
            and isinstance(row.get(FEATURES), int | float)]  # fmt: skip
    if len(rows) < 9 or not all(map(math.isfinite, rows)):
        return
    first, last = thirds(rows)
    figure = abs(last - first) / max(first, last, 1e-30)
    cause = f"`{FEATURES}` went from {first:.3g} to {last:.3g}"
    why = (". Neither player changes what the other sees: the discriminator hardly learns, or its push does not reach "
           "the decoder")  # fmt: skip
    yield report.judge("feature-matching-flat", figure, cause, why=why, fix=slower(stage, 3), where=str(stage["name"]))


def loss_ratio(report: Report) -> Iterator[Finding]:
    """The losses that read the discriminator drown the others."""
    stage = opposed(report)
    rows = [row["adversarial.ratio"] for row in report.history
            if stage and row.get("stage") == stage["name"]
            and isinstance(row.get("adversarial.ratio"), int | float)]  # fmt: skip
    if len(rows) < LAST or not all(map(math.isfinite, rows)):
        return
    _, figure = thirds(rows)
    cause = f"the losses that read the discriminator weigh {figure:.3g} times as much as the others"
    why = ": the output is made to convince, whatever the signal was"
    balanced = ((stage.get("train") or {}).get("discriminator") or {}).get("balance", True)
    name = "hinge" if weight(stage, "hinge") else FEATURES
    fix = (option(f"stage.{stage['name']}.discriminator.balance", "true"),) if not balanced else (
        option(f"stage.{stage['name']}.losses.{name}", f"{weight(stage, name) / figure:.2g}"),)  # fmt: skip
    yield report.judge("loss-ratio", figure, cause, why=why, fix=fix if stage.get("losses") else (),
                       where=str(stage["name"]))  # fmt: skip


CHECKS = (discriminator_wins, feature_matching_flat, loss_ratio)
