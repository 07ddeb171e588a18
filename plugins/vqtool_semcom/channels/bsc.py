"""Bits that are flipped at random, independently of each other."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Annotated

import torch
from annotated_doc import Doc
from annotated_types import Ge, Interval
from torch import Tensor

from vqtool.api import Quantized
from vqtool_semcom.bit_channel import BitChannel, Gradient, Noise, Transmission
from vqtool_semcom.labels import Labelling


class Bsc(BitChannel):
    """The binary symmetric channel: a bit arrives flipped with the probability `flip`, which the receiver knows.

    LLR = (2 bit - 1) log((1 - flip) / flip). The level of the channel is `flip`. On the soft path p arrives as p, or
    as 1 - p if flipped.
    """

    def __init__(
        self,
        codebook_sizes: Sequence[int],
        *,
        flip: Annotated[float, Interval(ge=0, le=0.5), Doc("probability of a flip in evaluation")] = 0.05,
        train_flip: Annotated[
            tuple[float, float], Doc("range of the probability in training; each row draws its own")
        ] = (0.0, 0.1),
        report: Annotated[tuple[float, ...], Doc("further probabilities to evaluate at")] = (),
        labels: Annotated[
            Labelling, Doc("bits of the codes: their number, a Gray code along their first axis, or that, optimised")
        ] = "pseudo-gray",
        radius: Annotated[
            Annotated[int, Ge(0)] | None,
            Doc("largest Hamming distance of codes that the receiver considers; none: all"),
        ] = None,
        hard: Annotated[float, Interval(ge=0, le=1), Doc("share of the hard bits in what training transmits")] = 1.0,
        gradient: Annotated[
            Gradient, Doc("path of the gradient: past the channel, through its noise, or both")
        ] = "both",
        send_levels: Annotated[
            int, Ge(0), Doc("levels of a residual quantizer that are sent, the first ones; 0: all")
        ] = 0,
        random_levels: Annotated[
            bool, Doc("send the first levels of each training batch alone, a random number of them")
        ] = False,
    ) -> None:
        super().__init__(codebook_sizes, labels=labels, radius=radius, hard=hard, gradient=gradient,
                         send_levels=send_levels, random_levels=random_levels)  # fmt: skip
        self.flip, self.train_flip, self.report = flip, train_flip, report

    def levels(self) -> Mapping[str, float]:
        return {"": self.flip} | {f".{flip:g}flip": flip for flip in self.report}

    def draw(self, quantized: Quantized) -> tuple[Tensor, ...]:
        return (torch.rand(len(quantized.codes), self.bits_of(quantized), device=quantized.z.device),)

    def training_level(self, rows: int, device: torch.device) -> Tensor:
        low, high = self.train_flip
        return low + (high - low) * torch.rand(rows, device=device)

    def transmit(self, bits: Tensor, level: Tensor, noise: Noise, *, soft: bool, mode: int = 0) -> Transmission:
        rate = level[:, None]
        arrived = torch.where(noise[0][:, : bits.shape[1]] < rate, 1 - bits, bits)
        rate = rate.clamp_min(1e-9)
        llr = (2 * arrived - 1) * torch.log((1 - rate) / rate)
        return Transmission(llr, {}, {"ber.theory": level}, {"arrived": arrived})
