"""What the code vectors of any model show by themselves, and what its file leaves open."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np

from vqtool.diagnosis.measures import unmoved
from vqtool.diagnosis.report import Codebook, Finding, Report

Array = np.ndarray[Any, np.dtype[Any]]
LARGE = 100.0  # the rms value of a code beyond which it is judged by itself; encoders' outputs are of the order of 1
COUNTS = "give codes that the model makes of a few hundred inputs: --codes codes.npy"


def never_moved(report: Report) -> Iterator[Finding]:
    """Codes that still are where `uniform_(-1 / K, 1 / K)` put them, of codebooks whose use is not known."""
    known = [book for book in report.codebooks if "unmoved" in book.measures]
    worst = max(known, key=lambda b: b.measures["unmoved"] / b.size, default=None)
    if worst is None or worst.measures["unmoved"] == 0:
        return
    many = worst.measures["unmoved"]
    cause = f"`{worst.name}`: {many:.0f} of {worst.size} codes are where they were initialised, within ±1/{worst.size}"
    if all(book.measures["unmoved"] == book.size for book in known):
        yield Finding("never-moved", "note", 1.0, None, "", f"{cause}: the model was not trained", (), worst.name)
        return
    limit = report.limit("never-moved")
    others = [b.name for b in known if b is not worst and limit.grade(b.measures["unmoved"] / b.size)[0] != "ok"]
    why = f" (so are those of {_listed(others, ())})" if others else ""
    why += ". No token chose them, so nothing trained them: the model has only the others"
    yield report.judge("never-moved", many / worst.size, cause, why=why, fix=(
        "reinitialise them from current encoder outputs, every few hundred steps",
        "start the codes with k-means over encoder outputs of many different inputs",
    ), where=worst.name)  # fmt: skip


def exploding_norms(report: Report) -> Iterator[Finding]:
    """Codes far longer than the others, levels far longer than those before them, and codes that are huge."""
    cosine = (report.metadata.get("foreign") or {}).get("cosine", ())
    books = [b for b in report.codebooks if b.vectors is not None and b.name not in cosine and b.size > 1]
    if report.recipe:
        return
    judged = [(figure, cause, book) for book, before in zip(books, _so_far(books), strict=True)
              for figure, cause in _norms(book, before)]  # fmt: skip
    if not judged:
        return
    figure, cause, book = max(judged, key=lambda one: one[0])
    why = ". Such codes ran away: a learning rate too high for the codebook, or sums divided by a use near zero"
    yield report.judge("exploding-norms", figure, f"`{book.name}`: {cause}", why=why, fix=(
        "clip the gradient norm to 1, and lower the learning rate of the codebook",
        "of a moving average: smooth the counts that sums are divided by (Laplace, as in VQ-VAE's appendix A.1)",
    ), where=book.name)  # fmt: skip


def _so_far(books: Sequence[Codebook]) -> list[float]:
    """For each codebook the largest typical length among those of the same residual quantizer before it; 0 for none."""
    typical: dict[tuple[str, int], float] = {}
    before = []
    for book in books:
        assert book.vectors is not None
        key = (_stem(book.name), book.vectors.shape[1])
        before.append(typical.get(key, 0.0))
        typical[key] = max(before[-1], _typical(_lengths(book)))
    return before


def _stem(name: str) -> str:
    return name.rstrip("0123456789[]")


def _norms(book: Codebook, before: float) -> Iterator[tuple[float, str]]:
    lengths = _lengths(book)
    usual, longest = _typical(lengths), float(lengths.max(initial=0))
    if not np.isfinite(longest) or usual == 0:
        return
    yield longest / usual, f"its longest code has {longest:.3g}, the median {usual:.3g}"
    if before > 0:
        yield (
            usual / before,
            f"its codes have the length {usual:.3g}, those of levels before it at most {before:.3g}",
        )
    assert book.vectors is not None
    size = usual / np.sqrt(book.vectors.shape[1])
    yield size / LARGE, f"its codes have values around {size:.3g}"


def _lengths(book: Codebook) -> Array:
    """The lengths of the codes in use, where use is known, else of those that moved."""
    assert book.vectors is not None
    used = book.counts > 0 if book.counts is not None else ~unmoved(book.vectors)
    rows = book.vectors[used] if used.any() else book.vectors
    return np.asarray(np.linalg.norm(rows.astype(np.float64), axis=1))


def _typical(lengths: Array) -> float:
    """Their median, without those of zero."""
    some = np.sort(lengths[lengths > 0])
    return float(some[len(some) // 2]) if len(some) else 0.0


def left_open(report: Report) -> Iterator[Finding]:
    """What cannot be known from the file."""
    found = report.metadata.get("foreign") or {}
    every = [book.name for book in report.codebooks]
    if idle := found.get("not_started"):
        cause = (f"{_listed(idle, every)} never started: no code was set and no token was counted. So are freshly "
                 "configured models, and codebooks that training did not reach")  # fmt: skip
        yield Finding("not-started", "note", float(len(idle)), None, "", cause)
    if missing := found.get("no_counts"):
        cause = (f"the use of {_listed(missing, every)} is not known: no counts are stored, or none that were ever "
                 "updated, and without them no dead code can be seen")  # fmt: skip
        yield Finding("no-counts", "note", float(len(missing)), None, "", cause, (COUNTS,))
    elif others := found.get("not_counted"):
        cause = f"the codes have no level for {_listed(others, ())}"
        yield Finding("no-counts", "note", float(len(others)), None, "", cause)
    if unknown := found.get("sizes_unknown"):
        cause = ("how many codes there are is not known: the largest one seen is taken for the last, and dead codes "
                 "beyond it are not seen")  # fmt: skip
        yield Finding("sizes-unknown", "note", float(len(unknown)), None, "", cause, ("give their number: --sizes K",))
    if found and not report.codebooks:
        grids = found["grids"]
        named = ", ".join(f"{family} in `{module}`" if module else family for module, family in grids.items())
        cause = f"{named}: the codes are a fixed grid, and the file holds nothing of their use"
        yield Finding("no-codebook", "note", float(len(grids)), None, "", cause, (f"{COUNTS} --sizes K",))


def _listed(names: Sequence[str], every: Sequence[str]) -> str:
    if len(every) > 1 and len(names) == len(every):
        return f"all {len(every)} codebooks"
    if len(every) == 1:
        return "the codebook"
    return ", ".join(f"`{name}`" for name in names[:4]) + (f" and {len(names) - 4} more" if len(names) > 4 else "")


CHECKS = (left_open, never_moved, exploding_norms)
