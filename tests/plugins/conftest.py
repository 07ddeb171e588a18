"""A fresh environment with the wheel of vqtool and that of the example plugin, for the tests of what users install."""

from __future__ import annotations

import os
import subprocess
import sys
import sysconfig
import venv
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]


class Environment:
    """A virtual environment whose third-party libraries are those of the tests' own."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        venv.create(folder, with_pip=False, symlinks=True)
        self.site = Path(sysconfig.get_path("purelib", vars={"base": str(folder)}))
        # A plain path, so that the editable installation of vqtool in there is not seen: its .pth is not read.
        (self.site / "libraries.pth").write_text(sysconfig.get_path("purelib") + "\n")

    def install(self, wheel: Path) -> None:
        """Put a wheel in, and nothing else."""
        pip = [sys.executable, "-m", "pip", "--python", str(self.folder / "bin" / "python")]
        options = ["-q", "--no-deps", "--no-index", "--force-reinstall", "--ignore-installed"]
        subprocess.run([*pip, "install", *options, str(wheel)], check=True)

    def run(self, *arguments: object, cwd: Path, **environment: str) -> subprocess.CompletedProcess[str]:
        """A command of this environment, away from the repository."""
        command = [str(self.folder / "bin" / str(arguments[0])), *map(str, arguments[1:])]
        cleared = {name: value for name, value in os.environ.items() if not name.startswith(("VQTOOL", "PYTHON"))}
        env = cleared | {"OMP_NUM_THREADS": "1", **environment}
        return subprocess.run(command, capture_output=True, text=True, cwd=cwd, env=env, check=False, timeout=300)


def built(source: Path, folder: Path) -> Path:
    """The wheel of a source tree, built from a copy: a build leaves nothing in the tree."""
    command = [sys.executable, "-m", "pip", "wheel", "-q", "--no-deps", "-w", str(folder), str(source)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode:
        pytest.skip(f"no wheel can be built here: {done.stderr.strip().splitlines()[-1]}")
    return max(folder.glob("*.whl"), key=lambda path: path.stat().st_mtime)


def copied(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """What is tracked or new in the repository, as a build sees it."""
    target = tmp_path_factory.mktemp("source")
    listed = subprocess.run(
        ["git", "ls-files", "-co", "--exclude-standard"], cwd=ROOT, capture_output=True, text=True, check=True
    )
    for name in listed.stdout.splitlines():
        if (ROOT / name).is_file():
            (target / name).parent.mkdir(parents=True, exist_ok=True)
            os.link(ROOT / name, target / name) if os.stat(ROOT).st_dev == os.stat(target).st_dev else (
                (target / name).write_bytes((ROOT / name).read_bytes())
            )
    return target


@pytest.fixture(scope="session")
def environment(tmp_path_factory: pytest.TempPathFactory) -> Environment:
    """vqtool and the example plugin, from their wheels."""
    wheels = tmp_path_factory.mktemp("wheels")
    source = copied(tmp_path_factory)
    fresh = Environment(tmp_path_factory.mktemp("environment") / "venv")
    fresh.install(built(source, wheels))
    fresh.install(built(source / "plugins" / "example", wheels))
    return fresh
