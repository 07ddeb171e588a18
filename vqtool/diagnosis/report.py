"""What a diagnosis is: codebooks with their measures, the history of training, and findings with their fixes."""

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
COLUMNS = (  # measures of a codebook: name, heading, format
    ("used", "used", "{:,.0f}"),
    ("dead", "dead", "{:,.0f}"),
    ("perplexity", "perplexity", "{:.1f}"),
    ("perplexity_share", "of codes", "{:.0%}"),
    ("entropy_bits", "bits", "{:.2f}"),
    ("hottest", "hottest", "{:.1%}"),
    ("gini", "Gini", "{:.2f}"),
    ("duplicates", "twins", "{:.0f}"),
    ("effective_rank", "rank", "{:.1f}"),
    ("error", "error", "{:.3g}"),
    ("drift", "drift", "{:.2g}"),
)


@dataclass(frozen=True, slots=True)
class Finding:
    """One thing to report, with the figure that shows it and fixes that one can paste.

    An "ok" is a check that passed; its figure and threshold show by how much.
    """

    id: str  # "collapse", "dead-codes", "dead-level", ...
    severity: Severity
    figure: float
    threshold: float | None  # the figure at which it becomes a finding of this severity; of an "ok", where it warns
    source: str  # where the threshold comes from
    cause: str  # a sentence or two, for people
    fix: tuple[str, ...] = ()  # `-s KEY=VALUE` options of `vqtool train`, or commands; without a recipe in words
    where: str = ""  # a codebook's name, or a stage
    step: int | None = None  # when it began, where the history shows it
    changed: str = ""  # what changed at that step: a stage, a knob
    also: tuple[str, ...] = ()  # other codebooks that have it

    def __str__(self) -> str:
        """In a line or two: `fail dead-level in level3 since step 12,400: ...`, and its first fix."""
        where = f" in {self.where}" if self.where else ""
        since = f" since step {self.step:,}" if self.step is not None else ""
        changed = f" ({self.changed})" if self.changed else ""
        return f"{self.severity} {self.id}{where}{since}{changed}: {self.cause}" + "".join(
            f"\n    fix: {line}" for line in self.fix[:1]
        )


@dataclass(frozen=True, slots=True)
class Codebook:
    """One codebook, level or group, and how a set of tokens uses it."""

    name: str  # "codebook", "level3", "group0"
    size: int  # K
    counts: np.ndarray | None  # [K] how often each code was chosen; None if unknown
    vectors: np.ndarray | None  # [K, d]; None for quantizers without code vectors
    measures: Mapping[str, float] = field(default_factory=dict)  # by dotted name, e.g. "used", "perplexity"

    @property
    def perplexity(self) -> float | None:
        """How many codes, used alike, would have the entropy of use; None where no use is known."""
        return self.measures.get("perplexity")


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
    metadata: Mapping[str, Any] = field(
        default_factory=dict
    )  # the checkpoint's metadata: versions, stage, step, metrics
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

    def judge(self, name: str, figure: float, cause: str, *, why: str = "", fix: tuple[str, ...] = (), where: str = "",
              limit: Limit | None = None) -> Finding:  # fmt: skip
        """The finding `name`, graded by its thresholds; `why` and `fix` are added where it warns or fails.

        Args:
            limit: the thresholds; those of vqtool's own findings are known by name.
        """
        limit = limit or self.limit(name)
        severity, at = limit.grade(figure)
        bad = severity != "ok"
        return Finding(name, severity, figure, at, limit.source, cause + why * bad, fix if bad else (), where)

    def codebook(self, name: str) -> Codebook:
        """The codebook of this name."""
        return next(book for book in self.codebooks if book.name == name)

    def key(self, part: str, name: str) -> str:
        """An option's key in the recipe: of the part itself, or of the quantizer that it is made `of`."""
        return ".".join((part, *_path(self._options(part), name)))

    def option(self, part: str, name: str) -> Any:
        """An option of a part, or of what it is made `of`, as the recipe was resolved; None where there is none."""
        value: Any = self._options(part)
        for word in _path(value, name):
            value = value.get(word)
        return value

    def number(self, part: str, name: str) -> float | None:
        """An option that is a finite number; None where it is not."""
        value = self.option(part, name)
        return value if is_finite(value) else None

    def _options(self, part: str) -> Mapping[str, Any]:
        options: Mapping[str, Any] = ((self.recipe.get("parts") or {}).get(part) or {}).get("options", {})
        return options

    @property
    def quantizer(self) -> Mapping[str, Any]:
        """What the metadata say of the quantizer: `names`, `terms`, `knobs`, `fixed`, ..."""
        return self.metadata.get("quantizer") or {}

    @property
    def fixed(self) -> bool:
        """Whether the codes are a grid that nothing moves: no codebook that could follow, start or be moved."""
        return bool(self.quantizer.get("fixed", self.grid is not None))

    @property
    def grid(self) -> tuple[str, tuple[int, ...]] | None:
        """Of FSQ and LFQ, also inside of another quantizer: the option's key, and the steps of each feature."""
        options: Any = self._options("quantizer")
        key = "quantizer"
        while isinstance(options, Mapping):
            if isinstance(options.get("levels"), list | tuple):
                return f"{key}.levels", tuple(map(int, options["levels"]))
            if isinstance(options.get("bits"), int):
                return f"{key}.bits", (2,) * options["bits"]
            options, key = options.get("of"), f"{key}.of"
        return None

    def limit(self, finding: str) -> Limit:
        """The limits of a finding, as the recipe sets them."""
        return limit_of(finding, self.recipe)

    def stage(self) -> Mapping[str, Any]:
        """The resolved stage that trains the quantizer: the first with one of its terms as a loss, else the first."""
        stages = self.recipe.get("stages") or []
        with_terms = [s for s in stages if any(loss["kind"] is None for loss in s["losses"])]
        return next(iter(with_terms or stages), {})

    def trained_with(self, name: str) -> Any:
        """A value of that stage's `[train]` table; None where it is not known."""
        return (self.stage().get("train") or {}).get(name)

    def weight(self, loss: str) -> float:
        """The weight of a loss in that stage; 0 where it has no such loss."""
        return next((one["weight"] for one in self.stage().get("losses", []) if one["name"] == loss), 0.0)

    def gives(self, term: str) -> bool:
        """Whether the quantizer gives such a term, so that a stage can weight it."""
        return term in self.quantizer.get("terms", ())


def _path(options: Mapping[str, Any], name: str) -> tuple[str, ...]:
    """The place of an option among those of a part; one that is not given would be in the innermost `of`."""
    inner = options.get("of")
    if name not in options and isinstance(inner, Mapping):
        return ("of", *_path(inner, name))
    return (name,)
