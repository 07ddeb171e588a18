"""JPEG with a code that exists: the convolutional one, on the model's symbols and through its channel."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated

import torch
from annotated_doc import Doc
from torch import Tensor, nn

from vqtool.api import DataSpec, Parts, Quantized
from vqtool.errors import VqtoolError
from vqtool_semcom.bit_channel import BitChannel
from vqtool_semcom.convolutional import Convolutional, Rate
from vqtool_semcom.jpegs import Jpegs
from vqtool_semcom.qam import Order, Qam
from vqtool_semcom.symbol_channel import SymbolChannel

EITHER = torch.tensor([[0.0], [1.0]])  # the values of a bit


class JpegCoded(Jpegs):
    """JPEG of as many bits as the convolutional code fits on the model's symbols, sent through its channel.

    A picture with one wrong bit behind the decoder is lost: the receiver is taken to notice, and has the mean training
    picture. Only the bits of JPEG's coefficients are counted: neither headers nor tables, though those are made for
    each picture, nor the bits that fill up the last byte. A picture may be shrunk first (the receiver knows to what),
    and of all that fits the one closest to the original is sent.
    """

    kind = "jpeg-coded"

    def __init__(
        self,
        spec: DataSpec,
        *,
        order: Annotated[Order | None, Doc("M of its own M-QAM constellation; none: the model's")] = None,
        code_rate: Annotated[Rate, Doc("bits per coded bit, before the 6 zeros that end a window")] = "1/2",
    ) -> None:
        super().__init__(spec)
        self.order, self.code = order, Convolutional(code_rate)

    def prepare(self, parts: Parts) -> None:
        """Take the model's channel, with a constellation and a code of its own, and how often a picture uses it.

        Raises:
            VqtoolError: there is no channel of bits with one mode, or the code fits no bit on it.
        """
        channel = getattr(parts, "channel", None)
        if not isinstance(channel, BitChannel) or len(channel.symbol_bits) > 1:
            raise VqtoolError(
                "the baseline `jpeg-coded` needs a channel that carries bits, in one mode",
                hint="give one `channel.order`, or remove `jpeg-coded` from `evaluate.baselines`",
            )
        uses = self.uses(parts, channel)
        self.channel = channel.for_codes((2,), "identity").cpu().eval()
        if self.order is not None:
            if not isinstance(self.channel, SymbolChannel):
                raise VqtoolError("`order` of the baseline `jpeg-coded` is of QAM, and this channel has no symbols")
            self.channel.qams = nn.ModuleList([Qam(self.order)])
            self.channel.symbol_bits = (self.channel.qam(0).bits,)
        self.channel.fec = self.code
        self.channel.prepare((EITHER,))
        self.bits = self.code.carried(uses * self.channel.symbol_bits[0])
        if self.bits == 0:
            raise VqtoolError(f"no bit fits on {uses} uses of the channel beside the zeros that end a word of the code",
                              hint="remove `jpeg-coded` from `evaluate.baselines`")  # fmt: skip

    @torch.no_grad()
    def arrives(self, rows: int) -> Mapping[str, Tensor]:
        """Random bits are sent in place of a picture's: a linear code has as many errors with these as with those."""
        sent = torch.randint(2, (rows, self.bits, 1))
        values = sent.float()
        found = {}
        for suffix, level in self.channel.levels().items():
            got = self.channel(Quantized(z=values, codes=sent, hard=values), (EITHER,), level=level)
            found[suffix] = (got.codes == sent).flatten(1).all(1)
        return found
