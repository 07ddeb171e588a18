"""What the code vectors of any model show by themselves, and what its file leaves open."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Sequence
from typing import Any

import numpy as np

from vqtool.diagnosis.report import Codebook, Finding, Report

Array = np.ndarray[Any, np.dtype[Any]]
ENOUGH = 64  # numbers from which a uniform distribution is recognised
LARGE = 100.0  # the rms value of a code beyond which it is judged by itself; encoders' outputs are of the order of 1
COUNTS = "give codes that the model makes of a few hundred inputs: --codes codes.npy"


def never_moved(report: Report) -> Iterator[Finding]:
    """Codes that still are where `uniform_(-1 / K, 1 / K)` put them, as VQ-VAEs and VQGANs are initialised."""
    found = report.metadata.get("foreign") or {}
    known = {b.name: _initial_share(b.vectors) for b in report.codebooks
             if b.vectors is not None and b.counts is None and b.name not in found.get("frozen", ())}  # fmt: skip
    if report.recipe or not any(known.values()):
        return
    name, share = max(known.items(), key=lambda item: item[1])
    size = next(b.size for b in report.codebooks if b.name == name)
    cause = f"`{name}`: {share * size:.0f} of {size} codes are where they were initialised, uniform within ±1/{size}"
    if min(known.values()) == 1:
        yield Finding("never-moved", "note", 1.0, None, "", f"{cause}: the model was not trained", (), name)
        return
    limit = report.limit("never-moved")
    others = [f"`{other}`" for other, s in known.items() if limit.grade(s)[0] != "ok" and other != name]
    why = f" (so are those of {', '.join(others)})" if others else ""
    why += ". No token chose them, so nothing trained them: the model has only the others"
    yield report.judge("never-moved", share, cause, why=why, fix=(
        "reinitialise them from current encoder outputs, every few hundred steps",
        "start the codes with k-means over encoder outputs of many different inputs",
    ), where=name)  # fmt: skip


def _initial_share(vectors: Array) -> float:
    """The share of rows [K, D] that look drawn from uniform(-1/K, 1/K): within it, and spread as it is."""
    box = 1 / len(vectors)
    inside = (np.abs(vectors) <= box * 1.001).all(1)
    values = np.abs(vectors[inside]).reshape(-1) / box
    if values.size < ENOUGH or not (0.45 < values.mean() < 0.55 and 0.31 < np.square(values).mean() < 0.36):
        return 0.0
    return float(inside.mean())


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
    """The lengths of the codes in use, where use is known."""
    assert book.vectors is not None
    rows = book.vectors if book.counts is None else book.vectors[book.counts > 0]
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
        yield _note("not-started", idle, f"{_listed(idle, every)} never started: no code was set and no token was "
                    "counted. So are freshly configured models, and codebooks that training did not reach")  # fmt: skip
    if missing := found.get("no_counts"):
        yield _note("no-counts", missing, f"the file holds no counts of {_listed(missing, every)}: how codes are used, "
                    "and which are dead, cannot be known from it", COUNTS)  # fmt: skip
    if others := found.get("not_counted"):
        yield _note("no-counts", others, f"the codes have no level for {_listed(others, [])}")
    if unknown := found.get("sizes_unknown"):
        yield _note("sizes-unknown", unknown, "how many codes there are is not known: the largest one seen is taken "
                    "for the last, and dead codes beyond it are not seen", "give their number: --sizes K")  # fmt: skip
    if found and not report.codebooks:
        grids = found["grids"]
        named = ", ".join(f"{family} in `{module}`" if module else family for module, family in grids.items())
        yield _note("no-codebook", grids, f"{named}: the codes are a fixed grid, and the file holds nothing of their "
                    "use", f"{COUNTS} --sizes K")  # fmt: skip


def _note(name: str, of: Collection[str], cause: str, *fix: str) -> Finding:
    return Finding(name, "note", float(len(of)), None, "", cause, fix)


def _listed(names: Sequence[str], every: Sequence[str]) -> str:
    if len(every) > 1 and len(names) == len(every):
        return f"all {len(every)} codebooks"
    if len(every) == 1:
        return "the codebook"
    return ", ".join(f"`{name}`" for name in names[:4]) + (f" and {len(names) - 4} more" if len(names) > 4 else "")


CHECKS = (left_open, never_moved, exploding_norms)
