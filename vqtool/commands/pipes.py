"""`-` as a file: what comes through a pipe is kept on disk, so that memory does not grow with it."""

from __future__ import annotations

import contextlib
import shutil
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

from vqtool.console import out
from vqtool.errors import VqtoolError

PIPE = Path("-")


@contextlib.contextmanager
def piped(source: Path, target: Path) -> Iterator[tuple[Path, Path]]:
    """Files in place of `-`: stdin is read to its end first, and stdout gets the file that was written last.

    Raises:
        VqtoolError: stdin is a terminal, or holds nothing.
    """
    with contextlib.ExitStack() as held:
        folder = Path(held.enter_context(tempfile.TemporaryDirectory(prefix="vqtool-")))
        if source == PIPE:
            source = folder / "stdin"
            if sys.stdin.isatty():
                raise VqtoolError(
                    "`-` reads a file from a pipe, and stdin is a terminal", hint="vqtool encode - < FILE"
                )
            with source.open("wb") as file:
                shutil.copyfileobj(sys.stdin.buffer, file)
            if not source.stat().st_size:
                raise VqtoolError("nothing came through the pipe", hint="see what the command before it reported")
        if target != PIPE:
            yield source, target
            return
        stdout = held.enter_context(out.bytes_on_stdout())
        yield source, folder / "stdout"
        if (folder / "stdout").is_file():
            with (folder / "stdout").open("rb") as file:
                shutil.copyfileobj(file, stdout)
