"""What a diagnosis report shows, worked out once: titles, rows, units, notes and their order.

The terminal, the HTML page and the picture lay the same view out; none of them computes anything of its own.
"""

from __future__ import annotations

import json
import math
import shlex
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np

from vqtool.diagnosis import comparison
from vqtool.diagnosis.report import COLUMNS, SEVERITIES, Codebook, Finding, Report
from vqtool.files import as_given
from vqtool.recipe.thresholds import limits

WHOLE = (  # measures of all codebooks together: name, meaning, format
    ("codes.snr_db", "signal to quantization noise", "{:.1f} dB"),
    ("output.snr_db", "signal to the output's error", "{:.1f} dB"),
    ("joint.entropy_bits", "entropy of all codebooks together", "{:.2f} bits"),
    ("joint.redundancy_bits", "redundancy between codebooks", "{:.2f} bits"),
    ("sequence.repeated", "tokens equal to the one before", "{:.1%}"),
    ("sequence.longest_repeat", "longest run of one code", "{:.0f}"),
    ("sequence.bigram_bits", "entropy of a code given the one before", "{:.2f} bits"),
    ("soft.use_bits", "entropy of soft use", "{:.2f} bits"),
    ("soft.token_bits", "entropy of one token's soft choice", "{:.2f} bits"),
    ("soft_hard.gap", "loss of the hard path over the soft", "{:+.1%}"),
    ("range_ratio", "spread of the output over the signal's", "{:.3f}"),
    ("dc", "mean error over the signal's spread", "{:.3f}"),
    ("contrastive.effective_negatives", "effective negatives", "{:.1f}"),
)
MAX_POINTS = 160  # of one line
FIRST_CHARTS = ("loss", "codes.perplexity", "codes.used", "mse", "commitment")
NOT_CHARTED = ("stage", "step", "split", "seconds")

Line = Sequence[tuple[float, float]]  # (step, value)


@dataclass(frozen=True, slots=True)
class Table:
    """Cells as text; the first column names the row."""

    head: tuple[str, ...]
    rows: tuple[tuple[str, ...], ...]
    note: str = ""


@dataclass(frozen=True, slots=True)
class Card:
    """One finding as it is shown; `number` is its place in the list, by which charts refer to it."""

    number: int
    finding: Finding
    title: str  # "dead-codes in level3"
    figure: str  # "0.41 (threshold 0.4)"
    text: str  # sentences: the cause, and since when
    basis: str  # what the figure is, and where the threshold comes from
    fix: tuple[str, ...]  # alternatives, as they are typed: commands, or words where there is no recipe


@dataclass(frozen=True, slots=True)
class Use:
    """How a codebook is used: `shares` [K], the most used code first, as multiples of uniform use."""

    name: str
    used: int
    shares: np.ndarray


@dataclass(frozen=True, slots=True)
class Chart:
    """One measure over the steps of a stage."""

    name: str
    train: Line
    valid: Line
    last: float


@dataclass(frozen=True, slots=True)
class StageHistory:
    """A stage's charts, and the findings that began in it."""

    name: str
    charts: tuple[Chart, ...]
    marks: tuple[Card, ...]


class View:
    """A report as it is shown; beside an earlier one where that is given."""

    def __init__(self, report: Report, before: Report | None = None) -> None:
        self.report, self.before = report, before
        worst_first = sorted(report.findings, key=lambda finding: -SEVERITIES.index(finding.severity))
        self.cards = [card(n, f, report.run) for n, f in enumerate(worst_first, 1) if f.severity != "ok"]
        self.title = str(report.recipe.get("title") or report.metadata.get("title") or report.source.name)
        stage = report.metadata.get("stage")
        self.stage = str(stage) if stage else ""
        where = [f"stage {stage}, step {report.metadata.get('step', '?')}"] if stage else []
        family = (report.metadata.get("foreign") or {}).get("family")
        where += [f"{family} codebooks"] if family else []
        counted = f"{report.tokens:,} tokens of {report.counted}" if report.tokens else f"counted: {report.counted}"
        self.subject = [*where, counted]
        self.file = as_given(report.source)  # a page is sent to others: no folders of this machine

    @property
    def state(self) -> str:
        """`healthy` or `unhealthy`."""
        return "healthy" if self.report.healthy else "unhealthy"

    @property
    def verdict(self) -> str:
        """How many findings of each severity, the worst first."""
        counts = {s: sum(c.finding.severity == s for c in self.cards) for s in reversed(SEVERITIES)}
        return ", ".join(f"{n} {s}" for s, n in counts.items() if n) or "no problems found"

    @property
    def passed(self) -> str:
        """The checks that passed, in one line."""
        names = sorted({f.id for f in self.report.findings if f.severity == "ok"})
        return f"passed: {', '.join(names)}" if names else ""

    @property
    def codebooks(self) -> Table:
        """A row for each codebook; columns without a value are left out."""
        books = self.report.codebooks
        shown = [column for column in COLUMNS if any(column[0] in book.measures for book in books)]
        rows = []
        for book in books:
            cells = [form.format(book.measures[m]) if m in book.measures else "" for m, _, form in shown]
            rows.append((book.name, f"{book.size:,}", *cells))
        return Table(("codebook", "codes", *(heading for _, heading, _ in shown)), tuple(rows), dead_note(books))

    @property
    def comparison(self) -> Table | None:
        """What changed since `before`: a row for each codebook, and what became of the findings."""
        if self.before is None:
            return None
        head, rows = comparison.rows(self.before, self.report)
        return Table(head, rows, "; ".join(comparison.sentences(self.before, self.report)))

    @property
    def use(self) -> list[Use]:
        """Use of every codebook whose codes were counted."""
        return [use_of(b) for b in self.report.codebooks if b.counts is not None and b.counts.sum() > 0]

    @property
    def summary(self) -> list[tuple[str, str]]:
        """(meaning, figure) of all codebooks together."""
        m = self.report.measures
        few = (
            4 * m.get("joint.used", 0) > self.report.tokens
        )  # tuples hardly repeat: their entropy is that of the sample
        of_plugins = (limit.shown for limit in limits().values() if limit.shown)
        return [(meaning, form.format(m[name])) for name, meaning, form in (*WHOLE, *of_plugins)
                if name in m and not (few and name.startswith("joint."))]  # fmt: skip

    @property
    def measures(self) -> Table:
        """Everything that was measured, by name."""
        rows = [(name, number_text(value)) for name, value in self.report.measures.items()]
        rows += [(f"{name}, {book.name}", number_text(value))
                 for book in self.report.codebooks for name, value in book.measures.items()]  # fmt: skip
        return Table((), tuple(rows))

    @property
    def recipe(self) -> tuple[str, str]:
        """(versions in a line, the recipe as it was written)."""
        metadata, plugins = self.report.metadata, self.report.metadata.get("plugins")
        versions = f"vqtool {metadata['version']}" if metadata.get("version") else "of an unknown version"
        if isinstance(plugins, Mapping) and plugins:
            versions += "; plugins: " + ", ".join(f"{name} ({provider})" for name, provider in plugins.items())
        text = metadata.get("recipe")
        shown = text if isinstance(text, str) and text else json.dumps(self.report.recipe, indent=1, default=str)
        return versions, shown

    @cached_property
    def history(self) -> list[StageHistory]:
        """Every stage's measures over its steps."""
        rows = self.report.history
        stages = list(dict.fromkeys(str(row["stage"]) for row in rows if "stage" in row))
        last = self.stage or (stages[-1] if stages else "")
        begun = [(c.finding.where if c.finding.where in stages else last, c)
                 for c in self.cards if c.finding.step is not None]  # fmt: skip
        return [StageHistory(stage, charts([row for row in rows if row.get("stage") == stage]),
                             tuple(c for where, c in begun if where == stage)) for stage in stages]  # fmt: skip


def card(number: int, finding: Finding, run: Path | None) -> Card:
    """One finding in words; options become commands that train the recipe of its `run` again."""
    title = finding.id + (f" in {finding.where}" if finding.where else "")
    figure = number_text(finding.figure)
    figure += "" if finding.threshold is None else f" (threshold {number_text(finding.threshold)})"
    text = finding.cause + "." * (not finding.cause.endswith((".", "!", "?")))
    if finding.step is not None:
        text += f" Since step {finding.step:,}" + (f": {finding.changed}." if finding.changed else ".")
    meaning = f"figure: {limits()[finding.id].figure}" if finding.id in limits() else ""
    source = f"threshold: {finding.source}" if finding.source else ""
    train = shlex.join(["vqtool", "train", str(run)]) if run is not None else "vqtool train RECIPE"
    fix = tuple(f"{train} {line}" if line.startswith("-s ") else line for line in finding.fix)
    return Card(number, finding, title, figure, text, "; ".join(part for part in (meaning, source) if part), fix)


def use_of(book: Codebook) -> Use:
    """How a codebook is used whose codes were counted."""
    assert book.counts is not None
    shares = np.sort(book.counts.astype(np.float64))[::-1] * (book.size / book.counts.sum())
    return Use(book.name, int((shares > 0).sum()), shares)


def dead_note(codebooks: Sequence[Codebook]) -> str:
    """What "dead" means where few tokens were counted: rare codes may not have been chosen yet either."""
    counted = [book for book in codebooks if book.measures.get("dead", 0) and "dead_share" in book.measures]
    unseen = int(sum(book.measures["dead"] for book in counted))
    gone = round(sum(book.measures["dead_share"] * book.size for book in counted))
    if not counted or unseen - gone < max(2, 0.02 * sum(book.size for book in counted)):
        return ""
    tokens = max(book.measures["tokens"] for book in counted)
    return (f"dead: not chosen by the {tokens:,.0f} tokens counted; more tokens would hit about {unseen - gone} of "
            f"these {unseen} codes (Chao 1984)")  # fmt: skip


def charts(rows: Sequence[Mapping[str, Any]]) -> tuple[Chart, ...]:
    """A chart of every measure in the rows of a stage, the most informative first."""
    names = list(dict.fromkeys(name for row in rows for name, value in row.items()
                               if name not in NOT_CHARTED and isinstance(value, int | float)))  # fmt: skip
    names.sort(key=lambda name: FIRST_CHARTS.index(name) if name in FIRST_CHARTS else len(FIRST_CHARTS))
    made = []
    for name in names:
        train, valid = (line_of(name, rows, split) for split in ("train", "valid"))
        made.append(Chart(name, train, valid, (valid or train or [(0.0, math.nan)])[-1][1]))
    return tuple(made)


def line_of(name: str, rows: Sequence[Mapping[str, Any]], split: str) -> Line:
    """(step, value) of a measure; of very many rows every so many, and the last."""
    mine = [r for r in rows if r.get("split", "train") == split and isinstance(r.get(name), int | float)]
    every = -(-len(mine) // MAX_POINTS) or 1
    kept = mine[::every] + (mine[-1:] if (len(mine) - 1) % every else [])
    return [(float(r.get("step", 0)), float(r[name])) for r in kept]


def number_text(value: float) -> str:
    """A figure in few characters."""
    return f"{value:,.0f}" if float(value).is_integer() and abs(value) < 1e7 else f"{value:.4g}"
