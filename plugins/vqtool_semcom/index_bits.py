"""Codes of one codebook as bits, and the probabilities of codes given bits that came through noise."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from vqtool_semcom.labels import Labelling, label_table


class IndexBits(nn.Module):
    """A table of labels, kept with the weights: the receiver needs the sender's. K codes take k = ceil(log2 K) bits."""

    labels: Tensor  # [K] long

    def __init__(self, size: int, *, radius: int | None = None) -> None:
        super().__init__()
        self.size, self.width, self.radius = size, max(1, (size - 1).bit_length()), radius
        self.register_buffer("labels", torch.arange(size))

    def relabel(self, labelling: Labelling, vectors: Tensor) -> None:
        """Compute the labels of the codes `vectors` [K, D]."""
        self.labels.copy_(label_table(labelling, vectors))

    def table(self) -> Tensor:
        """The bits [K, k] of every code's label, the most significant first."""
        places = 2 ** torch.arange(self.width - 1, -1, -1, device=self.labels.device)
        return (self.labels[:, None] // places % 2).float()  # no shift: ONNX has none for int64

    def hard(self, codes: Tensor) -> Tensor:
        """Codes [...] -> their bits [..., k]; zeros for -1."""
        return self.table()[codes.clamp_min(0)] * (codes >= 0)[..., None]

    def soft(self, probs: Tensor) -> Tensor:
        """The probability of a one [..., k] in each bit, for codes distributed as `probs` [..., K]."""
        return (probs @ self.table()).clamp(0, 1)

    def posterior(self, llr: Tensor) -> Tensor:
        """P(code | received) [..., K] from `llr` [..., k] = log P(bit = 1) / P(bit = 0), for equally likely codes.

        Exact for independent bits: log P = sum of the LLRs of a label's ones + const. Labels that no code has are
        left out. With `radius` r, so are labels at a Hamming distance above r from the likeliest bits, unless that
        leaves none.
        """
        table = self.table()
        scores = llr @ table.t()
        if self.radius is not None:
            likeliest = (llr > 0).to(table.dtype)
            distance = likeliest.sum(-1, keepdim=True) + table.sum(1) - 2 * likeliest @ table.t()
            far = distance > self.radius
            scores = scores.masked_fill(far & ~far.all(-1, keepdim=True), -torch.inf)
        return torch.softmax(scores, -1)
