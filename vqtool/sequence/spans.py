"""Which tokens a masked task hides: spans of neighbours, as in wav2vec 2.0."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional as F


def hidden_spans(batch: int, tokens: int, *, share: float, span: int, device: torch.device | None = None) -> Tensor:
    """[B, T] bool, true where a token is hidden; drawn from torch's generator.

    Each window has n = floor(share * T / span + u) spans of `span` tokens, u uniform in [0, 1), at least one; their
    starts are drawn without replacement from all places where a span fits, so they may overlap (Baevski et al. 2020,
    arXiv 2006.11477, section 3.1 and appendix A; as fairseq draws them).
    """
    span = min(span, tokens)
    starts = tokens - span + 1
    wanted = (share * tokens / span + torch.rand(batch, 1, device=device)).long().clamp(1, starts)
    order = torch.rand(batch, starts, device=device).argsort(1).argsort(1)  # each start's place in a random order
    begins = (order < wanted).float()
    ends = F.pad(begins, (span - 1, span - 1))
    return ends.unfold(1, span, 1).amax(2) > 0  # [B, starts + span - 1] = [B, T]
