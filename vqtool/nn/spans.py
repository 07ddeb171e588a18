"""Which tokens a masked task hides: spans of neighbours, as in wav2vec 2.0."""

from __future__ import annotations

import torch
from torch import Tensor


def hidden_spans(batch: int, tokens: int, *, share: float, span: int, device: torch.device | None = None) -> Tensor:
    """[B, T] bool, true where a token is hidden; drawn from torch's generator.

    Each window has n = floor(share * T / span + u) spans of `span` tokens, u uniform in [0, 1), at least one; their
    starts are drawn without replacement from all places where a span fits, so they may overlap (Baevski et al. 2020,
    arXiv 2006.11477, section 3.1 and appendix A; as fairseq draws them). `covered` gives the share hidden on average.
    """
    span = min(span, tokens)
    starts = tokens - span + 1
    wanted = (share * tokens / span + torch.rand(batch, 1, device=device)).long().clamp(1, starts)
    order = torch.rand(batch, starts, device=device).argsort(1).argsort(1)  # each start's place in a random order
    begins = (order < wanted).float()
    ends = torch.nn.functional.pad(begins, (span - 1, span - 1))
    return ends.unfold(1, span, 1).amax(2) > 0  # [B, starts + span - 1] = [B, T]


def covered(tokens: int, *, share: float, span: int) -> float:
    """The share of tokens that `hidden_spans` hides on average: 1 - C(S - c, n) / C(S, n), of S starts c over a token."""
    span = min(span, tokens)
    starts = tokens - span + 1
    wanted = share * tokens / span
    low = int(wanted)
    total = 0.0
    for count, chance in ((low, 1 - (wanted - low)), (low + 1, wanted - low)):
        count = min(max(count, 1), starts)
        for token in range(tokens):
            over = min(token, starts - 1) - max(0, token - span + 1) + 1
            missed = 1.0
            for drawn in range(count):
                missed *= max(0, starts - over - drawn) / (starts - drawn)
            total += chance * (1 - missed)
    return total / tokens
