"""Code vectors in the plane: their two principal components, or t-SNE where it is asked for."""

from __future__ import annotations

from typing import Literal

import numpy as np

from vqtool.errors import missing_extra

Layout = Literal["pca", "tsne"]
FITTED = 3  # so many used codes are needed to take the axes from them


def places(vectors: np.ndarray, counts: np.ndarray | None, layout: Layout = "pca") -> np.ndarray:
    """`vectors` [K, d] in the unit square [K, 2]; what lies far off the codes in use is drawn in to the edge.

    Axes and scale come from the codes that `counts` [K] says are used: dead codes are often far away, and would press
    all others into one spot.

    Raises:
        VqtoolError: t-SNE is asked for and scikit-learn is not installed.
    """
    vectors = np.nan_to_num(np.asarray(vectors, np.float64), posinf=0, neginf=0)
    used = counts > 0 if counts is not None and (counts > 0).sum() >= FITTED else np.ones(len(vectors), bool)
    flat = tsne(vectors) if layout == "tsne" else principal(vectors, vectors[used])
    low, high = np.percentile(flat[used], [1, 99], axis=0)
    middle, half = (low + high) / 2, float((high - low).max()) / 2 or 1.0
    away = 0.42 * (flat - middle) / half
    beyond = np.abs(away).max(1, keepdims=True) / 0.5
    return np.asarray(0.5 + away / np.maximum(beyond, 1))


def principal(vectors: np.ndarray, fitted: np.ndarray) -> np.ndarray:
    """`vectors` [K, d] along the two directions in which `fitted` [N, d] varies most [K, 2]."""
    centre = fitted.mean(0)
    away = fitted - centre
    _, axes = np.linalg.eigh(away.T @ away)  # ascending
    two = axes[:, ::-1][:, :2]
    two = two * np.sign(two[np.abs(two).argmax(0), range(two.shape[1])])  # of the two signs always the same
    flat = (vectors - centre) @ two
    return flat if flat.shape[1] == 2 else np.pad(flat, ((0, 0), (0, 1)))


def tsne(vectors: np.ndarray) -> np.ndarray:
    """t-SNE (van der Maaten and Hinton 2008) of `vectors` [K, d], from the principal components [K, 2]."""
    try:
        from sklearn.manifold import TSNE
    except ImportError as error:
        raise missing_extra("scikit-learn", "plot", "the t-SNE map") from error
    if len(vectors) < 4:
        return principal(vectors, vectors)
    perplexity = min(30.0, (len(vectors) - 1) / 3)
    start = principal(vectors, vectors)
    start = 1e-4 * start / max(float(start.std()), 1e-12)
    flat: np.ndarray = TSNE(init=start, perplexity=perplexity, random_state=0).fit_transform(vectors)
    return flat.astype(np.float64)
