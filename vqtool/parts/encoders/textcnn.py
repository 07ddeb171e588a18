"""Ids (hashes of words, for example) in their order: convolutions over embeddings, and the most that each finds."""

from __future__ import annotations

from typing import Annotated

import torch
from annotated_doc import Doc
from annotated_types import Ge, Gt, Interval, MinLen
from torch import Tensor, nn

from vqtool.api import Condition, Encoder
from vqtool.layers.ids import ids_of, stride_of


class TextCnnEncoder(Encoder):
    """[B, 1, L] long -> [B, T, D]; 0 marks padding. Every token sees the whole window.

    Filters as long as `spans` ids run over the embeddings; of each the largest value in the window stays (Kim 2014,
    arXiv 1408.5882). Unlike the sums of `ngrams`, a filter answers to ids that are alike, and to their order. The
    embeddings are the rows of a table at an id modulo `buckets`. In training ids are left out at random: they count as
    unknown. The condition is not read.
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
        spans: Annotated[
            tuple[Annotated[int, Gt(0)], ...], MinLen(1), Doc("ids that a filter sees, for each set of filters")
        ] = (1, 2, 3, 4),
        filters: Annotated[int, Gt(0), Doc("filters of each set")] = 100,
        leave_out: Annotated[float, Interval(ge=0, lt=1), Doc("share of ids left out in training")] = 0.1,
        dropout: Annotated[float, Interval(ge=0, lt=1), Doc("dropout of embeddings, and of what is found")] = 0.3,
        layers: Annotated[int, Ge(0), Doc("hidden layers before the tokens")] = 0,
    ) -> None:
        super().__init__()
        self.dim, self.tokens, self.stride = dim, tokens, stride_of("textcnn", channels, length, tokens)
        self.buckets, self.leave_out = buckets, leave_out
        self.table = nn.Embedding(buckets, width)
        nn.init.normal_(self.table.weight, std=0.1)
        self.spread = nn.Dropout(dropout)
        self.filters = nn.ModuleList(nn.Conv1d(width, filters, span, padding=span - 1) for span in spans)
        found = filters * len(spans)
        hidden = [layer for _ in range(layers) for layer in (nn.Linear(found, found), nn.ReLU())]
        self.end = nn.Sequential(nn.Dropout(dropout), *hidden, nn.Linear(found, tokens * dim))

    def forward(self, x: Tensor, condition: Condition | None = None) -> Tensor:
        ids = ids_of("textcnn", x)
        real = ids > 0
        if self.training and self.leave_out:
            real = real & (torch.rand(ids.shape, device=x.device) >= self.leave_out)
        rows = self.spread(self.table(ids.remainder(self.buckets)) * real[..., None]).transpose(1, 2)
        most = [each(rows).amax(2).relu() for each in self.filters]  # ids that are missing give what the bias gives
        return self.end(torch.cat(most, 1)).unflatten(1, (self.tokens, self.dim))
