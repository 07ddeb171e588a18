"""Codecs that are programs of their own: each clip becomes a file, that file is decoded, and its size is counted."""

from __future__ import annotations

import shutil
import subprocess
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import torch
from numpy.typing import NDArray

from vqtool.api import Baseline, Batch, DataSpec
from vqtool.errors import MissingError, VqtoolError
from vqtool_speech import audio
from vqtool_speech.heard import rate_of

LAG = 0.06  # seconds that a codec may delay the sound by
Wave = NDArray[np.float32]  # [samples]


class ProgramCodec(Baseline):
    """A baseline that runs an encoder and a decoder; each row, a clip or a stretch of a long one, is a file.

    The delay of the codec is found by correlation and taken off. `predict` gives `x_hat` [B, C, L], and `file_bytes`
    and `payload_bytes` [B]: the files as they are, and without what their container adds.

    Raises:
        MissingError: a program is not installed.
    """

    programs: ClassVar[tuple[str, str]]  # the encoder and the decoder
    package: ClassVar[str]  # that a system's package manager knows them by

    def __init__(self, spec: DataSpec) -> None:
        super().__init__(spec)
        self.rate = rate_of(spec, f"a baseline of {self.package}")
        for program in self.programs:
            if shutil.which(program) is None:
                raise MissingError(
                    f"baselines of `{self.package}` need the program `{program}`, which is not installed",
                    hint=f"apt install {self.package}",
                    exit_code=1,
                )

    def code(self, wave: Wave, folder: Path) -> tuple[Wave, int, int]:
        """(what comes back, bytes of the file, bytes of its payload) of one channel at `self.rate`."""
        raise NotImplementedError

    def predict(self, batch: Batch) -> Mapping[str, Any]:
        x = batch["x"].cpu()
        samples = batch.get("samples")
        ends = samples.tolist() if samples is not None else [x.shape[-1]] * len(x)
        back, sizes = torch.zeros_like(x), np.zeros((2, len(x)), np.int64)
        with tempfile.TemporaryDirectory() as folder:
            for row, end in enumerate(ends):
                for channel in range(x.shape[1]):
                    wave = x[row, channel, : int(end)].float().numpy()
                    decoded, *of = self.code(wave, Path(folder))
                    back[row, channel, : int(end)] = torch.from_numpy(aligned(wave, decoded, round(LAG * self.rate)))
                    sizes[:, row] += of
        file, payload = map(torch.from_numpy, sizes)
        return {"x_hat": back, "file_bytes": file, "payload_bytes": payload}

    def run(self, program: str, *arguments: str | Path) -> None:
        """Run a program; what it writes to its outputs is shown only where it fails."""
        done = subprocess.run(
            [program, *map(str, arguments)], capture_output=True, text=True, errors="replace", check=False
        )
        if done.returncode:
            raise VqtoolError(f"`{program}` failed: {done.stderr.strip()[-300:]}", exit_code=1)


def aligned(wave: Wave, decoded: Wave, most: int) -> Wave:
    """`decoded`, moved by up to `most` samples to where it correlates best with `wave`, and as long as that."""
    size = 1 << (len(wave) + len(decoded)).bit_length()
    product = np.fft.irfft(np.fft.rfft(decoded, size) * np.conj(np.fft.rfft(wave, size)), size)
    shifts = np.r_[0 : most + 1, -most:0]
    shift = int(shifts[np.argmax(product[shifts])])
    moved = decoded[shift:] if shift >= 0 else np.r_[np.zeros(-shift, decoded.dtype), decoded]
    return np.pad(moved, (0, max(0, len(wave) - len(moved))))[: len(wave)].astype(np.float32)


def write(wave: Wave, path: Path, rate: int) -> Path:
    """One channel as a file of 16 bits."""
    with audio.written(path, rate, 1, frames=len(wave)) as writer:
        writer.write(wave[:, None])
    return path


def read(path: Path, rate: int) -> Wave:
    """The first channel of a file at `rate`."""
    own = audio.info(path)
    return audio.resample(audio.read(path, 0, own.frames), own.rate, rate)[:, 0]
