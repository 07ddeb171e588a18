"""Ids (hashes of words, for example) as a sum of embeddings of their n-grams: a bag, not a sequence."""

from __future__ import annotations

from typing import Annotated

import torch
import torch.nn.functional as F
from annotated_doc import Doc
from annotated_types import Ge, Gt, Interval
from torch import Tensor, nn

from vqtool.api import Condition, Encoder
from vqtool.layers.ids import ids_of, stride_of

STEP = 1_000_003  # a prime: (a, b) and (b, a) fall into different buckets


class NgramsEncoder(Encoder):
    """[B, 1, L] long -> [B, T, D]; 0 marks padding. Every token sees the whole window.

    An n-gram's number is the hash of its ids modulo `buckets`; the embeddings of all n-grams up to `longest` are summed
    and divided by the root of their count (the features of Joulin et al. 2017, arXiv 1607.01759). In training ids are
    left out at random. The condition is not read.
    """

    def __init__(
        self,
        channels: int,
        length: int | tuple[int, ...],
        condition_dim: int = 0,
        *,
        tokens: Annotated[int, Gt(0), Doc("tokens per window; a divisor of its length")] = 16,
        dim: Annotated[int, Gt(0), Doc("features per token, D")] = 32,
        buckets: Annotated[int, Gt(0), Doc("rows of the embedding table")] = 32768,
        width: Annotated[int, Gt(0), Doc("features of an embedding")] = 64,
        longest: Annotated[int, Gt(0), Doc("n of the longest n-grams")] = 2,
        leave_out: Annotated[float, Interval(ge=0, lt=1), Doc("share of ids left out in training")] = 0.2,
        dropout: Annotated[float, Interval(ge=0, lt=1), Doc("dropout of the summed embeddings")] = 0.3,
        layers: Annotated[int, Ge(0), Doc("hidden layers before the tokens")] = 0,
    ) -> None:
        super().__init__()
        self.dim, self.tokens, self.stride = dim, tokens, stride_of("ngrams", channels, length, tokens)
        self.buckets, self.longest, self.leave_out = buckets, longest, leave_out
        self.table = nn.Embedding(buckets, width)
        nn.init.normal_(self.table.weight, std=0.1)
        hidden = [layer for _ in range(layers) for layer in (nn.Linear(width, width), nn.ReLU())]
        self.end = nn.Sequential(nn.Dropout(dropout), *hidden, nn.Linear(width, tokens * dim))

    def forward(self, x: Tensor, condition: Condition | None = None) -> Tensor:
        ids = ids_of("ngrams", x)
        if self.training and self.leave_out:
            ids = ids * (torch.rand(ids.shape, device=x.device) >= self.leave_out)
        numbers, real = ids, ids > 0
        total, count = torch.zeros((), device=x.device), torch.zeros((), device=x.device)
        for n in range(self.longest):
            if n:
                numbers = numbers[:, :-1] * STEP + ids[:, n:]
                real = real[:, :-1] & (ids[:, n:] > 0)
            rows = F.embedding(numbers.remainder(self.buckets), self.table.weight)
            total, count = total + (rows * real[..., None]).sum(1), count + real.sum(1)
        h = total / count.clamp_min(1).sqrt()[:, None]
        return self.end(h).unflatten(1, (self.tokens, self.dim))
