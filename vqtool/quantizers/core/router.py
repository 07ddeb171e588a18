"""Chooses for each window one of several experts."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from vqtool.api import Route


class Router(nn.Module):
    """A linear map of the mean and the spread of a window's tokens to logits of R experts.

    It reads latents and pulls at none: its gradient ends here. What it reads is standardised over the features, so that
    a growing latent does not make it sure of itself. Of equal logits the first one counts.
    """

    def __init__(self, dim: int, experts: int) -> None:
        super().__init__()
        self.logits = nn.Linear(2 * dim, experts)

    def forward(self, tokens: Tensor, real: Tensor) -> Route:
        """Route windows `tokens` [B, T, D]; those that do not count, by `real` [B, T], hold zeros."""
        logits = self.logits(features_of(tokens.detach(), real))
        return Route(logits.argmax(1), logits.softmax(1))


def features_of(tokens: Tensor, real: Tensor) -> Tensor:
    """The mean and the standard deviation over the real tokens of each window, each standardised [B, 2 D]."""
    count, some = real.sum(1).clamp_min(1)[:, None], real[..., None]
    mean = tokens.sum(1) / count
    away = (tokens - mean[:, None]) * some
    return torch.cat([standardised(mean), standardised((away.square().sum(1) / count).sqrt())], 1)


def standardised(x: Tensor) -> Tensor:
    """`x` [B, D] with a mean of 0 and a variance of 1 over D; zeros where all are equal."""
    x = x - x.mean(1, keepdim=True)
    return x / x.square().mean(1, keepdim=True).sqrt().clamp_min(torch.finfo(x.dtype).tiny)


def balance(probs: Tensor, chosen: Tensor, real: Tensor) -> Tensor:
    """R sum_r f_r P_r of `probs` [B, R] over the windows that are `real` [B]; 1 at least where the load is even.

    f_r is the share of windows that chose r (a constant), P_r the mean probability of r: the auxiliary loss of the
    Switch Transformer (Fedus et al. 2021, arXiv 2101.03961, equations 4 to 6) without its weight.
    """
    count = real.sum().clamp_min(1)
    share = (torch.nn.functional.one_hot(chosen, probs.shape[1]) * real[:, None]).sum(0) / count
    mean = (probs * real[:, None]).sum(0) / count
    return probs.shape[1] * (share * mean).sum()
