"""The library's classes with the options that a recipe may give them, under the library's own names and defaults."""

from __future__ import annotations

import math
from typing import Annotated

from annotated_doc import Doc
from annotated_types import Ge, Gt, Interval, MinLen
from vector_quantize_pytorch import FSQ, LFQ, ResidualFSQ, ResidualSimVQ, ResidualVQ, SimVQ, VectorQuantize

from vqtool_bridge.foreign import Foreign

Size = Annotated[int, Gt(1), Doc("codes per codebook")]
Decay = Annotated[float, Interval(gt=0, lt=1), Doc("of the moving average")]
Start = Annotated[bool, Doc("start the codebook by k-means over the first batch")]
Dead = Annotated[float, Ge(0), Doc("codes whose moving average of uses is below this are replaced")]
Commitment = Annotated[float, Ge(0), Doc("weight of the commitment inside of the term `vqp`")]
Levels = Annotated[tuple[int, ...], MinLen(1), Doc("steps per rounded feature")]
Count = Annotated[int, Gt(0), Doc("residual levels")]


class Plain(Foreign):
    """`VectorQuantize` (github.com/lucidrains/vector-quantize-pytorch)."""

    def __init__(
        self,
        dim: int,
        *,
        codebook_size: Size = 512,
        decay: Decay = 0.8,
        kmeans_init: Start = False,
        threshold_ema_dead_code: Dead = 0,
        commitment_weight: Commitment = 1.0,
    ) -> None:
        super().__init__(dim, (codebook_size,), VectorQuantize(
            dim, codebook_size, decay=decay, kmeans_init=kmeans_init, commitment_weight=commitment_weight,
            threshold_ema_dead_code=threshold_ema_dead_code))  # fmt: skip


class Residual(Foreign):
    """`ResidualVQ`."""

    topology = "residual"

    def __init__(
        self,
        dim: int,
        *,
        levels: Count = 4,
        codebook_size: Size = 512,
        decay: Decay = 0.8,
        kmeans_init: Start = False,
        threshold_ema_dead_code: Dead = 0,
        commitment_weight: Commitment = 1.0,
    ) -> None:
        super().__init__(dim, (codebook_size,) * levels, ResidualVQ(
            dim=dim, num_quantizers=levels, codebook_size=codebook_size, decay=decay, kmeans_init=kmeans_init,
            threshold_ema_dead_code=threshold_ema_dead_code, commitment_weight=commitment_weight))  # fmt: skip


class Finite(Foreign):
    """`FSQ`."""

    def __init__(self, dim: int, *, levels: Levels = (8, 5, 5, 5)) -> None:
        super().__init__(dim, (math.prod(levels),), FSQ(list(levels), dim=dim))


class LookupFree(Foreign):
    """`LFQ`."""

    def __init__(self, dim: int, *, bits: Annotated[int, Gt(0), Doc("signs per token: 2^bits codes")] = 9) -> None:
        super().__init__(dim, (2**bits,), LFQ(dim=dim, codebook_size=2**bits))


class Sim(Foreign):
    """`SimVQ`."""

    def __init__(self, dim: int, *, codebook_size: Size = 512, commitment_weight: Commitment = 1.0) -> None:
        super().__init__(dim, (codebook_size,), SimVQ(dim, codebook_size, commitment_weight=commitment_weight))


class ResidualFinite(Foreign):
    """`ResidualFSQ`."""

    topology = "residual"

    def __init__(self, dim: int, *, levels: Levels = (8, 5, 5, 3), count: Count = 2) -> None:
        module = ResidualFSQ(levels=list(levels), num_quantizers=count, dim=dim)
        super().__init__(dim, (math.prod(levels),) * count, module)


class ResidualSim(Foreign):
    """`ResidualSimVQ`."""

    topology = "residual"

    def __init__(self, dim: int, *, levels: Count = 4, codebook_size: Size = 512) -> None:
        module = ResidualSimVQ(dim=dim, num_quantizers=levels, codebook_size=codebook_size)
        super().__init__(dim, (codebook_size,) * levels, module)
