"""The memory and time of coding hours of sound: `python -m tests.speech.long CKPT [HOURS] [RATE]`."""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import soundfile

from tests.speech.sounds import voice


def peak(*words: str | Path) -> tuple[float, float]:
    """The most memory that a command of vqtool takes, in MB, and its seconds."""
    began = time.perf_counter()
    process = subprocess.Popen([sys.executable, "-m", "vqtool", *map(str, words)])
    _, status, usage = os.wait4(process.pid, 0)
    if os.waitstatus_to_exitcode(status):
        sys.exit(1)
    return usage.ru_maxrss / 1000, time.perf_counter() - began


def main(checkpoint: str, hours: str = "2", rate: str = "16000") -> None:
    """Print what `encode` and `decode` take."""
    minute, hertz = voice(60.0, int(rate), seed=1), int(rate)
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        with soundfile.SoundFile(folder / "a.flac", "w", hertz, 1, subtype="PCM_16") as file:
            for _ in range(round(60 * float(hours))):
                file.write(minute)
        for verb, source, target in (("encode", "a.flac", "a.vqc"), ("decode", "a.vqc", "b.flac")):
            memory, seconds = peak(verb, checkpoint, folder / source, "--out", folder / target)
            print(f"{verb} {hours} h: {memory:.0f} MB, {seconds:.0f} s")


if __name__ == "__main__":
    main(*sys.argv[1:])
