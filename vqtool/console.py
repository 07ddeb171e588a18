"""The one output sink: results on stdout, everything for people on stderr, and the one place errors are rendered.

Names and texts come from files, and a terminal obeys what they hold: control characters and marks of direction are
shown as `\\x1b` and the like. Only colours of our own pass; they are known by a number that no file can know.
"""

from __future__ import annotations

import io
import json
import math
import os
import re
import sys
import unicodedata
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, redirect_stderr, redirect_stdout
from typing import Any, BinaryIO, Literal, TextIO, cast

from vqtool.errors import VqtoolError, Where
from vqtool.progress import Progress, progress_for

Mode = Literal["human", "json", "quiet"]
_COLOURS = {"red": "31;1", "yellow": "33;1", "cyan": "36", "blue": "34;1", "bold": "1", "dim": "2"}
_KEY = int.from_bytes(os.urandom(6), "big")
_UNSAFE = r"[\x00-\x08\x0b-\x1f\x7f-\x9f\u061c\u200e\u200f\u2028-\u202e\u2066-\u2069\ufeff\ud800-\udfff]"
_OWN_OR_UNSAFE = re.compile(rf"\x1b\[([0-9;]+);{_KEY}m|{_UNSAFE}")


class Output:
    """Where everything that vqtool says goes through; `mode` is set once, by the command line."""

    def __init__(self) -> None:
        self.mode: Mode = "human"
        self.muted = False
        self._bar: Progress | None = None
        self._results: TextIO | None = None
        self._stderr: TextIO | None = None

    @property
    def result_stream(self) -> TextIO:
        """Where results go; a table that is one is laid out for it."""
        return self._results or sys.stdout

    @property
    def people_stream(self) -> TextIO:
        """Where everything for people goes."""
        return self._stderr or sys.stderr

    @contextmanager
    def alone_on_stdout(self) -> Iterator[None]:
        """Results alone go to stdout meanwhile: what parts and libraries print goes to stderr, line by line."""
        before = self._results, self._stderr
        self._results, self._stderr = self.result_stream, self.people_stream
        foreign = Foreign(self)
        try:
            with redirect_stdout(cast(TextIO, foreign)), redirect_stderr(cast(TextIO, foreign)):
                yield
        finally:
            foreign.finish()
            self._results, self._stderr = before

    @contextmanager
    def bytes_on_stdout(self) -> Iterator[BinaryIO]:
        """Stdout for the bytes of a file: results in words are left out meanwhile.

        Raises:
            VqtoolError: it is closed.
        """
        if sys.__stdout__ is None:
            raise VqtoolError("stdout is closed", hint="--out FILE, or a pipe or a file behind stdout")
        stdout, self._results = self.result_stream, io.StringIO()
        try:
            yield stdout.buffer
            stdout.buffer.flush()
        finally:
            self._results = stdout

    def relay(self, text: str) -> None:
        """Lines that are not ours (of a library, a traceback), on stderr."""
        self._people(text)

    @contextmanager
    def silence(self) -> Iterator[None]:
        """Say nothing meanwhile but errors: what is computed is a part of something that speaks for it."""
        before, self.muted = self.muted, True
        try:
            yield
        finally:
            self.muted = before

    def mute(self) -> None:
        """Say nothing but errors from now on: this is not rank 0."""
        self.muted = True

    def say(self, text: str) -> None:
        """Show people a message, on stderr."""
        if self.mode != "quiet" and not self.muted:
            self._people(text)

    def warn(self, text: str) -> None:
        """Warn, on stderr, also with --quiet."""
        if not self.muted:
            self._people(f"{paint('warning', 'yellow', sys.stderr)}: {text}")

    def hint(self, text: str) -> None:
        """Show people what they may do next, on stderr."""
        if self.mode != "quiet" and not self.muted:
            self._people(f"{paint('hint', 'cyan', sys.stderr)}: {text}")

    def trace(self, text: str) -> None:
        """A line for those who look into vqtool itself (VQTOOL_TRACE=1), on stderr."""
        self._people(paint(f"trace: {text}", "dim", sys.stderr))

    def table(self, title: str, columns: Sequence[str], rows: Sequence[Sequence[Any]]) -> None:
        """A table for people, on stderr."""
        self.say("\n" + table_text(title, columns, rows, sys.stderr))

    def print(self, text: str) -> None:
        """The result, on stdout, where no document is asked for."""
        if self.mode != "json" and not self.muted:
            print(escaped(text), file=self.result_stream, flush=True)

    def result_table(
        self, title: str, columns: Sequence[str], rows: Sequence[Sequence[Any]], *, gap: bool = True
    ) -> None:
        """A table that is the result, on stdout; with a `gap`, after an empty line."""
        self.print("\n" * gap + table_text(title, columns, rows, self.result_stream))

    def document(self, value: Mapping[str, Any]) -> None:
        """The result as one JSON document on stdout, where --json asks for it; what is not finite becomes null."""
        if self.mode == "json" and not self.muted:
            print(json_text(plain(value)), file=self.result_stream, flush=True)

    @contextmanager
    def progress(self, total: int | None, label: str) -> Iterator[Progress]:
        """A bar on a terminal, else plain lines at most every ten seconds; nothing with --quiet."""
        silent = self.muted or self.mode == "quiet"
        with progress_for(total, one_line(label), silent=silent, stream=self.people_stream) as bar:
            self._bar, before = bar, self._bar
            try:
                yield bar
            finally:
                self._bar = before

    def _people(self, text: str) -> None:
        if self._bar is not None:
            self._bar.say(escaped(text))
        else:
            print(escaped(text), file=self.people_stream, flush=True)


class Foreign(io.TextIOBase):
    """What code that is not ours writes to, in place of a terminal: its lines are shown as all others are."""

    def __init__(self, output: Output) -> None:
        self._output = output
        self._rest = ""

    @property
    def buffer(self) -> Foreign:
        """For those who write bytes."""
        return self

    def write(self, text: str | bytes) -> int:
        """Show every line that is whole."""
        if isinstance(text, bytes):
            text = text.decode("utf-8", "backslashreplace")
        *lines, self._rest = (self._rest + text).split("\n")
        for line in lines:
            self._output.relay(line)
        return len(text)

    def finish(self) -> None:
        """Show what is left."""
        if self._rest:
            self.write("\n")

    def isatty(self) -> bool:
        """As the stream behind it."""
        return self._output.people_stream.isatty()

    def fileno(self) -> int:
        """That of the stream behind it, for a process that is started with it."""
        return self._output.people_stream.fileno()

    @property
    def encoding(self) -> str:  # type: ignore[override]  # nobody sets it
        """That of the stream behind it."""
        return getattr(self._output.people_stream, "encoding", None) or "utf-8"


out = Output()


def escaped(text: str) -> str:
    """A text that is safe to show: control characters other than the line feed and the tab as `\\x1b`."""
    return _OWN_OR_UNSAFE.sub(lambda found: f"\x1b[{found[1]}m" if found[1] else _code(found[0]), text)


def one_line(text: str) -> str:
    """A name or a sentence, safe to show and of one line: a line feed of its own would begin a line of ours."""
    return escaped(text).replace("\n", r"\n").replace("\t", r"\t")


def json_text(value: Any) -> str:
    """JSON that is safe to show: what a terminal would obey is escaped as JSON does."""
    text = json.dumps(value, indent=1, allow_nan=False, ensure_ascii=False)
    return re.sub(_UNSAFE, lambda found: f"\\u{ord(found[0]):04x}", text)


def _code(character: str) -> str:
    number = ord(character)
    return f"\\x{number:02x}" if number < 256 else f"\\u{number:04x}"


def render_error(error: VqtoolError) -> None:
    """Show an error and those found with it, by file and line; with --json as one document on stdout."""
    errors = sorted(error.all(), key=_place)
    if out.muted:  # another rank speaks for all, unless this one alone failed
        out.relay(f"error (rank {os.environ.get('RANK', '?')}): {one_line(error.message)}")
        return
    if out.mode == "json":
        documents = [{"message": e.message, "where": e.where_text(), "hint": e.hint} for e in errors]
        out.document({"error": documents[0] | ({"others": documents[1:]} if documents[1:] else {})})
        return
    out.relay("\n\n".join(error_text(e) for e in errors))


def _place(error: VqtoolError) -> tuple[bool, str, int, int]:
    """What errors are sorted by: those without a place come last, in the order they were found."""
    if isinstance(error.where, Where):
        return False, error.where.path, error.where.line, error.where.column
    return True, "", 0, 0


def error_text(error: VqtoolError) -> str:
    """One error as people see it: message, place, the line with a caret, and what to do."""
    lines = [f"{paint('error', 'red', sys.stderr)}: {one_line(error.message.strip())}"]
    hint = error.hint
    if error.where is not None:
        lines.append(f"{paint('  -->', 'blue', sys.stderr)} {one_line(error.where_text() or '')}")
    if isinstance(error.where, Where) and error.where.text.strip():
        lines += _pointed(error.where, hint if _beside(hint) else None)
        hint = None if _beside(hint) else hint
    if hint:
        first, *more = hint.splitlines()
        lines += [f"{paint('  hint', 'cyan', sys.stderr)}: {first}", *(f"        {line}" for line in more)]
    return "\n".join(lines)


def _beside(hint: str | None) -> bool:
    """Whether a hint is short enough to stand beside the caret."""
    return hint is not None and len(hint) <= 60 and "\n" not in hint


def _pointed(where: Where, hint: str | None) -> list[str]:
    """The source line and, under it, carets; of a very long line only the part around the place."""
    text, column = where.text.replace("\t", " "), where.column - 1
    begin = max(0, column - 40) if len(text) > 110 else 0
    shown = ("…" if begin else "") + text[begin : begin + 110] + ("…" if len(text) > begin + 110 else "")
    lead = ("…" if begin else "") + text[begin:column]
    under = text[column : column + max(where.width, 1)][:80] or " "
    shown, lead, under = one_line(shown), one_line(lead), one_line(under)
    gutter = " " * len(str(where.line))
    bar = paint("|", "blue", sys.stderr)
    carets = paint("^" * cells(under), "red", sys.stderr)
    return [
        f" {gutter} {bar}",
        f" {paint(str(where.line), 'blue', sys.stderr)} {bar} {shown}",
        f" {gutter} {bar} {' ' * cells(lead)}{carets}{' ' + hint if hint else ''}",
    ]


def table_text(title: str, columns: Sequence[str], rows: Sequence[Sequence[Any]], stream: TextIO | None = None) -> str:
    """An aligned table: numbers to the right; on a narrow terminal the last column wraps."""
    import textwrap

    texts = [["" if cell is None else one_line(str(cell)) for cell in row] for row in rows]
    columns = [one_line(name) for name in columns]
    widths = [max(map(cells, column)) for column in zip(columns, *texts, strict=True)]
    right = [bool(texts) and all(_numeric(row[i]) for row in texts) for i in range(len(columns))]
    room = _columns(stream) - sum(widths[:-1]) - 2 * (len(columns) - 1)
    wraps = room >= 24 and widths[-1] > room

    def line(row: Sequence[str]) -> str:
        gaps = [" " * (width - cells(cell)) for cell, width in zip(row, widths, strict=True)]
        padded = [gap + cell if numbers else cell + gap for cell, gap, numbers in zip(row, gaps, right, strict=True)]
        if not wraps:
            return "  ".join(padded).rstrip()
        first, *more = textwrap.wrap(row[-1], room) or [""]
        indent = " " * (sum(widths[:-1]) + 2 * (len(columns) - 1))
        return "\n".join(["  ".join([*padded[:-1], first]).rstrip(), *(indent + part for part in more)])

    head = [paint(one_line(title), "bold", stream)] if title else []
    return "\n".join([*head, paint(line(columns), "dim", stream), *(line(row) for row in texts)])


def paint(text: str, colour: str, stream: TextIO | None) -> str:
    """`text` in a colour where the stream is a terminal that has them (NO_COLOR is heeded)."""
    plainly = stream is None or not stream.isatty() or "NO_COLOR" in os.environ or os.environ.get("TERM") == "dumb"
    return text if plainly else f"\x1b[{_COLOURS[colour]};{_KEY}m{text}\x1b[0;{_KEY}m"


def cells(text: str) -> int:
    """How many terminal cells a text takes."""
    return sum(0 if unicodedata.combining(c) else 2 if unicodedata.east_asian_width(c) in "WF" else 1 for c in text)


def plain(value: Any) -> Any:
    """A value as JSON has it: paths are strings, what is not finite is null, an array's scalar is a number."""
    if isinstance(value, Mapping):
        return {str(key): plain(item) for key, item in value.items()}
    if isinstance(value, list | tuple | set | frozenset):
        return [plain(item) for item in (sorted(value) if isinstance(value, set | frozenset) else value)]
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    if value is None or isinstance(value, str | int | bool):
        return value
    return plain(value.item()) if hasattr(value, "item") else str(value)


def _numeric(text: str) -> bool:
    return not text or text.lstrip("+-")[:1].isdigit()


def _columns(stream: TextIO | None) -> int:
    """The terminal's width; unlimited where there is none, so that nothing is cut in a file."""
    if stream is None or not stream.isatty():
        return 10**6
    import shutil

    return shutil.get_terminal_size().columns
