"""k-means residual codebooks on raw blocks of samples, no network: 16 kbit/s at 8 levels of 1024 on 80 samples."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated

import torch
from annotated_doc import Doc
from annotated_types import Gt
from torch import Tensor
from torch.nn import functional as F

from vqtool.api import MASK, Baseline, Batch, DataSpec, Rows, expect_windows
from vqtool.layers.lengths import real_rows
from vqtool.quantizers.core.kmeans import kmeans
from vqtool.quantizers.core.search import nearest

MOST_BLOCKS = 60_000  # of the training rows, evenly taken
READ = 32  # rows at a time


class BlockRvq(Baseline):
    """Cuts the signal into blocks and codes each by itself; the rate is levels * log2(codes) bits a block."""

    def __init__(
        self,
        spec: DataSpec,
        *,
        block: Annotated[int, Gt(0), Doc("samples")] = 80,
        levels: Annotated[int, Gt(0), Doc("codebooks, each of which codes what those before left")] = 8,
        codes: Annotated[int, Gt(1), Doc("codes per level")] = 1024,
        rounds: Annotated[int, Gt(0), Doc("k-means rounds per level")] = 6,
    ) -> None:
        super().__init__(spec)
        expect_windows(spec.extent, "the baseline `block-rvq`")
        self.block, self.levels, self.codes, self.rounds = block, levels, codes, rounds
        self.books: list[Tensor] = []

    def fit(self, rows: Rows) -> None:
        """Level by level, each on what the ones before leave of the training blocks."""
        generator = torch.Generator().manual_seed(0)
        read = (_some(rows, k) for k in range(0, len(rows), READ))
        real = (x for batch in read for (x,) in real_rows(batch.get(MASK), batch["x"]))
        rest = torch.cat([_blocks(x, self.block) for x in real])
        if len(rest) > MOST_BLOCKS:
            rest = rest[torch.randperm(len(rest), generator=generator)[:MOST_BLOCKS]]
        self.books = []
        for _ in range(self.levels):
            book = kmeans(rest, self.codes, generator, rounds=self.rounds)
            rest = rest - book[nearest(rest, book)[0]]
            self.books.append(book)

    def predict(self, batch: Batch) -> Mapping[str, Tensor]:
        """`x_hat` [B, C, L]: a coder reads the signal, of which it keeps the codes."""
        x = batch["x"].cpu()
        rest = _blocks(x, self.block)
        total = torch.zeros_like(rest)
        for book in self.books:
            vectors = book[nearest(rest, book)[0]]
            rest, total = rest - vectors, total + vectors
        return {"x_hat": total.view(*x.shape[:2], -1)[..., : x.shape[-1]]}


def _blocks(x: Tensor, size: int) -> Tensor:
    """[B, C, L] -> [B * C * blocks, size], the last block of a row filled up with zeros."""
    return F.pad(x.float(), (0, -x.shape[-1] % size)).reshape(-1, size)


def _some(rows: Rows, start: int) -> Batch:
    return rows.__getitems__(list(range(start, min(start + READ, len(rows)))))
