"""A diagnosis on a terminal: a histogram of use for every codebook, their figures, and the findings."""

from __future__ import annotations

import textwrap
from collections.abc import Sequence
from typing import TextIO

import numpy as np

from vqtool.console import paint, table_text
from vqtool.diagnosis.report import Codebook, Finding, Report
from vqtool.recipe.thresholds import limits

BLOCKS = " ▁▂▃▄▅▆▇█"
BARS = 48  # columns of a histogram
COLOURS = {"fail": "red", "warn": "yellow", "note": "cyan", "ok": "dim"}
WIDTH = 100
WHOLE = (  # measures of all codebooks together: name, what it is, how it is written
    ("codes.snr_db", "signal to quantization noise", "{:.1f} dB"),
    ("output.snr_db", "signal to the output's error", "{:.1f} dB"),
    ("joint.entropy_bits", "entropy of all codebooks together", "{:.2f} bits"),
    ("joint.redundancy_bits", "said twice by several", "{:.2f} bits"),
    ("sequence.repeated", "tokens like the one before", "{:.1%}"),
    ("sequence.longest_repeat", "longest run of one code", "{:.0f}"),
    ("sequence.bigram_bits", "entropy of a code given the one before", "{:.2f} bits"),
    ("soft.use_bits", "entropy of soft use", "{:.2f} bits"),
    ("soft.token_bits", "of one token's choice", "{:.2f} bits"),
    ("soft_hard.gap", "loss of the hard path over the soft", "{:+.1%}"),
    ("range_ratio", "spread of the output over the signal's", "{:.3f}"),
    ("dc", "mean error over the signal's spread", "{:.3f}"),
    ("contrastive.effective_negatives", "effective negatives", "{:.1f}"),
)


def text(report: Report, stream: TextIO) -> str:
    """Everything, as lines for a stream; colours where it has them."""
    parts = [heading(report), table(report, stream), histograms(report, stream), whole(report, stream),
             findings(report, stream)]  # fmt: skip
    return "\n\n".join(part for part in parts if part)


def heading(report: Report) -> str:
    """What was looked at, and what was counted."""
    stage, step = report.about.get("stage"), report.about.get("step", "?")
    when = f", stage `{stage}`, step {step}" if stage else ""
    return f"{report.source}{when}\ncounted: {report.counted}, {report.tokens:,} tokens"


def table(report: Report, stream: TextIO) -> str:
    """A row for each codebook; columns that nothing tells are left out."""
    columns = (
        ("codes", lambda b: str(b.size)),
        ("used", lambda b: _number(b, "used", "{:.0f}")),
        ("dead", lambda b: _number(b, "dead", "{:.0f}")),
        ("perplexity", lambda b: _number(b, "perplexity", "{:.1f}")),
        ("of K", lambda b: _number(b, "perplexity_share", "{:.0%}")),
        ("bits", lambda b: _number(b, "entropy_bits", "{:.2f}")),
        ("hottest", lambda b: _number(b, "hottest", "{:.1%}")),
        ("Gini", lambda b: _number(b, "gini", "{:.2f}")),
        ("twins", lambda b: _number(b, "duplicates", "{:.0f}")),
        ("rank", lambda b: _number(b, "effective_rank", "{:.1f}")),
        ("error", lambda b: _number(b, "error", "{:.3g}")),
        ("drift", lambda b: _number(b, "drift", "{:.2g}")),
    )
    cells = [[told(book) for _, told in columns] for book in report.codebooks]
    kept = [i for i in range(len(columns)) if any(row[i] for row in cells)]
    rows = [[book.name, *(row[i] for i in kept)] for book, row in zip(report.codebooks, cells, strict=True)]
    told = table_text("", ["codebook", *(columns[i][0] for i in kept)], rows, stream)
    note = dead_note(report.codebooks)
    return told + (paint("\n" + "\n".join(textwrap.wrap(note, WIDTH)), "dim", stream) if note else "")


def dead_note(codebooks: Sequence[Codebook]) -> str:
    """What "dead" means where few tokens were counted: codes whose turn did not come are not chosen either."""
    counted = [book for book in codebooks if book.measures.get("dead", 0) and "dead_share" in book.measures]
    if not counted:
        return ""
    unseen = int(sum(book.measures["dead"] for book in counted))
    gone = round(sum(book.measures["dead_share"] * book.size for book in counted))
    if unseen - gone < max(2, 0.02 * sum(book.size for book in counted)):
        return ""
    tokens = max(book.measures["tokens"] for book in counted)
    return (f"dead: not chosen by the {tokens:,.0f} tokens counted; more tokens would hit about {unseen - gone} of "
            f"these {unseen} codes (Chao 1984)")  # fmt: skip


def _number(book: Codebook, name: str, form: str) -> str:
    return form.format(book.measures[name]) if name in book.measures else ""


def histograms(report: Report, stream: TextIO) -> str:
    """Use of every codebook, codes from the most to the least used; a full block is twice uniform use or more."""
    books = [book for book in report.codebooks if book.counts is not None and book.counts.sum() > 0]
    if not books:
        return ""
    width = max(len(book.name) for book in books)
    lines = [paint("use, from the most to the least used code (full height: twice uniform use)", "dim", stream)]
    lines += [f"{book.name:<{width}}  {histogram(book, stream)}" for book in books]
    return "\n".join(lines)


def histogram(book: Codebook, stream: TextIO | None = None) -> str:
    """Sorted use in at most `BARS` columns of neighbours; where all codes of a column are dead, a red dot."""
    assert book.counts is not None
    ordered = np.sort(book.counts.astype(np.float64))[::-1] * (book.size / book.counts.sum())  # 1 = uniform use
    groups = np.array_split(ordered, min(BARS, book.size))
    drawn = []
    for group in groups:
        if group.max() == 0:
            drawn.append(paint("·", "red", stream))
        else:
            drawn.append(BLOCKS[max(1, min(8, round(4 * group.mean())))])
    return "".join(drawn)


def whole(report: Report, stream: TextIO | None) -> str:
    """What was measured of all codebooks together, in a few lines."""
    m = report.measures
    few = 4 * m.get("joint.used", 0) > report.tokens  # tuples that hardly repeat: their entropy is that of the sample
    of_plugins = (limit.shown for limit in limits().values() if limit.shown)
    told = [f"{meaning} {form.format(m[name])}" for name, meaning, form in (*WHOLE, *of_plugins)
            if name in m and not (few and name.startswith("joint."))]  # fmt: skip
    return paint("\n".join(textwrap.wrap("all together: " + "; ".join(told), WIDTH)), "dim", stream) if told else ""


def findings(report: Report, stream: TextIO) -> str:
    """What is wrong, with cause and mend; then, in one line, what was looked at and is well."""
    told = [finding_text(f, stream) for f in report.findings if f.severity != "ok"]
    well = sorted({f.id for f in report.findings if f.severity == "ok"})
    if not any(f.severity in ("warn", "fail") for f in report.findings):
        told.append(paint("healthy", "bold", stream) + ": nothing found that should be mended")
    if well:
        told.append(
            paint("\n".join(textwrap.wrap("well: " + ", ".join(well), WIDTH, break_on_hyphens=False)), "dim", stream)
        )
    return "\n\n".join(told)


def finding_text(finding: Finding, stream: TextIO | None) -> str:
    """One finding: its name and figure, the cause, when it began, and what mends it."""
    head = paint(f"{finding.severity} {finding.id}", COLOURS[finding.severity], stream)
    lines = [head + (f" in {finding.where}" if finding.where else ""), *_indented(finding.cause)]
    if finding.step is not None:
        lines += _indented(f"since step {finding.step}" + (f": {finding.changed}" if finding.changed else ""))
    lines += [f"    {'mend:' if i == 0 else '     '} {line}" for i, line in enumerate(finding.mend)]
    about = f"{finding.figure:.3g}" + (f", threshold {finding.threshold:.3g}" if finding.threshold is not None else "")
    meaning = f"{limits()[finding.id].figure}: " if finding.id in limits() else ""
    return "\n".join(
        [*lines, *(paint(line, "dim", stream) for line in _indented(f"{meaning}{about} ({finding.source})"))]
    )


def _indented(told: str) -> list[str]:
    return textwrap.wrap(told, WIDTH, initial_indent="    ", subsequent_indent="    ")
