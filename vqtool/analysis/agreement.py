"""How much codes reveal about labels: normalised mutual information, beside chance and labels moved in time."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
from numpy.typing import NDArray

from vqtool.errors import missing_extra

Labels = NDArray[np.int64]
ROLLS = 5


def joint(codes: Labels) -> Labels:
    """[n] one number for each combination of the Q codes in `codes` [n, Q]."""
    return np.unique(codes, axis=0, return_inverse=True)[1].reshape(-1)


def agreement(codes: Labels, labels: Labels) -> dict[str, float]:
    """`nmi`, over the mean of both entropies, and `ami`, the same less what chance gives, of `codes` and `labels` [n].

    (Vinh, Epps and Bailey 2010, equations 2 and 10; scikit-learn's.) Codes that are many and rare raise `nmi` by
    chance alone; only `ami` can be compared between codebooks of different sizes.
    """
    try:
        from sklearn.metrics import adjusted_mutual_info_score, normalized_mutual_info_score
    except ImportError as fault:
        raise missing_extra("scikit-learn", "probe", "the agreement of codes and labels") from fault
    return {
        "nmi": float(normalized_mutual_info_score(labels, codes)),
        "ami": float(adjusted_mutual_info_score(labels, codes)),
    }


def rolled(labels: Labels, groups: Labels, generator: np.random.Generator) -> Labels:
    """`labels` [n] with those of each group turned round by a random number of places, at least a tenth of the way.

    Keeps how labels follow each other in time, and how many each group has; only what they have to do with the codes
    at their place is lost. Rows of a group must come in their order in time.
    """
    moved = labels.copy()
    for group in np.unique(groups):
        at = np.flatnonzero(groups == group)
        least = len(at) // 10
        moved[at] = np.roll(labels[at], int(generator.integers(least, max(least + 1, len(at) - least))))
    return moved


def agreements(codes: Labels, labels: Labels, groups: Labels, *, rolls: int = ROLLS, seed: int = 0) -> dict[str, float]:
    """`nmi` and `ami` of the joint code, and of each codebook: `nmi.group0`, ...

    Beside each, under `nmi.rolled`, `nmi.rolled.group0`, ..., its null: the mean of `rolls` times with the labels
    rolled within their groups.
    """
    books = {"": joint(codes)}
    if codes.shape[1] > 1:
        books |= {f".group{q}": codes[:, q] for q in range(codes.shape[1])}
    generator = np.random.default_rng(seed)
    nulls = [rolled(labels, groups, generator) for _ in range(rolls)]
    figures: dict[str, float] = {}
    for name, book in books.items():
        figures |= {f"{figure}{name}": value for figure, value in agreement(book, labels).items()}
        chance = [agreement(book, null) for null in nulls]
        figures |= {f"{figure}.rolled{name}": _mean(chance, figure) for figure in ("nmi", "ami")}
    return figures


def _mean(many: Sequence[Mapping[str, float]], name: str) -> float:
    return float(np.mean([one[name] for one in many]))
