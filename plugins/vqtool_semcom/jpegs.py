"""What baselines that send pictures as JPEG share: the bits of its coefficients, and what is lost."""

from __future__ import annotations

import io
from collections.abc import Mapping
from typing import Any

import numpy as np
import torch
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


class Jpegs(Baseline):
    """JPEG of `bits` bits a picture; it arrives whole, or the receiver has the mean training picture.

    Only the bits of its coefficients are counted: neither headers nor tables, though those are made for each picture,
    nor the bits that fill up the last byte. A picture may be shrunk first (the receiver knows to what), and of all that
    fits the one closest to the original is sent.
    """

    kind: str  # its name in a recipe
    bits: int

    def __init__(self, spec: DataSpec) -> None:
        super().__init__(spec)
        expect_images(spec.extent, f"the baseline `{self.kind}`")
        if spec.channels not in MODES:
            raise VqtoolError(f"JPEG holds 1 or 3 channels, and these pictures have {spec.channels}")
        self.image = pillow()

    def uses(self, parts: Parts, channel: BitChannel) -> int:
        """How often a picture of the model uses its channel for data."""
        height, width = self.spec.signal.shape[-2:]
        return channel.data_symbols(height * width // parts.encoder.stride * channel.width)

    def arrives(self, rows: int) -> Mapping[str, Tensor]:
        """Which of so many pictures [rows] arrive whole, by level of the channel."""
        raise NotImplementedError

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
        by_level = {
            at: torch.where(whole[:, None, None, None], sent, lost) for at, whole in self.arrives(len(x)).items()
        }
        return {"x_hat": {**by_level, ".no-channel": sent}}

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
