"""Which labels codes stand for: counts, precision with its interval over groups, and what may be claimed."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

Integers = NDArray[np.int64]
LEAST_GROUPS = 5  # behind any claim: with fewer it may be the habit of one group
DRAWS = 1000  # of the bootstrap
INTERVAL = (0.025, 0.975)
EXAMPLES = 3  # a code, each of another group


@dataclass(frozen=True, slots=True)
class CodeLabels:
    """One codebook compared with labels. K codes, C labels; `none` marks a code that no labelled token took."""

    name: str
    counts: Integers  # [K, C]
    label: Integers  # [K] the label most over-represented among a code's tokens (lift); -1: none
    precision: NDArray[np.float64]  # [K] the share of a code's tokens that have that label; NaN: none
    low: NDArray[np.float64]  # [K] of a bootstrap over groups; NaN where fewer than LEAST_GROUPS have the code
    high: NDArray[np.float64]
    groups: Integers  # [K] in how many groups the code has tokens of that label
    claimed: NDArray[np.bool_]  # [K]
    examples: tuple[tuple[int, ...], ...]  # [K] of at most EXAMPLES places among the tokens

    @property
    def shares(self) -> NDArray[np.float64]:
        """[C] of all tokens."""
        return np.asarray(self.counts.sum(0) / max(1, self.counts.sum()))

    def lift(self) -> NDArray[np.float64]:
        """[K, C] how many times as often a code's tokens have a label as all tokens do; NaN for unused codes."""
        total = self.counts.sum(1, keepdims=True)
        own = np.divide(self.counts, total, out=np.full(self.counts.shape, np.nan), where=total > 0)
        lift: NDArray[np.float64] = np.divide(own, self.shares, out=np.full(own.shape, np.nan), where=self.shares > 0)
        return lift


@dataclass(frozen=True)
class Reading:
    """A set of codebooks compared with the labels of a split."""

    label: str  # the field's name
    names: tuple[str, ...]  # of the labels
    group: str  # what the intervals are over
    group_names: tuple[str, ...]
    split: str
    held: Mapping[str, np.ndarray]  # of the labelled tokens: "labels", "groups", "rows", "places", "codes"
    tokens: int  # of a row
    books: tuple[CodeLabels, ...]
    vectors: tuple[np.ndarray, ...]  # [K, d] of each codebook, where the quantizer has any
    figures: Mapping[str, float]
    rate: float | None  # samples a second


def held_against(
    name: str, codes: Integers, size: int, labels: Integers, classes: int, groups: Integers,
    *, known: Integers | None = None, seed: int = 0,
) -> CodeLabels:  # fmt: skip
    """Compare the `codes` [n] of a codebook of `size` with `labels` [n] of `classes` kinds in `groups` [n].

    `known` [size, classes], counts over other tokens, decides which label a code stands for if it has any for it: the
    precision is then measured on tokens that had no part in the choice. A code is claimed for its label if it has
    tokens of it in at least LEAST_GROUPS groups and the lower end of its precision's 95 % interval is above one half
    and above the label's own share.
    """
    each = by_group(codes, size, labels, classes, groups)  # [G, K, C]
    counts = each.sum(0)
    label = chosen(counts, known)
    at = np.arange(size)
    of_label = each[:, at, np.maximum(label, 0)]  # [G, K]
    total = each.sum(2)
    with np.errstate(invalid="ignore"):
        precision = np.where(label >= 0, of_label.sum(0) / total.sum(0), np.nan)
    low, high = interval(of_label, total, seed)
    few = (total > 0).sum(0) < LEAST_GROUPS
    low[few] = high[few] = np.nan
    share = counts.sum(0) / max(1, counts.sum())
    many = (of_label > 0).sum(0)
    bound = np.maximum(0.5, share[np.maximum(label, 0)])
    claimed = (label >= 0) & (many >= LEAST_GROUPS) & (low > bound)
    examples = tuple(_examples(np.flatnonzero(codes == k), groups) for k in range(size))
    return CodeLabels(name, counts, label, precision, low, high, many.astype(np.int64), claimed, examples)


def by_group(codes: Integers, size: int, labels: Integers, classes: int, groups: Integers) -> Integers:
    """Counts [G, K, C] of the tokens of each group, code and label; tokens without a code (-1) are in none."""
    member = np.unique(groups, return_inverse=True)[1].reshape(-1)
    count = int(member.max()) + 1 if len(member) else 0
    made = np.zeros((count, size, classes), dtype=np.int64)
    real = codes >= 0
    np.add.at(made, (member[real], codes[real], labels[real]), 1)
    return made


def chosen(counts: Integers, known: Integers | None) -> Integers:
    """[K] the label of the greatest lift, by `known` where that has any token of the code, else by `counts`."""
    made = np.full(len(counts), -1, dtype=np.int64)
    for table in (counts,) if known is None else (counts, known):
        used = table.sum(1) > 0
        share = np.maximum(table.sum(0), 1e-9)
        made[used] = (table[used] / share).argmax(1)
    made[counts.sum(1) == 0] = -1
    return made


def interval(hits: Integers, total: Integers, seed: int) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """The 95 % interval [K] of hits / total, both [G, K], over DRAWS draws of as many groups with replacement."""
    groups = len(hits)
    if not groups:
        nothing = np.full(hits.shape[1], np.nan)
        return nothing, nothing
    drawn = np.random.default_rng(seed).multinomial(groups, np.full(groups, 1 / groups), size=DRAWS)  # [R, G]
    with np.errstate(invalid="ignore"):
        shares = (drawn @ hits) / (drawn @ total)  # [R, K]; NaN where no drawn group has the code
    seen = ~np.isnan(shares).all(0)
    low, high = (np.full(hits.shape[1], np.nan) for _ in INTERVAL)
    if seen.any():
        low[seen], high[seen] = np.nanquantile(shares[:, seen], INTERVAL, axis=0)
    return low, high


def _examples(at: Integers, groups: Integers) -> tuple[int, ...]:
    """The first token of each group among those `at`, up to EXAMPLES of them."""
    first = np.unique(groups[at], return_index=True)[1]
    return tuple(int(at[i]) for i in sorted(first)[:EXAMPLES])


def order(book: CodeLabels) -> Integers:
    """The codes in use by label, within one the claimed first, then by the lower end of their precision."""
    used = np.flatnonzero(book.label >= 0)
    keys = (-np.nan_to_num(book.low[used], nan=-1), ~book.claimed[used], book.label[used])
    return np.asarray(used[np.lexsort(keys)])


def document(reading: Reading) -> dict[str, Any]:
    """The content of `--json`."""
    names = reading.names
    return {
        "split": reading.split,
        "label": reading.label,
        "labels": list(names),
        "group": reading.group,
        "figures": dict(reading.figures),
        "claims": {
            name: {book.name: np.flatnonzero(book.claimed & (book.label == c)).tolist() for book in reading.books}
            for c, name in enumerate(names)
        },
        "codebooks": [as_json(book, names) for book in reading.books],
    }


def as_json(book: CodeLabels, names: Sequence[str]) -> dict[str, Any]:
    """The codes in use, with everything known of each; those of one label together, the surest first."""
    lift = book.lift()
    rows = [
        {
            "code": int(k),
            "label": names[book.label[k]],
            "counts": {name: int(n) for name, n in zip(names, book.counts[k], strict=True)},
            "precision": float(book.precision[k]),
            "low": float(book.low[k]),
            "high": float(book.high[k]),
            "lift": float(lift[k, book.label[k]]),
            "groups": int(book.groups[k]),
            "claimed": bool(book.claimed[k]),
        }
        for k in order(book)
    ]
    return {"name": book.name, "size": len(book.counts), "used": len(rows), "codes": rows}
