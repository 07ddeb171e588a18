"""Run a command as a user does: a process of its own."""

from __future__ import annotations

import contextlib
import inspect
import io
import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest


def vqtool(*arguments: object, cwd: Path | None = None, **environment: str) -> subprocess.CompletedProcess[str]:
    """What a command printed, and its exit code."""
    env = {**os.environ, "OMP_NUM_THREADS": "1", **environment}
    command = [sys.executable, "-m", "vqtool", *map(str, arguments)]
    return subprocess.run(command, capture_output=True, text=True, cwd=cwd, env=env, check=False, timeout=300)


def document(*arguments: object, code: int = 0, cwd: Path | None = None) -> dict[str, Any]:
    """The one JSON document of a command."""
    done = vqtool(*arguments, "--json", cwd=cwd)
    assert done.returncode == code, done.stderr
    value: dict[str, Any] = json.loads(done.stdout)
    return value


def within(*arguments: object) -> subprocess.CompletedProcess[str]:
    """The same in this process: for many commands in a row, without the seconds that torch takes to load."""
    from vqtool import cli

    outcome, result = io.StringIO(), io.StringIO()
    before = sys.argv
    sys.argv = ["vqtool", *map(str, arguments)]
    try:
        with contextlib.redirect_stdout(outcome), contextlib.redirect_stderr(result), pytest.raises(SystemExit) as end:
            cli.main()
    finally:
        sys.argv = before
    return subprocess.CompletedProcess(sys.argv, int(end.value.code or 0), outcome.getvalue(), result.getvalue())


def signatures() -> dict[str, inspect.Signature]:
    """What every command takes."""
    from vqtool import cli

    return {str(c.name): inspect.signature(c.callback) for c in cli.app.registered_commands if c.callback is not None}
