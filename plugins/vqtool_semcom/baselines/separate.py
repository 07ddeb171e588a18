"""The separate scheme: a thumbnail and an error-correcting code on the same symbols, and a classifier of thumbnails."""

from __future__ import annotations

from typing import Annotated, Any

from annotated_doc import Doc

from vqtool.api import DataSpec, Parts, with_options_of
from vqtool_semcom.bit_channel import BitChannel
from vqtool_semcom.convolutional import Convolutional, Rate
from vqtool_semcom.thumbnails import Thumbnails


class Separate(Thumbnails):
    """Source code and channel code apart: as many bits as the convolutional code fits on the model's symbols.

    The classifier knows no noise: it is trained on thumbnails as they are sent.
    """

    kind, through_the_channel = "separate", False

    @with_options_of(Thumbnails)
    def __init__(
        self,
        spec: DataSpec,
        *,
        code_rate: Annotated[Rate, Doc("bits per coded bit, before the 6 zeros that end a window")] = "1/2",
        **options: Any,
    ) -> None:
        super().__init__(spec, **options)
        self.code = Convolutional(code_rate)

    def payload(self, channel: BitChannel, bits: int) -> int:
        return self.code.carried(channel.data_symbols(bits) * channel.symbol_bits[0])

    def prepare(self, parts: Parts) -> None:
        super().prepare(parts)
        self.channel.fec = self.code
