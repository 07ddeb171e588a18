"""Killed anywhere, or with a full disk, a training goes on to the same result; `just kills 200` tries it more often."""

from __future__ import annotations

import os
import subprocess
import sys


def test_a_few_kills_and_full_disks_change_nothing() -> None:
    done = subprocess.run(
        [sys.executable, "-m", "tests.training.kills", "8"],
        capture_output=True, text=True, check=False, env={**os.environ, "OMP_NUM_THREADS": "1"}, timeout=300,
    )  # fmt: skip
    assert done.returncode == 0, done.stdout + done.stderr
