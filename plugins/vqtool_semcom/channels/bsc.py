"""Bits that are flipped at random, independently of each other."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Annotated, Any

import torch
from annotated_doc import Doc
from annotated_types import Interval
from torch import Tensor

from vqtool.api import Quantized, with_options_of
from vqtool_semcom.bit_channel import BitChannel, Noise, Transmission

Share = Annotated[float, Interval(ge=0, le=0.5)]


class Bsc(BitChannel):
    """The binary symmetric channel: a bit arrives flipped with the probability `flip`, which the receiver knows.

    LLR = (2 bit - 1) log((1 - flip) / flip). The level of the channel is `flip`. On the soft path p arrives as p, or
    as 1 - p if flipped.
    """

    measure, span = "the probability of a flip", (0.0, 0.5)

    @with_options_of(BitChannel)
    def __init__(
        self,
        codebook_sizes: Sequence[int],
        *,
        flip: Annotated[Share, Doc("probability of a flip in evaluation")] = 0.05,
        train_flip: Annotated[
            tuple[Share, Share], Doc("range of the probability in training; each row draws its own")
        ] = (0.0, 0.1),
        report: Annotated[tuple[Share, ...], Doc("further probabilities to evaluate at")] = (),
        **options: Any,
    ) -> None:
        super().__init__(codebook_sizes, **options)
        self.flip, self.train_flip, self.report = flip, train_flip, report

    def levels(self) -> Mapping[str, float]:
        return {"": self.flip} | {f".{flip:g}flip": flip for flip in self.report}

    def capacity(self, level: float) -> float:
        """The most bits that any code gets through one use: 1 minus the entropy of a flip, in bits."""
        return 1 + sum(p * math.log2(p) for p in (level, 1 - level) if p > 0)

    def draw(self, quantized: Quantized) -> tuple[Tensor, ...]:
        return (
            torch.rand(len(quantized.codes), self.data_symbols(self.bits_of(quantized)), device=quantized.z.device),
        )

    def training_level(self, rows: int, device: torch.device) -> Tensor:
        low, high = self.train_flip
        return low + (high - low) * torch.rand(rows, device=device)

    def disturb(self, bits: Tensor, level: Tensor, noise: Noise, *, soft: bool, mode: int = 0) -> Transmission:
        rate = level[:, None]
        arrived = torch.where(noise[0][:, : bits.shape[1]] < rate, 1 - bits, bits)
        rate = rate.clamp_min(1e-9)
        llr = (2 * arrived - 1) * torch.log((1 - rate) / rate)
        return Transmission(llr, {}, {"ber.theory": level}, {"arrived": arrived})
