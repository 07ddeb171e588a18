"""Two diagnoses side by side: what changed in each codebook, and which findings are gone or new."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from vqtool.diagnosis.report import COLUMNS, Codebook, Report

COMPARED = ("used", "dead", "perplexity", "effective_rank", "error")  # of COLUMNS


def pairs(before: Report, now: Report) -> Iterator[tuple[str, Codebook | None, Codebook | None]]:
    """Codebooks of both, by name; in order where no name is in both and there are as many."""
    old, new = ({book.name: book for book in report.codebooks} for report in (before, now))
    if not old.keys() & new.keys() and len(old) == len(new):
        yield from zip(new, old.values(), new.values(), strict=True)
        return
    for name in dict.fromkeys([*new, *old]):
        yield name, old.get(name), new.get(name)


def rows(before: Report, now: Report) -> tuple[tuple[str, ...], tuple[tuple[str, ...], ...]]:
    """The heading and a row for each codebook, with cells such as "117 -> 128"; measures of neither are left out."""
    both = list(pairs(before, now))
    known = {name for _, *books in both for book in books if book is not None for name in book.measures}
    shown = [column for column in COLUMNS if column[0] in known.intersection(COMPARED)]
    cells = [
        (name, *(f"{_cell(old, measure, form)} -> {_cell(new, measure, form)}" for measure, _, form in shown))
        for name, old, new in both
    ]
    return ("codebook", *(heading for _, heading, _ in shown)), tuple(cells)


def _cell(book: Codebook | None, name: str, form: str) -> str:
    return form.format(book.measures[name]) if book is not None and name in book.measures else "none"


def findings(before: Report, now: Report) -> tuple[tuple[str, ...], tuple[str, ...]]:
    """(gone, new): findings of the one that the other has not, such as "fail dead-codes in level3"."""
    old, new = (
        tuple(f"{f.severity} {f.id}" + (f" in {f.where}" if f.where else "") for f in r.findings if f.severity != "ok")
        for r in (before, now)
    )
    return tuple(one for one in old if one not in new), tuple(one for one in new if one not in old)


def sentences(before: Report, now: Report) -> tuple[str, ...]:
    """What became of the findings, and what use was counted in where that differs."""
    gone, new = findings(before, now)
    lines = ([f"gone: {', '.join(gone)}"] if gone else []) + ([f"new: {', '.join(new)}"] if new else [])
    old, counted = (f"{one.tokens:,} tokens of {one.counted}" if one.tokens else one.counted for one in (before, now))
    return *(lines or ["the same findings"]), *([f"counted: {old} -> {counted}"] if old != counted else [])


def document(before: Report, now: Report) -> dict[str, Any]:
    """The comparison in `--json`."""
    gone, added = findings(before, now)
    books = [
        {"name": name, "before": dict(old.measures) if old else None, "now": dict(new.measures) if new else None}
        for name, old, new in pairs(before, now)
    ]
    return {"checkpoint": str(before.source), "healthy": before.healthy, "codebooks": books, "gone": gone, "new": added}
