"""A bound for JPEG with any error-correcting code: as many bits as the channel can carry at one level of it."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Annotated

import torch
from annotated_doc import Doc
from torch import Tensor

from vqtool.api import DataSpec, Parts
from vqtool.errors import VqtoolError
from vqtool_semcom.bit_channel import BitChannel
from vqtool_semcom.jpegs import Jpegs


class JpegAtCapacity(Jpegs):
    """JPEG of n = floor(S C) bits a picture, C the capacity of the channel at the level `design`, S the model's uses.

    It arrives whole at levels where the capacity is at least n / S, else the receiver has the mean training picture. No
    code does better with these bits: capacity is approached by long codes only, and of one picture never reached. All
    else is in favour of JPEG, too. Only the bits of its coefficients are counted: neither headers nor tables, though
    those are made for each picture, nor the bits that fill up the last byte. A picture may be shrunk first (the
    receiver knows to what), and of all that fits the one closest to the original is sent.
    """

    kind = "jpeg-at-capacity"

    def __init__(
        self,
        spec: DataSpec,
        *,
        design: Annotated[float, Doc("level of the channel that pictures are compressed for; Es/N0 in dB of `awgn`")],
    ) -> None:
        super().__init__(spec)
        self.design = design

    def prepare(self, parts: Parts) -> None:
        """Take the levels and the capacity of the model's channel, and how often a picture of it uses that.

        Raises:
            VqtoolError: its capacity is not known, or `design` is no level of it.
        """
        channel = getattr(parts, "channel", None)
        capacity: Callable[[float], float] | None = getattr(channel, "capacity", None)  # of one use, at a level
        if not isinstance(channel, BitChannel) or capacity is None:
            raise VqtoolError(
                "the baseline `jpeg-at-capacity` needs a channel whose capacity is known: awgn or bsc",
                hint="remove it from `evaluate.baselines`",
            )
        if not channel.span[0] <= self.design <= channel.span[1]:
            raise VqtoolError(f"`design` is {channel.measure}, from {channel.span[0]:g} to {channel.span[1]:g}")
        wanted = capacity(self.design)
        self.bits = int(self.uses(parts, channel) * wanted)
        self.whole = {suffix: capacity(level) >= wanted for suffix, level in channel.levels().items()}

    def arrives(self, rows: int) -> Mapping[str, Tensor]:
        return {suffix: torch.full((rows,), whole) for suffix, whole in self.whole.items()}
