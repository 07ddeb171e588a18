"""Why the codes of a fixed grid (FSQ, LFQ) are not used: it has no codebook to start, to move or to reinitialise."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np

from vqtool.diagnosis import fixes
from vqtool.diagnosis.measures import entropy
from vqtool.diagnosis.report import Codebook, Report

FILLED, LARGE = 0.9, 1.3  # spread of the steps in use over that of even use: 0 for one step, 1.7 at both ends
YOUNG = 2000  # steps: with fewer, a grid that is not filled may still be
STUCK = 0.95  # of the tokens have the same step of a feature


def feature_use(counts: np.ndarray, steps: Sequence[int]) -> list[np.ndarray]:
    """The share of tokens at each step of each feature, from the counts [prod(steps)]; the first runs fastest."""
    table = counts.astype(np.float64).reshape(tuple(reversed(steps))) / max(counts.sum(), 1)
    axes = range(table.ndim)
    return [table.sum(tuple(a for a in axes if a != axis)) for axis in reversed(axes)]


def unused(report: Report, book: Codebook) -> tuple[str, tuple[str, ...]]:
    """(Why codes of a grid are not used, fixes)."""
    fewer = fewer_steps(report, book)
    diversity = fixes.diversity(report)
    if report.grid is None or book.counts is None or math.prod(report.grid[1]) != book.size:
        return ". A fixed grid has no codes that could be moved: the encoder's outputs do not fill its range", diversity
    use = feature_use(book.counts, report.grid[1])
    stuck = sum(float(one.max()) >= STUCK for one in use)
    if report.grid[0].endswith("bits"):
        why = f". {stuck} of its {len(use)} bits hardly ever change" if stuck else ". Its bits are not independent"
        alone = ", and no loss with weight enough rewards the use of all codes" if diversity else ""
        return why + alone, (*diversity, *fewer)
    if stuck == len(use):
        why = ". No feature ever leaves its step: the encoder's outputs are too small for the grid, or hardly differ"
        return why, fixes.normalise(report)
    filled = float(np.mean([spread(one) for one in use]))
    if filled >= LARGE:
        why = (". The features sit at the ends of their bounded range, where tanh passes hardly any gradient: the "
               "encoder's outputs are too large for the grid")  # fmt: skip
        return why, (*fixes.learning_rate(report, above=1e-3), *fewer)
    soon = fixes.higher_rate(report)
    if soon and report.recipe and filled < FILLED and (report.trained_with("steps") or YOUNG) < YOUNG:
        return ". The features do not fill their bounded range yet: the encoder has learned too little", soon
    return ". Its features move together: the data need fewer codes than the grid has", fewer


def spread(shares: np.ndarray) -> float:
    """The standard deviation of the steps, over that of even use."""
    steps = np.arange(len(shares))
    mean = float(shares @ steps)
    return math.sqrt(float(shares @ (steps - mean) ** 2) / float(np.var(steps)))


def fewer_steps(report: Report, book: Codebook) -> tuple[str, ...]:
    """A grid of as many features as are independent of each other, and of no more codes than are in even use."""
    if not report.recipe:
        return ("use fewer steps or bits",)
    if report.grid is None or book.counts is None or math.prod(report.grid[1]) != book.size:
        return ()
    key, steps = report.grid
    wanted = max(2.0, book.measures["perplexity"])
    if key.endswith("bits"):
        bits = round(math.log2(wanted))
        return (fixes.option(key, bits),) if bits < len(steps) else ()
    entropies = [entropy(one) for one in feature_use(book.counts, steps)]
    independent = math.floor(book.measures["entropy_bits"] / max(*entropies, 1e-9) + 0.25)
    kept = sorted(range(len(steps)), key=lambda i: -entropies[i])[: max(1, independent)]
    left = [steps[i] for i in sorted(kept)]
    most = (
        1.05 * wanted if len(left) == 1 else max(4.0, wanted / 2)
    )  # features that are not independent leave corners empty
    while math.prod(left) > most and max(left) > 2:
        left[left.index(max(left))] -= 1
    return (fixes.option(key, left),) if left != list(steps) else ()
