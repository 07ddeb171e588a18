"""The quantized pixels of a thumbnail over the same symbols, and a classifier trained through the noise."""

from __future__ import annotations

from vqtool_semcom.bit_channel import BitChannel
from vqtool_semcom.thumbnails import Thumbnails


class Pixels(Thumbnails):
    """As many bits as the model's, sent as the model's are; trained at its training levels.

    There is no transform, and no error-correcting code unless the model's channel has one.
    """

    kind, through_the_channel = "pixels", True

    def payload(self, channel: BitChannel, bits: int) -> int:
        return bits
