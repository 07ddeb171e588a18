"""`-` as a file: what comes through a pipe is kept on disk, so that memory does not grow with it."""

from __future__ import annotations

import contextlib
import os
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
        VqtoolError: stdin is a terminal, or holds nothing; stdout is closed.
    """
    if PIPE not in (source, target):
        yield source, target
        return
    with contextlib.ExitStack() as held:
        folder = Path(held.enter_context(tempfile.TemporaryDirectory(prefix="vqtool-")))
        stdout = held.enter_context(out.bytes_on_stdout()) if target == PIPE else None
        if source == PIPE:
            source = folder / "stdin"
            save_stdin(source)
        written = folder / "stdout"
        try:
            yield source, target if stdout is None else written
        except VqtoolError as error:
            error.message = error.message.replace(f"{folder}{os.sep}", "")  # `stdin` is what the user knows
            raise
        if stdout is not None:
            with written.open("rb") as file:
                shutil.copyfileobj(file, stdout)


def save_stdin(path: Path) -> None:
    """Write what comes through stdin to a file.

    Raises:
        VqtoolError: stdin is a terminal, or nothing comes.
    """
    if sys.stdin is not None and sys.stdin.isatty():
        raise VqtoolError("`-` reads a file from a pipe, and stdin is a terminal", hint="put `< FILE` at the end")
    if sys.stdin is not None:
        with path.open("wb") as file:
            shutil.copyfileobj(sys.stdin.buffer, file)
    if not path.exists() or not path.stat().st_size:
        raise VqtoolError("nothing came through the pipe", hint="see what the command before it reported")
