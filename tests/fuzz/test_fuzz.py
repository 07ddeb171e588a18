"""Two hundred damaged files, the same ones every time: no traceback, no fault of ours, no hang, no memory bomb."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from random import Random

import pytest

from tests.fuzz.formats import FORMATS
from tests.fuzz.seeds import KINDS

ROOT = Path(__file__).parents[2]
pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="bounds a process by what /proc says of it")


def test_damaged_files_end_in_one_clear_error_or_are_read() -> None:
    command = [sys.executable, "-m", "tests.fuzz", "--count", "200", "--seed", "7", "--tested"]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False, timeout=600)
    assert done.returncode == 0, done.stdout + done.stderr
    assert "200 mutants" in done.stdout


def test_a_mutant_is_the_same_every_time() -> None:
    for form, mutators in FORMATS.items():
        for mutate in dict.fromkeys(mutators):
            if form in ("table", "json", "jsonl", "bytes"):
                content = b'{"a": [1, 2], "b": "c"}\n1,2,3\n'
                assert mutate(content, Random(3)) == mutate(content, Random(3))
    assert len({kind.name for kind in KINDS}) == len(KINDS)


@pytest.mark.parametrize(
    ("fault", "how"),
    [
        ("raise KeyError('x')", "internal"),
        ("raise VqtoolError('`f` is damaged')", "refused"),
        ("raise VqtoolError('load it with allow_pickle=True')", "unsafe"),
        ("bytearray(2**32)", "memory"),
        ("x = bytearray(1200 * 2**20)", "memory"),
        ("os.kill(os.getpid(), 9)", "died"),
        ("resource.setrlimit(resource.RLIMIT_CPU, (1, 9))\n    while True: pass", "hang"),
    ],
)
def test_the_harness_sees_every_kind_of_fault(tmp_path: Path, fault: str, how: str) -> None:
    """In a process of its own, since the memory of this one is not known."""
    code = f"""
import os, resource
from pathlib import Path
import vqtool.commands.schema as body
from vqtool.errors import VqtoolError
from tests.fuzz.worker import ended

def run():
    {fault}
    return 0

body.run = run
print(ended("schema", Path(".")).how)
"""
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True)
    assert done.stdout.split()[-1] == how
