"""A mixture of codebooks of different sizes: a router gives each window the one that all its tokens take."""

from __future__ import annotations

from functools import partial
from typing import Annotated

from annotated_doc import Doc
from annotated_types import Gt, MinLen

from vqtool.quantizers.core.composable import Layout
from vqtool.quantizers.vq import VQ, Decay, First, Revive, Weights
from vqtool_semcom.quantizers.routed_modes import Modes, RoutedModes


class MixtureEMA(RoutedModes):
    """A mixture of codebooks of different sizes: a router gives each window the one that all its tokens take.

    `routed-modes` of `vq`.
    """

    def __init__(
        self,
        dim: int,
        layout: Layout = "BTD",
        weights: Weights = None,
        *,
        codebook_sizes: Annotated[
            tuple[Annotated[int, Gt(1)], ...], MinLen(2), Doc("codes of each expert's codebook")
        ] = (16, 64, 256),
        modes: Modes = 1,
        decay: Decay = 0.99,
        revive_below: Revive = 0.1,
        start: First = "kmeans",
    ) -> None:
        vq = partial(VQ, decay=decay, revive_below=revive_below, start=start)
        super().__init__(dim, layout, weights, of=[partial(vq, codebook_size=n) for n in codebook_sizes], modes=modes)
