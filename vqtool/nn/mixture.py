"""The distribution over codes that a distance makes: a softmax of how far away they are."""

from __future__ import annotations

import torch
from torch import Tensor


def mixture(tokens: Tensor, codes: Tensor, temperature: float | Tensor, valid: Tensor | None) -> Tensor:
    """softmax_k(-mean((z - e_k)^2) / temperature) [N, K] of `tokens` [N, d] over `codes` [K, d]; the mean is over d.

    Rows that are not `valid` [N] are zero (None: all are).
    """
    centre = codes.detach().mean(0)  # distances do not depend on it; without an offset they cancel less
    away, ours = tokens - centre, codes - centre
    half = ours.square().sum(1) / 2
    scores = torch.addmm(half, away, ours.t(), alpha=-1)  # half the squared distance, but for the token's own share
    probs = torch.softmax(scores * (-2 / (tokens.shape[1] * temperature)), 1)
    return probs if valid is None else probs.masked_fill(~valid[:, None], 0)
