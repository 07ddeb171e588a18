"""The rate of the codes: the size of the .vqc files that they fill."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
from torch import Tensor

from vqtool.api import DataSpec, Metric, expect_windows
from vqtool_speech.spool import are_levels
from vqtool_speech.vqc import Header, pack, widths


class Bitrate(Metric):
    """`bitrate.kbps`: bytes of the files, header and checksum included, * 8 / 1000 / seconds, over all clips together.

    `bitrate.payload_kbps` is these without header and checksum, or of a baseline that writes files of its own without
    their container; `bitrate.codes_kbps` is what the codes alone would take as plain bits. Nothing is said of codes
    that no such file holds: those of a quantizer whose windows take one of several codebooks.
    """

    def __init__(self, spec: DataSpec) -> None:
        super().__init__(spec)
        expect_windows(spec.extent, "the metric `bitrate`", otherwise="psnr")
        self.size = self.payload = 0  # bytes
        self.bits: float | None = None  # of codes, if there are any
        self.samples = 0

    def update(self, *, x: Tensor, codes: Tensor | None = None, codebook_sizes: Sequence[int] = (),
               samples: Tensor | None = None, stride: int | None = None, bands: int = 1,
               code_use: Sequence[Tensor] | None = None, file_bytes: Tensor | None = None,
               payload_bytes: Tensor | None = None) -> None:  # fmt: skip
        """`codes` [B, T, Q] of the signals `x` [B, 1, L], of which `samples` [B] are real; or the sizes [B] of files
        that a baseline wrote, and of what they carry."""
        if file_bytes is not None and payload_bytes is not None:
            self.size += int(file_bytes.sum())
            self.payload += int(payload_bytes.sum())
            self.samples += int(samples.sum()) if samples is not None else x.shape[0] * x.shape[-1]
            return
        if codes is None:
            return
        stride, rate = stride or x.shape[-1] // codes.shape[1], int(self.spec.sample_rate or 1)
        used = np.flatnonzero((codes >= 0).any(0).any(0).cpu().numpy())
        codes = codes[..., : int(used[-1]) + 1 if len(used) else 1].cpu()
        if not are_levels(codes.numpy()):  # one of several codebooks a window: no file of levels
            return
        bits = widths(codebook_sizes, codes)
        use = None if code_use is None else [each.tolist() for each in code_use]
        lengths = samples.tolist() if samples is not None else [x.shape[-1]] * len(x)
        for row, length in zip(codes.numpy().astype(np.int64), lengths, strict=True):
            header = Header(rate, rate, int(length), bits, stride, bands, (1.0,), "0" * 16)
            sent = row[None, : header.tokens]
            size = len(pack(header, sent, use))
            self.size += size
            self.payload += size - header.frame
            self.bits = (self.bits or 0.0) + float(((sent >= 0) * np.array(bits)).sum())
            self.samples += int(length)

    def compute(self) -> Mapping[str, float]:
        """The figures named above."""
        seconds = self.samples / (self.spec.sample_rate or 1)
        if not seconds:
            return {}
        sizes: dict[str, float] = {"kbps": 8 * self.size, "payload_kbps": 8 * self.payload}
        sizes |= {"codes_kbps": self.bits} if self.bits is not None else {}
        return {f"bitrate.{name}": bits / seconds / 1000 for name, bits in sizes.items()}
