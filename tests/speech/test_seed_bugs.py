"""The four bugs of the codec that this one replaces, each planted in a copy of `residual-ema`, and the laws."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence

import pytest
import torch
from torch import Tensor

from vqtool.api import CodebookStats, Quantized
from vqtool.conformance import QUANTIZER_LAWS, Subject, judge
from vqtool.quantizers.residual import ResidualEMA

SKIPPED = {"compiles", "exports"}  # slow, and no bug here concerns them


class ReversedCommitment(ResidualEMA):
    """The commitment pushes the encoder away from the codes: its value is right, its gradient has the wrong sign."""

    def forward(self, z: Tensor, mask: Tensor | None = None) -> Quantized:
        q = super().forward(z, mask)
        term = q.terms["commitment"]
        return dataclasses.replace(q, terms={"commitment": 2 * term.detach() - term})


class FedWithOutputs(ResidualEMA):
    """The moving average follows what the levels put out, not what they were given: codes never move."""

    def forward(self, z: Tensor, mask: Tensor | None = None) -> Quantized:
        q = super().forward(z, mask)
        fed = zip(q.stats, self.levels, strict=bool(q.stats))
        stats = tuple(dataclasses.replace(s, sums=s.counts[:, None] * level.codebook.codes) for s, level in fed)
        return dataclasses.replace(q, stats=stats)


class GainOfLevels(ResidualEMA):
    """Straight-through at every level and summed: with 8 levels the gradient is eight times too large."""

    def forward(self, z: Tensor, mask: Tensor | None = None) -> Quantized:
        q = super().forward(z, mask)
        again = torch.where(q.codes[..., :1] >= 0, z - z.detach(), 0)
        return dataclasses.replace(q, z=q.z + (len(self.levels) - 1) * again)


class StartsFromZeroCounts(ResidualEMA):
    """The first update divides by counts that start at nothing: unused codes go to 1000 times their scale."""

    def update(self, stats: Sequence[CodebookStats]) -> None:
        for level, part in zip(self.levels, stats, strict=True):
            book = level.codebook
            unused = (part.counts == 0) & bool(part.counts.any()) & (book.weights.sum() == 0)
            book.codes.copy_(torch.where(unused[:, None], book.codes * 1000, book.codes))
        super().update(stats)


BUGS = {
    ReversedCommitment: "commitment-reaches-encoder",
    FedWithOutputs: "ema-follows-inputs",
    GainOfLevels: "straight-through-gain",
    StartsFromZeroCounts: "ema-start",
}


@pytest.mark.parametrize("bug", BUGS, ids=lambda bug: bug.__name__)
def test_exactly_the_law_that_names_the_bug_catches_it(bug: type[ResidualEMA]) -> None:
    subject = Subject(bug, options={"codebook_size": 32, "levels": 2}, batch=3, length=32)
    laws = [law for law in QUANTIZER_LAWS if law.id not in SKIPPED]
    assert {law.id for law in laws if judge(law, subject).verdict.status == "broken"} == {BUGS[bug]}
