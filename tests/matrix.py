"""Runs the tests that depend on torch under other versions of it: `python tests/matrix.py 2.6.0 2.13.0`."""

from __future__ import annotations

import subprocess
import sys
import tempfile
from pathlib import Path

ROOT = Path(__file__).parents[1]
TESTS = ("tests/nn", "tests/conformance", "tests/properties", "tests/priors", "tests/training", "tests/catalog")


def passes(version: str) -> bool:
    """Whether the tests pass in a fresh environment with this version of torch."""
    with tempfile.TemporaryDirectory() as folder:
        subprocess.run([sys.executable, "-m", "venv", folder], check=True)
        python = str(Path(folder) / "bin" / "python")
        install = [python, "-m", "pip", "install", "-q", f"torch=={version}", "-e", f"{ROOT}[test]"]
        if subprocess.run(install, check=False).returncode:
            print(f"torch {version}: cannot be installed here")
            return False
        return subprocess.run([python, "-m", "pytest", "-q", *TESTS], cwd=ROOT, check=False).returncode == 0


def main() -> int:
    """A line for each version; 1 if one of them fails."""
    verdicts = {version: passes(version) for version in sys.argv[1:]}
    for version, good in verdicts.items():
        print(f"torch {version}: {'passes' if good else 'FAILS'}")
    return int(not verdicts or not all(verdicts.values()))


if __name__ == "__main__":
    sys.exit(main())
