"""Linear probes: what a plain linear classifier reads out of codes or features, on groups it was not fitted on."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from vqtool.errors import missing_extra

Labels = NDArray[np.int64]
FOLDS = 5


class LinearProbe:
    """Logistic regression whose classes weigh the same, however rare; scikit-learn's.

    Args:
        penalty: weight of half the squared coefficients beside the summed loss.
        standardise: dense features by the rows it is fitted on; one-hots (sparse) are taken as they are.
    """

    def __init__(self, *, penalty: float = 1.0, standardise: bool = True) -> None:
        self.penalty, self.standardise = penalty, standardise
        self.model: Any = None

    def fit(self, x: Any, labels: Labels) -> LinearProbe:
        """`x` [n, d], dense or sparse, and `labels` [n]. Raises VqtoolError where scikit-learn is not installed."""
        try:
            from sklearn.linear_model import LogisticRegression
            from sklearn.pipeline import make_pipeline
            from sklearn.preprocessing import StandardScaler
        except ImportError as fault:
            raise missing_extra("scikit-learn", "probe", "a linear probe") from fault
        regression = LogisticRegression(C=1 / self.penalty, class_weight="balanced", max_iter=1000)
        scaled = self.standardise and isinstance(x, np.ndarray)
        self.model = make_pipeline(StandardScaler(), regression) if scaled else regression
        self.model.fit(x, labels)
        return self

    def predict(self, x: Any) -> Labels:
        """The likeliest class [n]."""
        return np.asarray(self.model.predict(x), dtype=np.int64)

    def score(self, x: Any) -> NDArray[np.float64]:
        """[n] the log-odds of the second of two classes."""
        return np.asarray(self.model.decision_function(x), dtype=np.float64)


def one_hots(codes: Labels, sizes: Sequence[int]) -> Any:
    """`codes` [n, Q] as a sparse matrix [n, sum of `sizes`] with a one for each code; -1 leaves its block zero."""
    from scipy.sparse import csr_array

    offsets = np.concatenate([[0], np.cumsum(sizes)[:-1]])
    rows, books = np.nonzero(codes >= 0)
    columns = codes[rows, books] + offsets[books]
    return csr_array((np.ones(len(rows)), (rows, columns)), shape=(len(codes), int(sum(sizes))))


def f1_scores(labels: Labels, predicted: Labels, classes: int) -> NDArray[np.float64]:
    """F1 [classes] of each class; NaN for a class that is neither among the labels nor predicted."""
    from sklearn.metrics import f1_score

    return f1_score(labels, predicted, labels=range(classes), average=None, zero_division=np.nan)


def group_folds(groups: Labels, folds: int = FOLDS) -> Iterator[tuple[Labels, Labels]]:
    """(rows to fit on, rows held out), `folds` times; no group is on both sides. Large groups are assigned first.

    scikit-learn's `GroupKFold` does this too, but takes groups of equal size in another order: figures would change.
    """
    names, member, counts = np.unique(groups, return_inverse=True, return_counts=True)
    folds = min(folds, len(names))
    load, fold = np.zeros(folds), np.zeros(len(names), dtype=np.int64)
    for group in np.argsort(-counts, kind="stable"):
        fold[group] = load.argmin()
        load[fold[group]] += counts[group]
    of_row = fold[member]
    for number in range(folds if folds > 1 else 0):
        yield np.flatnonzero(of_row != number), np.flatnonzero(of_row == number)


def cross_predicted(x: Any, labels: Labels, groups: Labels, folds: int = FOLDS) -> Labels:
    """[n] the class that probes fitted on the other groups predict for every row; -1 where they saw one class only."""
    predicted = np.full(len(labels), -1, dtype=np.int64)
    for fitted, held in group_folds(groups, folds):
        if len(np.unique(labels[fitted])) > 1:
            predicted[held] = LinearProbe().fit(x[fitted], labels[fitted]).predict(x[held])
    return predicted


def area_under_curve(labels: Labels, scores: NDArray[np.float64]) -> float:
    """The area under the ROC curve of class 1 against class 0; NaN where one is missing.

    It is the chance that a row of class 1 scores above one of class 0, ties counting half.
    """
    ones, zeros = scores[labels == 1], np.sort(scores[labels == 0])
    if not len(ones) or not len(zeros):
        return float("nan")
    below = (np.searchsorted(zeros, ones, "left") + np.searchsorted(zeros, ones, "right")) / 2
    return float(below.mean() / len(zeros))
