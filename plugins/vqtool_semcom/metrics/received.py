"""Figures that a channel reports, averaged over rows: bit errors and their theory, power, confidence."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping

from torch import Tensor

from vqtool.api import DataSpec, Metric, Received


class ReceivedFigures(Metric):
    """`<figure>.<level>` for every figure that the channel reports, and the gap of soft and hard path.

    `ber` is the share of wrong bits, decided one by one, `ber.theory` its expectation, `token_errors` the share of
    codes that the receiver gets wrong. `consistency` is |soft - hard|^2 of the
    vectors that the receiver works with, over the variance of the hard ones.
    """

    def __init__(self, spec: DataSpec) -> None:
        super().__init__(spec)
        self.sums: dict[str, float] = defaultdict(float)
        self.moments: dict[str, list[float]] = defaultdict(lambda: [0.0, 0.0, 0.0, 0.0])
        self.rows = 0

    def update(self, *, received: Mapping[str, Received], codes: Tensor) -> None:
        """`received` by level, `codes` [B, T, Q] as sent."""
        self.rows += len(codes)
        for level, one in received.items():
            for name, figure in one.figures.items():
                self.sums[name + level] += float(figure.detach().double().sum())
            self.sums["token_errors" + level] += float(wrong(one.codes, codes).sum())
            if one.soft is not None:
                hard, soft = one.hard.detach().double(), one.soft.detach().double()
                new = ((soft - hard).square().sum(), hard.sum(), hard.square().sum(), hard.new_tensor(hard.numel()))
                self.moments[level] = [old + float(n) for old, n in zip(self.moments[level], new, strict=True)]

    def compute(self) -> Mapping[str, float]:
        """The figures named above."""
        figures = {name: value / max(1, self.rows) for name, value in self.sums.items()}
        for level, (away, total, squares, count) in self.moments.items():
            variance = squares / count - (total / count) ** 2
            figures["consistency" + level] = away / count / max(variance, 1e-12)
        return figures


def wrong(received: Tensor, codes: Tensor) -> Tensor:
    """The share of each row's codes [B, T, Q] that arrived as other codes [B]; -1, not sent, is not counted.

    Of fewer levels than Q the first ones were sent.
    """
    codes = codes[..., : received.shape[-1]]
    sent = (codes >= 0) & (received >= 0)
    return ((received != codes) & sent).double().flatten(1).sum(1) / sent.flatten(1).sum(1).clamp_min(1)
