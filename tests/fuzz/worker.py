"""Run a command in a child of this process, within bounds of time and memory, and say how it ended."""

from __future__ import annotations

import json
import os
import re
import resource
import select
import shlex
import signal
import sys
import tempfile
import traceback
from dataclasses import dataclass
from pathlib import Path

SECONDS, MEMORY = 20, 2**30  # of the CPU, and bytes above what a process holds that has loaded everything
WALL = 90.0
BAD = ("traceback", "internal", "hang", "memory", "died", "unsafe", "silent")
SIGNS = (
    ("memory", r"MemoryError|[Uu]nable to allocate|allocate memory|bad_alloc|[Oo]ut of memory|not enough memory"),
    ("traceback", r"Traceback \(most recent call last\)"),
    ("internal", r"internal: |VQTOOL_DEBUG=1"),
    ("unsafe", r"allow_pickle|weights_only"),
)


@dataclass(frozen=True, slots=True)
class End:
    """How a command ended: "ok", "refused" (one clear error), or one of `BAD`."""

    how: str
    code: int
    text: str  # all that it said
    seconds: float  # of the CPU


def ended(command: str, cwd: Path, *, debug: bool = False) -> End:
    """Run a command of vqtool in a fork of this process."""
    reader, writer = os.pipe()
    with tempfile.TemporaryFile() as output:
        pid = os.fork()
        if pid == 0:
            os.close(reader)
            _child(shlex.split(command), cwd, output.fileno(), writer, debug)
        os.close(writer)
        late = not select.select([reader], [], [], WALL)[0]
        if late:
            os.kill(pid, signal.SIGKILL)
        _, status, used = os.wait4(pid, 0)
        with os.fdopen(reader, "rb") as file:
            answer = file.read()
        output.seek(0)
        text = output.read().decode("utf-8", "replace")
    seconds = used.ru_utime + used.ru_stime
    if late or (os.WIFSIGNALED(status) and os.WTERMSIG(status) == signal.SIGXCPU):
        return End("hang", -1, text, seconds)
    if not answer:
        return End("died", -os.WTERMSIG(status) if os.WIFSIGNALED(status) else status, text, seconds)
    code, grown = json.loads(answer)
    how = next((name for name, sign in SIGNS if re.search(sign, text)), "refused" if code else "ok")
    if grown > MEMORY and how in ("ok", "refused"):
        how = "memory"
    if code and not text.strip():
        how = "silent"
    return End(how, code, text, seconds)


def _child(arguments: list[str], cwd: Path, output: int, writer: int, debug: bool) -> None:
    """The command itself; never returns."""
    code: object = 1
    try:
        os.chdir(cwd)
        os.dup2(output, 1)
        os.dup2(output, 2)
        sys.stdout = sys.stderr = os.fdopen(1, "w", encoding="utf-8", errors="backslashreplace", closefd=False)
        if debug:
            os.environ["VQTOOL_DEBUG"] = "1"
        before = _pages()
        resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
        resource.setrlimit(resource.RLIMIT_CPU, (SECONDS, SECONDS + 5))
        resource.setrlimit(resource.RLIMIT_AS, (before["VmSize"] + MEMORY + 2**28,) * 2)
        sys.argv = ["vqtool", *arguments]
        from vqtool import cli

        try:
            cli.main()
        except SystemExit as end:
            code = end.code or 0
        except BaseException:
            traceback.print_exc()
        sys.stdout.flush()
        grown = _pages()["VmHWM"] - before["VmRSS"]
        os.write(writer, json.dumps([code if isinstance(code, int) else 1, grown]).encode())
    finally:
        os._exit(0)


def _pages() -> dict[str, int]:
    """The sizes of this process in bytes, as the kernel counts them."""
    found = re.findall(r"(Vm\w+):\s+(\d+) kB", Path("/proc/self/status").read_text())
    return {name: int(size) * 1024 for name, size in found}
