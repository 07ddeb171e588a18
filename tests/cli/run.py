"""Run a command as a user does: a process of its own, forked from one that has loaded what takes seconds to load."""

from __future__ import annotations

import atexit
import contextlib
import inspect
import io
import json
import os
import re
import socket
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

import pytest

AT_ITS_START = re.compile(r"PYTHON|LANG|LC_|OMP|MKL|TORCH|TRITON|CUDA|LD_")  # variables that a process reads but once
_servers: dict[str, tuple[subprocess.Popen[bytes], socket.socket]] = {}


def vqtool(
    *arguments: object, cwd: Path | None = None, merged: bool = False, **environment: str
) -> subprocess.CompletedProcess[str]:
    """What a command printed (`merged`: all of it on stdout), and its exit code."""
    env = {**os.environ, "OMP_NUM_THREADS": "1", **environment}
    command = ["vqtool", *map(str, arguments)]
    request = {"arguments": command[1:], "folder": str(cwd or Path.cwd()), "environment": env}
    with tempfile.TemporaryFile() as outcome, tempfile.TemporaryFile() as result:
        connection = server({name: value for name, value in env.items() if AT_ITS_START.match(name)})
        streams = outcome.fileno(), outcome.fileno() if merged else result.fileno()
        socket.send_fds(connection, [json.dumps(request).encode()], streams)
        code = int(connection.recv(100))
        printed = []
        for file in (outcome, result):
            file.seek(0)
            printed.append(file.read().decode())
    return subprocess.CompletedProcess(command, code, *printed)


def server(settings: dict[str, str]) -> socket.socket:
    """The connection to a process started with these variables, which starts commands: one for all tests."""
    key = json.dumps(settings, sort_keys=True)
    if key not in _servers:
        ours, its = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        with its:
            env = {name: value for name, value in os.environ.items() if not AT_ITS_START.match(name)} | settings
            process = subprocess.Popen([sys.executable, Path(__file__).with_name("server.py")], stdin=its,
                                       stdout=subprocess.DEVNULL, env=env)  # fmt: skip
        _servers[key] = process, ours
        atexit.register(lambda: (ours.close(), process.wait()))
    return _servers[key][1]


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
