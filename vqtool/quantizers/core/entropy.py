"""Entropies of code distributions, in nats: how sure each token is, and how evenly the codes are used."""

from __future__ import annotations

import math

import torch
from torch import Tensor


def confidence_and_diversity(probs: Tensor, valid: Tensor | None) -> tuple[Tensor, Tensor]:
    """(mean entropy of a token's distribution, log K - entropy of the mean distribution) of `probs` [N, ..., K].

    Both are >= 0 and best when small; rows that are not `valid` [N] must be zero in `probs`. Leading axes but the
    first are averaged over. (Entropy terms of MAGVIT-v2, Yu et al. 2023, arXiv 2310.05737, section 3.1.)
    """
    count = max(probs.shape[0], 1) if valid is None else valid.sum().clamp_min(1)
    own = entropy(probs).sum(0) / count
    use = entropy(probs.sum(0) / count)
    some = (probs.detach().sum() > 0).to(probs.dtype)  # no token counts: nothing to spread
    return own.mean(), some * (math.log(probs.shape[-1]) - use.mean())


def entropy(shares: Tensor) -> Tensor:
    """-sum p log p over the last axis of `shares` [..., K], in nats.

    The slope stays finite at p = 0, unlike that of `torch.special.entr`: a probability that underflows in a softmax
    has no gradient of its own, and infinity times nothing would be a NaN in every weight behind it.
    """
    return -(shares * shares.clamp_min(torch.finfo(shares.dtype).tiny).log()).sum(-1)
