"""What a diagnosis is: codebooks with their measures, the history of training, and findings with their mends."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

import numpy as np

from vqtool.catalog import Limit
from vqtool.forms import is_finite
from vqtool.recipe.thresholds import limit_of

Severity = Literal["ok", "note", "warn", "fail"]
SEVERITIES: tuple[Severity, ...] = ("ok", "note", "warn", "fail")  # from the best to the worst


@dataclass(frozen=True, slots=True)
class Finding:
    """One thing worth telling, with the figure that shows it and the recipe lines that mend it.

    An "ok" says that something was looked at and found well; its figure and threshold tell how far from ill.
    """

    id: str  # "collapse", "dead-codes", "dead-level", ...
    severity: Severity
    figure: float
    threshold: float | None  # the figure at which it becomes a finding of this severity; of an "ok", where it warns
    source: str  # where the threshold comes from
    cause: str  # a sentence or two, for people
    mend: tuple[str, ...] = ()  # recipe lines or commands
    where: str = ""  # a codebook's name, or a stage
    step: int | None = None  # when it began, where the history tells
    changed: str = ""  # what changed at that step: a stage, a knob


@dataclass(frozen=True, slots=True)
class Codebook:
    """One codebook, level or group, and how a set of tokens uses it."""

    name: str  # "codebook", "level3", "group0"
    size: int  # K
    counts: np.ndarray | None  # [K] how often each code was chosen; None where nothing tells
    vectors: np.ndarray | None  # [K, d]; None for quantizers without code vectors
    measures: Mapping[str, float] = field(default_factory=dict)  # by dotted name, e.g. "used", "perplexity"


@dataclass(frozen=True, slots=True)
class Report:
    """All that a diagnosis knows; findings are added to it and plugins read it."""

    source: Path  # the checkpoint
    counted: str  # what the counts are of: "split valid", "the moving average of training", ...
    tokens: int  # how many tokens were counted
    codebooks: tuple[Codebook, ...]
    measures: Mapping[str, float]  # of the whole: joint use, soft-hard gap, range ratio, ...
    history: Sequence[Mapping[str, Any]] = ()  # rows of metrics.jsonl
    recipe: Mapping[str, Any] = field(default_factory=dict)  # resolved.json's content
    about: Mapping[str, Any] = field(default_factory=dict)  # the checkpoint's metadata: versions, stage, step, metrics
    run: Path | None = None
    not_finite: Mapping[str, int] = field(default_factory=dict)  # of each tensor with a NaN or an infinity, how many
    findings: tuple[Finding, ...] = ()

    @property
    def healthy(self) -> bool:
        """Whether nothing warns and nothing fails."""
        return all(f.severity in ("ok", "note") for f in self.findings)

    def worst(self) -> Severity:
        """The worst severity among the findings."""
        return max((f.severity for f in self.findings), key=SEVERITIES.index, default="ok")

    def option(self, part: str, name: str) -> Any:
        """An option of a part, as the recipe was resolved; None where there is none."""
        return ((self.recipe.get("parts") or {}).get(part) or {}).get("options", {}).get(name)

    def number(self, part: str, name: str) -> float | None:
        """An option that is a finite number; None where it is not."""
        value = self.option(part, name)
        return value if is_finite(value) else None

    def has_option(self, part: str, name: str) -> bool:
        """Whether a part takes an option: mends name only those that exist."""
        return name in ((self.recipe.get("parts") or {}).get(part) or {}).get("options", {})

    def limit(self, finding: str) -> Limit:
        """The limits of a finding, as the recipe sets them."""
        return limit_of(finding, self.recipe)

    def stage(self) -> Mapping[str, Any]:
        """The resolved stage that trains the quantizer: the first with one of its terms as a loss, else the first."""
        stages = self.recipe.get("stages") or []
        with_terms = [s for s in stages if any(loss["kind"] is None for loss in s["losses"])]
        return next(iter(with_terms or stages), {})

    def weight(self, loss: str) -> float:
        """The weight of a loss in that stage; 0 where it has no such loss."""
        return next((one["weight"] for one in self.stage().get("losses", []) if one["name"] == loss), 0.0)

    def gives(self, term: str) -> bool:
        """Whether the quantizer gives such a term, so that a stage can weight it."""
        return term in (self.about.get("quantizer") or {}).get("terms", ())
