"""A bound for JPEG with any error-correcting code: as many bits as the channel can carry at one level of it."""

from __future__ import annotations

import io
from collections.abc import Callable, Mapping
from typing import Annotated, Any

import numpy as np
import torch
from annotated_doc import Doc
from numpy.typing import NDArray
from torch import Tensor

from vqtool.api import Baseline, Batch, DataSpec, Parts, Rows, expect_images
from vqtool.errors import VqtoolError
from vqtool_images.levels import levels
from vqtool_images.picture_folder import pillow
from vqtool_semcom.bit_channel import BitChannel

MODES = {1: "L", 3: "RGB"}  # Pillow's, by channels
BLOCK = 8  # pixels each way of a block of JPEG
QUALITIES = 95  # Pillow's advice: above, files grow and pictures do not
Picture = NDArray[np.uint8]  # [H, W] or [H, W, 3]


class JpegAtCapacity(Baseline):
    """JPEG of n = floor(S C) bits a picture, C the capacity of the channel at the level `design`, S the model's uses.

    It arrives whole at levels where the capacity is at least n / S, else the receiver has the mean training picture. No
    code does better with these bits: capacity is approached by long codes only, and of one picture never reached. All
    else is in favour of JPEG, too. Only the bits of its coefficients are counted: neither headers nor tables, though
    those are made for each picture, nor the bits that fill up the last byte. A picture may be shrunk first (the
    receiver knows to what), and of all that fits the one closest to the original is sent.
    """

    def __init__(
        self,
        spec: DataSpec,
        *,
        design: Annotated[float, Doc("level of the channel that pictures are compressed for; Es/N0 in dB of `awgn`")],
    ) -> None:
        super().__init__(spec)
        expect_images(spec.extent, "the baseline `jpeg-at-capacity`")
        if spec.channels not in MODES:
            raise VqtoolError(f"JPEG holds 1 or 3 channels, and these pictures have {spec.channels}")
        self.design, self.image = design, pillow()

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
        height, width = self.spec.signal.shape[-2:]
        uses = channel.symbols_of(height * width // parts.encoder.stride * channel.width)
        wanted = capacity(self.design)
        self.bits = int(uses * wanted)
        self.arrives = {suffix: capacity(level) >= wanted for suffix, level in channel.levels().items()}

    def fit(self, rows: Rows) -> None:
        """Take the mean of the training pictures."""
        total, count = torch.zeros(self.spec.signal.shape, dtype=torch.float64), 0
        for begin in range(0, len(rows), 1024):
            x = rows.__getitems__(list(range(begin, min(begin + 1024, len(rows)))))["x"]
            total += x.double().sum(0)
            count += len(x)
        self.mean = (total / count).float()

    def predict(self, batch: Batch) -> Mapping[str, Any]:
        """`x_hat` by level, and as it is sent ("no-channel")."""
        black, white = levels(self.spec)
        x = ((batch["x"].cpu() - black) / (white - black)).clamp(0, 1)
        mean = ((self.mean - black) / (white - black)).clamp(0, 1)
        sent = torch.stack([self._sent(picture, mean) for picture in x]) * (white - black) + black
        lost = self.mean.expand_as(sent)
        return {"x_hat": {**{at: sent if whole else lost for at, whole in self.arrives.items()}, ".no-channel": sent}}

    def _sent(self, x: Tensor, mean: Tensor) -> Tensor:
        """The closest to a picture [C, H, W] in [0, 1] of what fits into the bits; the mean picture fits always."""
        pixels = (x * 255).round().byte().permute(1, 2, 0).numpy()
        pixels = pixels[:, :, 0] if pixels.shape[2] == 1 else pixels
        found = [mean]
        for size in sizes(*x.shape[1:]):
            small = self.image.fromarray(pixels, MODES[len(x)]).resize(size, self.image.Resampling.LANCZOS)
            coded = self._coded(small)
            if coded is not None:
                back = self.image.open(io.BytesIO(coded)).resize(
                    (x.shape[2], x.shape[1]), self.image.Resampling.BICUBIC
                )
                values = torch.from_numpy(np.array(back)).float() / 255
                found.append(values[None] if len(x) == 1 else values.permute(2, 0, 1))
        errors = [float((one - x).square().mean()) for one in found]
        return found[errors.index(min(errors))]

    def _coded(self, small: Any) -> bytes | None:
        """A picture as JPEG of the highest quality that fits; None where none does."""
        low, high, best = 1, QUALITIES, None
        while low <= high:
            quality = (low + high) // 2
            content = io.BytesIO()
            small.save(content, "JPEG", quality=quality, optimize=True)
            if coefficient_bits(content.getvalue()) <= self.bits:
                best, low = content.getvalue(), quality + 1
            else:
                high = quality - 1
        return best


def sizes(height: int, width: int) -> list[tuple[int, int]]:
    """(width, height) that a picture may be shrunk to, the longer side in whole blocks; first as it is."""
    longest = max(height, width)
    sides, side = [], BLOCK
    while side < longest:
        sides.append(side)
        side += max(BLOCK, side // 4 // BLOCK * BLOCK)
    return [(width, height), *((max(1, width * s // longest), max(1, height * s // longest)) for s in reversed(sides))]


def coefficient_bits(jpeg: bytes) -> int:
    """The least bits that the coefficients of a JPEG file with one scan take, without the filling of the last byte."""
    at = 2
    while jpeg[at + 1] != 0xDA:  # the start of the scan; every segment before it says how long it is
        at += 2 + int.from_bytes(jpeg[at + 2 : at + 4], "big")
    at += 2 + int.from_bytes(jpeg[at + 2 : at + 4], "big")
    scan = jpeg[at:-2]  # an end marker follows
    return 8 * (len(scan) - scan.count(b"\xff\x00")) - 7
