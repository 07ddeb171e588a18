"""Log-spectrograms of windows by frame: the features of the plain baselines."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional as F

from vqtool.api import DataSpec, Rows, UnfitError


def frame_of(spec: DataSpec) -> int:
    """How many samples a frame has; raises `UnfitError` where the data have no frames."""
    if "phase" not in spec.fields:
        raise UnfitError("a spectrum of frames needs seismograms with a `phase` a frame", hint="data.kind=seisbench")
    return spec.length // spec.fields["phase"].shape[0]


def log_spectra(x: Tensor, frame: int) -> Tensor:
    """[B, L // frame, 3 (frame + 1)] log power of `x` [B, 3, L]: two frames long, a Hann window about each middle."""
    size = 2 * frame
    frames = x.shape[-1] // frame
    around = F.pad(x, (frame // 2, size))
    cut = around.unfold(-1, size, frame)[:, :, :frames]  # [B, 3, T, 2 frame]
    power = torch.fft.rfft(cut * torch.hann_window(size)).abs().square()
    return (power + 1e-8).log().transpose(1, 2).flatten(2)


def training_spectra(rows: Rows, frame: int, batch: int = 64) -> Tensor:
    """[n, 3 (frame + 1)] those of the rows' frames that have a phase; of all frames where none has one."""
    spectra, known = [], []
    for begin in range(0, len(rows), batch):
        read = rows.__getitems__(list(range(begin, min(begin + batch, len(rows)))))
        spectra.append(log_spectra(read["x"], frame).flatten(0, 1))
        known.append(read["phase"].flatten() >= 0)
    all_, labelled = torch.cat(spectra), torch.cat(known)
    return all_[labelled] if bool(labelled.any()) else all_
