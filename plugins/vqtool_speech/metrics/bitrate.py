"""The rate of the codes: the size of the .vqc files that they fill."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
from torch import Tensor

from vqtool.api import DataSpec, Metric
from vqtool_speech.vqc import Header, pack


class Bitrate(Metric):
    """`bitrate.kbps`: bytes of the files, header and checksum included, * 8 / 1000 / seconds, over all clips together.

    `bitrate.codes_kbps` counts the codes alone.
    """

    def __init__(self, spec: DataSpec) -> None:
        super().__init__(spec)
        self.size = 0
        self.bits = 0.0
        self.samples = 0

    def update(self, *, x: Tensor, codes: Tensor, codebook_sizes: Sequence[int], samples: Tensor | None = None,
               bands: int = 1) -> None:  # fmt: skip
        """`codes` [B, T, Q] of the signals `x` [B, 1, L], of which `samples` [B] are real."""
        stride = x.shape[-1] // codes.shape[1]
        width = max(1, int(max(codebook_sizes) - 1).bit_length())
        used = np.flatnonzero((codes >= 0).any(0).any(0).cpu().numpy())
        levels = int(used[-1]) + 1 if len(used) else 1
        lengths = samples.tolist() if samples is not None else [x.shape[-1]] * len(x)
        for row, length in zip(codes.cpu().numpy(), lengths, strict=True):
            header = Header(
                int(self.spec.sample_rate or 1), int(self.spec.sample_rate or 1), int(length), levels, width, stride,
                bands, (1.0,), "0" * 16,
            )  # fmt: skip
            sent = row[: header.tokens, :levels]
            self.size += len(pack(header, sent[None].astype(np.int64)))
            self.bits += float((sent >= 0).sum() * width)
            self.samples += int(length)

    def compute(self) -> Mapping[str, float]:
        """The figures named above."""
        seconds = self.samples / (self.spec.sample_rate or 1)
        if not seconds:
            return {}
        return {"bitrate.kbps": self.size * 8 / seconds / 1000, "bitrate.codes_kbps": self.bits / seconds / 1000}
