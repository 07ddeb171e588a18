"""How often the right candidate is found, and among how many that are wrong."""

from __future__ import annotations

from collections.abc import Mapping

from torch import Tensor

from vqtool.api import DataSpec, Metric


class Contrastive(Metric):
    """Over all hidden tokens of a split: `contrastive.accuracy`, a fraction, and what it is worth.

    `contrastive.effective_negatives` is the mean number of candidates that are wrong (those with the codes of the right
    one are none), `contrastive.chance` the mean of 1 / (1 + that number), `contrastive.lift` accuracy over chance. An
    accuracy of 1 with 0 negatives is a collapsed codebook.
    """

    def __init__(self, spec: DataSpec) -> None:
        super().__init__(spec)
        self.tokens = 0
        self.right = self.negatives = self.chance = 0.0

    def update(self, *, similarities: Tensor, positive: Tensor) -> None:
        """`similarities` [M, N], -inf for what is not a candidate; `positive` [M], the place of the right one."""
        wrong = similarities.isfinite().sum(1).double() - 1
        self.tokens += len(positive)
        self.right += float((similarities.argmax(1) == positive).sum())
        self.negatives += float(wrong.sum())
        self.chance += float((1 / (1 + wrong)).sum())

    def compute(self) -> Mapping[str, float]:
        """The figures named above."""
        if not self.tokens:
            return {}
        accuracy, chance = self.right / self.tokens, self.chance / self.tokens
        return {
            "contrastive.accuracy": accuracy,
            "contrastive.effective_negatives": self.negatives / self.tokens,
            "contrastive.chance": chance,
            "contrastive.lift": accuracy / chance,
        }
