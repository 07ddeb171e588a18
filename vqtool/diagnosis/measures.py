"""What is measured of codebooks, codes and signals: pure functions of numpy arrays, each with its exact definition."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

import numpy as np
from numpy.typing import ArrayLike, NDArray

Array = NDArray[np.float64]
TWIN = 0.05  # of the upper quartile of neighbour distances: nearer than that, two codes are one
GROUP = 8  # times the distance of neighbours: the radius in which codes are taken for one group; 1 / TWIN is far off
ENOUGH = 64  # numbers by which a uniform distribution is recognised
BLOCK = 256  # rows that are compared one by one with those before them
CHUNK = 1 << 20  # distances held at a time
WIDE = 64  # dimensions from which neighbours are searched in 32 bits: they are far apart there, and it is twice as fast


# --- how codes are used ----------------------------------------------------------------------------------------------


def shares(counts: ArrayLike) -> Array:
    """p_k = counts_k / sum of counts [K]; all zero where nothing was counted."""
    counts = np.asarray(counts, dtype=np.float64)
    return np.asarray(counts / max(counts.sum(), 1e-300))


def entropy(counts: ArrayLike) -> float:
    """-sum p_k log2 p_k in bits, of the distribution that `counts` [K] give; 0 where nothing was counted."""
    p = shares(counts)
    p = p[p > 0]
    return float(abs((p * np.log2(p)).sum()))


def perplexity(counts: ArrayLike) -> float:
    """2^entropy: how many codes, used alike, would have this entropy; 0 where nothing was counted."""
    return 2.0 ** entropy(counts) if np.sum(counts) > 0 else 0.0


def gini(counts: ArrayLike) -> float:
    """Gini coefficient of use: mean |n_i - n_j| / (2 mean n); 0 for equal use, (K - 1) / K where one code has all."""
    ordered = np.sort(np.asarray(counts, dtype=np.float64))
    total, size = ordered.sum(), len(ordered)
    if total <= 0:
        return 0.0
    return float((2 * np.arange(1, size + 1) - size - 1) @ ordered / (size * total))


def hottest(counts: ArrayLike, codes: int = 1) -> float:
    """The share of all tokens that the `codes` most used codes have."""
    return float(np.sort(shares(counts))[::-1][:codes].sum())


def quantile(values: ArrayLike, share: float) -> float:
    """The value that a share of `values` [N] is below, between two of them linearly; numpy's own imports numpy.ma."""
    ordered = np.sort(np.asarray(values, dtype=np.float64).reshape(-1))
    at = share * (len(ordered) - 1)
    low = math.floor(at)
    high = min(low + 1, len(ordered) - 1)
    return float(ordered[low] + (at - low) * (ordered[high] - ordered[low]))


def expected_used(size: int, tokens: float) -> float:
    """How many of K codes N tokens would hit if use were uniform: K (1 - (1 - 1/K)^N)."""
    if size == 1:
        return float(min(tokens, 1.0))
    return size * -math.expm1(tokens * math.log1p(-1 / size))


def alive(counts: ArrayLike) -> float:
    """How many of K codes more tokens would hit, judged from codes seen once and twice: u + f1 (f1 - 1) / (2 (f2 + 1)).

    (Chao 1984, bias-corrected form, at most K.) `u` codes were seen, f1 of them once and f2 twice; a lower bound.
    """
    counts = np.asarray(counts, dtype=np.float64)
    once, twice = float((counts == 1).sum()), float((counts == 2).sum())
    return min(float(len(counts)), float((counts > 0).sum()) + once * (once - 1) / (2 * (twice + 1)))


def usage(counts: ArrayLike) -> dict[str, float]:
    """All figures of use of one codebook, from its counts [K].

    `used` and `dead` are numbers of codes, `tokens` how many were counted; `dead_share` is 1 - `alive` / K, the share
    that more tokens would not hit either; `spread` is (perplexity - 1) / (`expected_used` - 1): 0 for one code, 1 for
    uniform use.
    """
    counts = np.asarray(counts, dtype=np.float64)
    size, tokens, used = len(counts), float(counts.sum()), int((counts > 0).sum())
    reachable = expected_used(size, tokens)
    found = perplexity(counts)
    return {
        "tokens": tokens,
        "used": float(used),
        "dead": float(size - used),
        "used_share": used / size,
        "dead_share": 1 - alive(counts) / size if tokens else 0.0,
        "perplexity": found,
        "perplexity_share": found / size,
        "spread": max(0.0, found - 1) / max(reachable - 1, 1e-9),
        "entropy_bits": entropy(counts),
        "hottest": hottest(counts),
        "hottest_10": hottest(counts, 10),
        "gini": gini(counts),
    }


def usage_row(counts: Mapping[str, NDArray[np.int64]]) -> dict[str, float]:
    """For a row of metrics.jsonl: share of codes used and perplexity, means over the codebooks and each codebook's."""
    each = {name: usage(n) for name, n in counts.items()}
    if not each:
        return {}
    row = {"codes.used": float(np.mean([m["used_share"] for m in each.values()])),
           "codes.perplexity": float(np.mean([m["perplexity"] for m in each.values()]))}  # fmt: skip
    if len(each) > 1:
        row |= {f"codes.perplexity.{name}": m["perplexity"] for name, m in each.items()}
    return row


def joint_usage(codes: NDArray[np.int64]) -> dict[str, float]:
    """Use of whole tuples, for `codes` [N, Q]; rows with a -1 count nowhere.

    `joint.used` tuples occur; `joint.entropy_bits` is the entropy of their distribution; `joint.redundancy_bits` the
    sum of the codebooks' entropies minus it: what they encode twice (the total correlation; biased upwards where N is
    not much larger than the number of tuples).
    """
    codes = codes[(codes >= 0).all(1)]
    if not len(codes):
        return {}
    keys = np.zeros(len(codes), dtype=np.int64)
    for column in codes.T:  # renumbered at each codebook, so that the key never overflows
        _, keys = np.unique(keys * (column.max() + 1) + column, return_inverse=True)
    counts = np.bincount(keys)
    own = sum(entropy(np.bincount(column)) for column in codes.T)
    joint = entropy(counts)
    return {
        "joint.used": float(len(counts)),
        "joint.entropy_bits": joint,
        "joint.redundancy_bits": max(0.0, own - joint),
    }


def sequences(codes: NDArray[np.int64]) -> dict[str, float]:
    """How token sequences vary, for codes [B, T] of one codebook; -1 ends a sequence.

    `sequence.repeated` is the share of neighbours that are equal; `sequence.longest_repeat` the longest run of one
    code; `sequence.bigram_bits` the entropy of the next code given this one, H(c_t, c_t+1) - H(c_t), in bits.
    """
    if codes.shape[1] < 2:
        return {}
    first, then = codes[:, :-1], codes[:, 1:]
    real = (first >= 0) & (then >= 0)
    if not real.any():
        return {}
    pairs = first[real] * (codes.max() + 1) + then[real]
    _, counts = np.unique(pairs, return_counts=True)
    given = entropy(np.bincount(first[real]))
    run = longest = np.where(codes[:, 0] >= 0, 1, 0)
    for t in range(1, codes.shape[1]):
        same = (codes[:, t] == codes[:, t - 1]) & (codes[:, t] >= 0)
        run = np.where(same, run + 1, np.where(codes[:, t] >= 0, 1, 0))
        longest = np.maximum(longest, run)
    return {
        "sequence.repeated": float((first[real] == then[real]).mean()),
        "sequence.longest_repeat": float(longest.max()),
        "sequence.bigram_bits": max(0.0, entropy(counts) - given),
    }


# --- where codes lie -------------------------------------------------------------------------------------------------


def neighbour_distances(vectors: ArrayLike) -> Array:
    """The Euclidean distance of each row of `vectors` [K, d] to its nearest other row [K]; inf for a single row."""
    rows = np.asarray(vectors, dtype=np.float64)
    rows = rows - rows.mean(0)  # a common offset would cancel digits
    step = max(1, CHUNK // max(len(rows), 1))
    searched = rows.astype(np.float32) if rows.shape[1] >= WIDE and np.abs(rows).max(initial=0) < 1e15 else rows
    nearest, who = np.full(len(rows), np.inf, dtype=searched.dtype), np.roll(np.arange(len(rows)), -1)
    for at in range(0, len(rows), step):  # each pair once
        part = squared_distances(searched[at : at + step], searched[at:])
        np.fill_diagonal(part, np.inf)
        for axis in (1, 0):
            best = part.argmin(axis)
            found = np.take_along_axis(part, np.expand_dims(best, axis), axis).squeeze(axis)
            closer = np.flatnonzero(found < nearest[at : at + len(best)])
            nearest[at + closer], who[at + closer] = found[closer], at + best[closer]
    if len(rows) < 2:
        return np.full(len(rows), np.inf)
    return np.asarray(np.linalg.norm(rows - rows[who], axis=1))  # exact: the expansion above loses small distances


def twin_radius(vectors: ArrayLike, distances: Array, share: float = TWIN) -> float:
    """How near two of the rows [K, d], with `distances` [K] to their neighbours, are the same code; -1: none can be.

    It is `share` of the upper quartile of the distances between rows that differ: first those that differ at all, then,
    where nearly all have a near twin, the groups of near ones. Rows that are all alike but for rounding are twins.
    """
    rows = np.asarray(vectors, dtype=np.float64)
    if len(rows) < 3:
        return -1.0
    rounding = 1e-6 * float(np.abs(rows).max())
    spacing = quantile(distances, 0.75)
    if spacing <= rounding:
        rows = distinct(rows, rounding)
        spacing = quantile(neighbour_distances(rows), 0.75) if len(rows) > 1 else 0.0
    groups = distinct(rows, GROUP * spacing) if spacing > rounding else rows[:1]
    if len(groups) > 1:
        between = quantile(neighbour_distances(groups), 0.75)
        spacing = between if share * between > spacing else spacing
    return max(rounding, share * spacing)


def distinct(rows: Array, radius: float) -> Array:
    """Rows [G, d] of which no two are within `radius`, such that each of `rows` [K, d] is within it of one of them."""
    left, kept = np.unique(rows - rows.mean(0), axis=0), []
    while len(left):
        block, left = left[:BLOCK], left[BLOCK:]
        near = squared_distances(block, block) <= radius**2
        alone = np.ones(len(block), dtype=bool)
        for row in range(1, len(block)):
            alone[row] = not (near[row, :row] & alone[:row]).any()
        kept.append(block[alone])
        if len(left):
            left = left[(squared_distances(left, kept[-1]) > radius**2).all(1)]
    return np.concatenate(kept)


def squared_distances(rows: Array, others: Array) -> Array:
    """|a - b|^2 [N, M] of `rows` [N, d] and `others` [M, d]; of small ones digits are lost."""
    found = (-2 * rows) @ others.T
    found += np.einsum("nd,nd->n", rows, rows)[:, None]
    found += np.einsum("md,md->m", others, others)
    return np.asarray(found)


def effective_rank(vectors: ArrayLike) -> float:
    """exp of the entropy (nats) of the normalised singular values of centred `vectors` [K, d] (Roy & Vetterli 2007)."""
    rows = np.asarray(vectors, dtype=np.float64)
    rows = rows - rows.mean(0)
    gram = rows.T @ rows if rows.shape[1] <= rows.shape[0] else rows @ rows.T
    values = np.sqrt(np.clip(np.linalg.eigvalsh(gram), 0, None))
    if values.sum() <= 0:
        return 0.0
    p = values / values.sum()
    p = p[p > 0]
    return float(np.exp(-(p * np.log(p)).sum()))


def geometry(vectors: ArrayLike, counts: ArrayLike | None = None) -> dict[str, float]:
    """Figures of the code vectors [K, d]; twins are looked for among codes in use, if `counts` [K] are given.

    `dimensions` is how many of them the codes looked at can fill, min(d, K - 1), `rank_share` the effective rank of
    these codes over it; `norm` is the mean length, `norm_spread` the lengths' standard deviation over it; `duplicates`
    is how many codes have a twin, `duplicate_share` that over the codes looked at; `neighbour` the median distance of
    neighbours.
    """
    rows = np.asarray(vectors, dtype=np.float64)
    lengths = np.linalg.norm(rows, axis=1)
    everywhere = counts is None or np.sum(counts) <= 0 or np.all(np.asarray(counts) > 0)
    looked = rows if everywhere else rows[np.asarray(counts) > 0]
    rank = effective_rank(rows)
    distances = neighbour_distances(looked)
    dimensions = max(1, min(rows.shape[1], len(looked) - 1))
    same = distances <= twin_radius(looked, distances)
    return {
        "norm": float(lengths.mean()),
        "norm_spread": float(lengths.std() / max(lengths.mean(), 1e-300)),
        "effective_rank": rank,
        "dimensions": float(dimensions),
        "rank_share": (rank if looked is rows else effective_rank(looked)) / dimensions if len(looked) > 1 else 1.0,
        "duplicates": float(same.sum()),
        "duplicate_share": float(same.mean()) if len(same) else 0.0,
        "neighbour": quantile(distances, 0.5) if len(distances) > 1 else 0.0,
    }


def unmoved(vectors: ArrayLike) -> NDArray[np.bool_]:
    """Which of the codes [K, d] look drawn from uniform(-1/K, 1/K), where VQ-VAEs and VQGANs start them [K].

    Codes within that range, if together they are spread as uniform numbers are: |x| K of mean 1/2 and mean square 1/3.
    """
    rows = np.abs(np.asarray(vectors, dtype=np.float64)) * len(np.asarray(vectors))
    inside = (rows <= 1.001).all(1)
    values = rows[inside]
    if values.size < ENOUGH or abs(values.mean() - 1 / 2) > 0.05 or abs(np.square(values).mean() - 1 / 3) > 0.03:
        return np.zeros(len(rows), dtype=bool)
    return np.asarray(inside)


def drift(before: ArrayLike, after: ArrayLike) -> float:
    """How far the codes [K, d] moved between two checkpoints: rms |after - before| over the rms spread of `before`."""
    a, b = np.asarray(before, dtype=np.float64), np.asarray(after, dtype=np.float64)
    spread = math.sqrt(float(np.square(a - a.mean(0)).sum(1).mean()))
    moved = math.sqrt(float(np.square(b - a).sum(1).mean()))
    return moved / spread if spread > 0 else (math.inf if moved > 0 else 0.0)


# --- what quantizing costs -------------------------------------------------------------------------------------------


def lag(counts: ArrayLike, errors: ArrayLike, offsets: ArrayLike) -> float:
    """The share of the squared error that is due to codes not lying at the mean of their inputs, 0 to 1.

    For each code k: n_k inputs (`counts`), the sum of their squared distances to it (`errors`), and its squared
    distance to their mean (`offsets`), all [K]. The mean of n inputs is itself uncertain by (their variance) / n,
    which is taken off: sum_k (n_k offset_k - v_k) / sum of errors, v_k = (errors_k - n_k offset_k) / (n_k - 1).
    Codes with a single input carry no information and are left out.
    """
    n, error, offset = (np.asarray(v, dtype=np.float64) for v in (counts, errors, offsets))
    some = n > 1
    if not some.any() or error[some].sum() <= 0:
        return 0.0
    n, error, offset = n[some], error[some], offset[some]
    within = np.clip(error - n * offset, 0, None) / (n - 1)
    return float(np.clip((n * offset - within).sum() / error.sum(), 0, 1))


def decibels(power: float, noise: float) -> float:
    """10 log10(power / noise), within -200 and 200 dB."""
    if power <= 0 or noise <= 0:
        return 200.0 if power > noise else -200.0 if noise > power else 0.0
    return max(-200.0, min(200.0, 10 * math.log10(power / noise)))


def folded(ratio: float) -> float:
    """A ratio or its inverse, whichever is at most 1: 0.5 for 0.5 and for 2; 0 where it is not a positive number."""
    if not math.isfinite(ratio) or ratio <= 0:
        return 0.0
    return min(ratio, 1 / ratio)


# --- series ----------------------------------------------------------------------------------------------------------


def thirds(values: Sequence[float]) -> tuple[float, float]:
    """The medians of the first and of the last third of a series."""
    third = max(1, len(values) // 3)
    return quantile(values[:third], 0.5), quantile(values[-third:], 0.5)
