"""`-` as a file: bytes as they come, or kept on disk where a file is needed, so that memory does not grow with them."""

from __future__ import annotations

import contextlib
import os
import shutil
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import BinaryIO, Self

from vqtool.console import out
from vqtool.errors import VqtoolError
from vqtool.files import PIPE
from vqtool.training.runtime import Signals

BLOCK = 2**13  # bytes that are read at a time: of sound about a quarter of a second


class Incoming:
    """Bytes of a pipe or an open file, as they come.

    While a pipe is entered, the first SIGINT or SIGTERM ends it, so that what came is kept; a second one aborts.
    """

    def __init__(self, file: BinaryIO, *, pipe: bool) -> None:
        self._file, self._pipe, self._held, self._ended = file, pipe, b"", False
        self._signals = Signals()

    def __enter__(self) -> Self:
        if self._pipe:
            self._signals.__enter__()
        return self

    def __exit__(self, *_: object) -> None:
        self._signals.__exit__()

    @property
    def exit_code(self) -> int:
        """That of a command which a signal ended after it kept what came; 0 without a signal."""
        return 128 + self._signals.received if self._signals.received else 0

    def some(self, most: int | None = None) -> bytes:
        """What is there by now, at most `most` bytes of it; waits for one. Empty at the end."""
        most = most or BLOCK
        came = self._held or self._wait(most)
        self._held = came[most:]
        return came[:most]

    def peek(self, count: int) -> bytes:
        """The next `count` bytes, fewer at the end; they are read again."""
        while len(self._held) < count and (came := self._wait(BLOCK)):
            self._held += came
        return self._held[:count]

    def read(self, count: int) -> bytes:
        """The next `count` bytes, fewer at the end."""
        came = self.peek(count)
        self._held = self._held[count:]
        return came

    def _wait(self, most: int) -> bytes:
        self._signals.at_once = True
        try:
            came = b""
            if not self._ended and not self._signals.received:
                came = self._file.read1(most)  # type: ignore[attr-defined]  # buffered files have it
        except KeyboardInterrupt:
            if not self._signals.received:
                raise
            came = b""
        finally:
            self._signals.at_once = False
        self._ended = not came
        return came


@contextlib.contextmanager
def incoming(path: Path) -> Iterator[Incoming | None]:
    """What comes through stdin, where that is meant, or the bytes of a file; None for a folder.

    Raises:
        VqtoolError: stdin is a terminal, or holds nothing.
    """
    if path != PIPE:
        with contextlib.ExitStack() as held:
            file = None
            with contextlib.suppress(OSError):  # a folder; or who reads it next reports what is wrong
                file = held.enter_context(path.open("rb"))
            yield None if file is None else Incoming(file, pipe=False)
        return
    if sys.stdin is not None and sys.stdin.isatty():
        raise VqtoolError("`-` reads a file from a pipe, and stdin is a terminal", hint="put `< FILE` at the end")
    came = Incoming(sys.stdin.buffer, pipe=True) if sys.stdin is not None else None
    if came is None or not came.peek(1):
        raise VqtoolError("nothing came through the pipe", hint="see what the command before it reported")
    yield came


@contextlib.contextmanager
def outgoing(path: Path) -> Iterator[BinaryIO | None]:
    """Stdout, where that is meant.

    Raises:
        VqtoolError: it is closed.
    """
    if path != PIPE:
        yield None
        return
    with out.bytes_on_stdout() as stdout:
        yield stdout


@contextlib.contextmanager
def as_files(
    source: Path, target: Path, came: Incoming | None, stdout: BinaryIO | None, *, before: bytes = b"", suffix: str = ""
) -> Iterator[tuple[Path, Path]]:
    """Files in place of `-`: what `came` is read to its end first, and stdout gets the file that is written.

    Args:
        source: PIPE, or a path that stays as it is; so is `target`.
        came: what comes through stdin.
        stdout: where what was written goes.
        before: bytes that come before those of `came`.
        suffix: of the file that is written.
    """
    with contextlib.ExitStack() as held:
        folder = Path(held.enter_context(tempfile.TemporaryDirectory(prefix="vqtool-")))
        if source == PIPE and came is not None:
            source = folder / "stdin"
            with source.open("wb") as file, came:
                file.write(before)
                while block := came.some():
                    file.write(block)
        written = folder / f"stdout{suffix}"
        try:
            yield source, target if stdout is None else written
        except VqtoolError as error:
            error.message = error.message.replace(f"{folder}{os.sep}", "")  # `stdin` is what the user knows
            raise
        if stdout is not None:
            with written.open("rb") as file:
                shutil.copyfileobj(file, stdout)
