"""The most memory that a command takes, as Linux counts it for the program alone.

`wait4` would not do: a process starts as a copy of the tests' own, whose memory its figure then counts.
"""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path
from typing import Any

MEASURED = """
import atexit, os, pathlib
from vqtool.cli import main
atexit.register(lambda: pathlib.Path(os.environ["PEAK"]).write_text(pathlib.Path("/proc/self/status").read_text()))
main()
"""


def started(peak: Path, *words: str | Path, **more: Any) -> subprocess.Popen[bytes]:
    """A command of vqtool that writes to `peak` what `mib` reads."""
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "PEAK": str(peak)}
    return subprocess.Popen([sys.executable, "-c", MEASURED, *map(str, words)], env=environment, **more)


def mib(peak: Path) -> float:
    """The figure of a command that has ended, in MiB."""
    (line,) = (line for line in peak.read_text().splitlines() if line.startswith("VmHWM:"))
    return int(line.split()[1]) / 1024
