"""What is shown of codes and labels, worked out once for the terminal and the page: tables and their words."""

from __future__ import annotations

import numpy as np

from vqtool.analysis.code_labels import INTERVAL, LEAST_GROUPS, CodeLabels, Reading, order
from vqtool.diagnosis.view import Table, number_text

MOST_NAMED = 5  # claimed codes of a label, on a terminal


def subject(reading: Reading) -> str:
    """What was analysed, in a line."""
    tokens, groups = int(reading.figures["tokens"]), int(reading.figures["groups"])
    return f"split {reading.split}: {tokens:,} labelled tokens of {groups} {reading.group}s"


def rule(reading: Reading) -> str:
    """When a code is claimed for a label."""
    low, high = (f"{100 * p:g}" for p in INTERVAL)
    return (
        f"A code is claimed for a {reading.label} if it stands for it in at least {LEAST_GROUPS} {reading.group}s and "
        f"the lower end of its precision's interval ({low} to {high} %, a bootstrap over {reading.group}s) is above "
        f"one half and above the share of that {reading.label} among all tokens."
    )


def claims(reading: Reading, *, named: int | None = None) -> Table:
    """For each codebook and label: how many codes stand for it, how many are claimed, and which, the surest first."""
    rows = []
    for book in reading.books:
        ordered = order(book)
        for c, name in enumerate(reading.names):
            sure = [int(k) for k in ordered if book.claimed[k] and book.label[k] == c]
            covered = book.counts[sure, c].sum() / max(1, book.counts[:, c].sum())
            which = [f"{k} ({book.precision[k]:.0%}, {book.groups[k]} {reading.group}s)" for k in sure[:named]]
            more = [f"and {len(sure) - len(which)} more"] if len(sure) > len(which) else []
            rows.append((book.name, name, f"{book.shares[c]:.1%}", str((book.label == c).sum()), str(len(sure)),
                         f"{covered:.1%}", ", ".join(which + more) or "none"))  # fmt: skip
    head = ("codebook", reading.label, "of tokens", "codes", "claimed", "of it in those", "claimed codes")
    return Table(head, tuple(rows))


def figures(reading: Reading) -> Table:
    """Probes and agreement."""
    rows = [(name, number_text(v)) for name, v in reading.figures.items() if name not in ("tokens", "groups")]
    return Table(("figure", "value"), tuple(rows))


def all_codes(book: CodeLabels, reading: Reading) -> Table:
    """Every code that was seen: counts by label, precision with its interval, lift, groups."""
    lift, rows = book.lift(), []
    for k in order(book):
        interval = f"{book.low[k]:.2f} to {book.high[k]:.2f}" if np.isfinite(book.low[k]) else "too few"
        rows.append((str(k), reading.names[book.label[k]], *map(str, book.counts[k]), f"{book.precision[k]:.2f}",
                     interval, f"{lift[k, book.label[k]]:.2g}", str(book.groups[k]),
                     "yes" if book.claimed[k] else ""))  # fmt: skip
    head = ("code", "stands for", *reading.names, "precision", "95 % interval", "lift", f"{reading.group}s", "claimed")
    return Table(head, tuple(rows))


def group_name(reading: Reading, number: int) -> str:
    """A group by its name, where it has one."""
    named = number < len(reading.group_names)
    return reading.group_names[number] if named else f"{reading.group} {number}"
