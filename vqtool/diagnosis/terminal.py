"""A diagnosis on a terminal: the codebooks' figures, a histogram of the use of each, and the findings."""

from __future__ import annotations

import textwrap
from typing import TextIO

import numpy as np

from vqtool.console import paint, table_text
from vqtool.diagnosis.view import Card, Use, View

BLOCKS = " ▁▂▃▄▅▆▇█"
BARS = 48  # columns of a histogram
COLOURS = {"fail": "red", "warn": "yellow", "note": "cyan"}
WIDTH = 100


def text(view: View, stream: TextIO | None = None) -> str:
    """Everything, as lines for a stream; in colour where it has colours."""
    heading = f"{view.report.source}\n{'; '.join(view.subject)}"
    parts = [heading, codebooks(view, stream), histograms(view, stream), summary(view, stream)]
    parts += [card_text(card, stream) for card in view.cards] + [comparison(view, stream)]
    parts += [f"{paint(view.state, 'bold', stream)}: {view.verdict}", quiet(view.passed, stream)]
    return "\n\n".join(part for part in parts if part)


def codebooks(view: View, stream: TextIO | None) -> str:
    """The table of codebooks, and its note."""
    table = view.codebooks
    note = quiet(table.note, stream)
    return table_text("", table.head, table.rows, stream) + (f"\n{note}" if note else "")


def comparison(view: View, stream: TextIO | None) -> str:
    """What changed since an earlier checkpoint."""
    table = view.comparison
    if view.before is None or table is None:
        return ""
    head = f"{view.before.source} -> {view.report.source}"
    return "\n".join([head, table_text("", table.head, table.rows, stream), table.note])


def histograms(view: View, stream: TextIO | None) -> str:
    """A histogram of every codebook whose codes were counted."""
    if not view.use:
        return ""
    width = max(len(use.name) for use in view.use)
    head = paint("use, from the most to the least used code (full height: twice uniform use)", "dim", stream)
    return "\n".join([head, *(f"{use.name:<{width}}  {histogram(use, stream)}" for use in view.use)])


def histogram(use: Use, stream: TextIO | None = None) -> str:
    """Sorted use in at most `BARS` columns of neighbours; where all codes of a column are dead, a red dot."""
    return "".join(
        paint("·", "red", stream) if group.max() == 0 else BLOCKS[max(1, min(8, round(4 * group.mean())))]
        for group in np.array_split(use.shares, min(BARS, len(use.shares)))
    )


def summary(view: View, stream: TextIO | None) -> str:
    """Figures of all codebooks together, in a few lines."""
    figures = "; ".join(f"{meaning} {figure}" for meaning, figure in view.summary)
    return quiet(f"all together: {figures}" if figures else "", stream)


def card_text(card: Card, stream: TextIO | None) -> str:
    """One finding: its name and figure, the cause, when it began, and how to fix it."""
    severity = card.finding.severity
    lines = [f"{paint(f'{severity} {card.title}', COLOURS[severity], stream)}  {card.figure}", wrapped(card.text, 4)]
    lines += [f"    {'or: ' if i else 'fix:'} {line}" for i, line in enumerate(card.fix)]
    return "\n".join([*lines, quiet(card.basis, stream, 4)] if card.basis else lines)


def quiet(words: str, stream: TextIO | None, indent: int = 0) -> str:
    """Wrapped, and dim where the stream has colours."""
    return "\n".join(paint(line, "dim", stream) for line in wrapped(words, indent).splitlines())


def wrapped(words: str, indent: int = 0) -> str:
    """Lines of at most `WIDTH`."""
    lead = " " * indent
    return textwrap.fill(words, WIDTH, initial_indent=lead, subsequent_indent=lead, break_on_hyphens=False)
