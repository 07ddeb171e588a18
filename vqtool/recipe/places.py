"""Where a recipe's keys stand: in the text, by line and column, or in an override."""

from __future__ import annotations

import re
import tomllib
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from vqtool.errors import VqtoolError, Where

Key = tuple[str | int, ...]  # ("stage", 0, "losses", "mse"); integers index arrays and arrays of tables
_BLANK = re.compile(r"(?:[ \t\r\n]|#[^\n]*)*")
_SPACE = re.compile(r"[ \t]*")
_KEY = re.compile(r"""[A-Za-z0-9_-]+|"(?:[^"\\\n]|\\.)*"|'[^'\n]*'""")
_STRING = re.compile(
    r'"""(?:[^\\]|\\.)*?"""(?:"{0,2})(?!")|' + r"'''.*?'''(?:'{0,2})(?!')|" + r'"(?:[^"\\\n]|\\.)*"|' + r"'[^'\n]*'",
    re.DOTALL,
)
_SCALAR = re.compile(r"[^,\]}#\n]+")


class Places:
    """Answers for every key path of a recipe with the place that a message points at."""

    def __init__(self, text: str, path: Path | str | None) -> None:
        self.name = str(path) if path is not None else "recipe"
        self._lines = text.split("\n")  # as TOML has lines; `splitlines` knows more ends than that
        self._found = positions(text)
        self._overrides: dict[Key, str] = {}

    def override(self, key: Key, text: str) -> None:
        """A key was given by `-s text`."""
        self._overrides[key] = text

    def overridden(self, key: Key) -> bool:
        """Whether the command line gave the value at a key."""
        return any(key[: len(given)] == given for given in self._overrides)

    def where(self, key: Sequence[str | int]) -> Where | str:
        """The place of a key: the override that gave it, its line, or that of the table around it."""
        key = tuple(key)
        for given, text in reversed(self._overrides.items()):
            if key[: len(given)] == given:
                return f"-s {text}"
        if key not in self._found:
            for given, text in reversed(self._overrides.items()):
                if given[: len(key)] == key:
                    return f"-s {text}"
        spot = nearest_spot(self._found, key)
        if spot is None:
            return self.name
        return Where(self.name, spot.line, spot.column, self.line(spot.line), spot.width)

    def line(self, number: int) -> str:
        """A line of the text, by its 1-based number."""
        return self._lines[number - 1].rstrip("\r") if 0 < number <= len(self._lines) else ""


def one_error(errors: Sequence[VqtoolError]) -> VqtoolError:
    """All errors in one, by file and line."""

    def place(error: VqtoolError) -> tuple[bool, int, int]:
        where = error.where
        return (False, where.line, where.column) if isinstance(where, Where) else (True, 0, 0)

    first, *rest = sorted(errors, key=place)
    return VqtoolError(
        first.message, hint=first.hint, where=first.where, exit_code=max(e.exit_code for e in errors), others=rest
    )


@dataclass(frozen=True, slots=True)
class Spot:
    """A place: 1-based line and column, and how many characters the key (or array element) takes."""

    line: int
    column: int
    width: int


def positions(text: str) -> dict[Key, Spot]:
    """The place of every table, key and array element of a valid TOML text.

    A key's place is that of the key, in inline tables too; an array element's is that of the value.
    """
    return _Scanner(text).scan()


def key_parts(text: str) -> list[str] | None:
    """The parts of a dotted key such as `schedule."quantizer.temperature".to`; None if it is no key."""
    try:
        scanner = _Scanner(text)
        parts = [part for part, _, _ in scanner.key()]
    except ValueError:
        return None
    return parts if scanner.at == len(text.rstrip()) else None


class _Scanner:
    """Walks a text that has passed `tomllib` once; trusts it to be valid, so there is almost no error handling."""

    def __init__(self, text: str) -> None:
        self.text = text.replace("\r\n", " \n")  # same length: columns stay true
        self.at = 0
        self.found: dict[Key, Spot] = {}
        self.arrays: dict[Key, int] = {}  # arrays of tables and how many tables they hold so far

    def scan(self) -> dict[Key, Spot]:
        table: Key = ()
        while self._skip(_BLANK) < len(self.text):
            if self.text[self.at] == "[":
                table = self._header()
            else:
                self._pair(table)
        return self.found

    def key(self) -> list[tuple[str, int, int]]:
        """The parts of a dotted key, each with its start and end."""
        parts = []
        while True:
            self._skip(_SPACE)
            found = _KEY.match(self.text, self.at)
            if found is None:
                raise ValueError("no key")  # only where the text has not passed tomllib: see key_parts
            self.at = found.end()
            parts.append((_unquoted(found.group()), found.start(), found.end()))
            self._skip(_SPACE)
            if not self.text.startswith(".", self.at):
                return parts
            self.at += 1

    def _header(self) -> Key:
        """`[a.b]` or `[[a.b]]`: the path of the table that follows."""
        many = self.text.startswith("[[", self.at)
        self.at += 2 if many else 1
        parts = self.key()
        self.at += 2 if many else 1
        path: Key = ()
        for i, (name, start, end) in enumerate(parts):
            path = (*path, name)
            self._mark(path, start, end, again=i == len(parts) - 1)  # `[a]` is a better place for a than `[a.b]`
            if many and i == len(parts) - 1:
                self.arrays[path] = self.arrays.get(path, 0) + 1
            if path in self.arrays:
                path = (*path, self.arrays[path] - 1)
                self._mark(path, start, end)
        return path

    def _pair(self, table: Key) -> None:
        """`key = value`, in a table or an inline table."""
        path = table
        for name, start, end in self.key():
            path = (*path, name)
            self._mark(path, start, end)
        self.at += 1  # the =
        self._skip(_SPACE)
        self._value(path)

    def _value(self, path: Key) -> None:
        if self.text[self.at] == "[":
            self._array(path)
        elif self.text[self.at] == "{":
            self._inline(path)
        elif self.text[self.at] in "\"'":
            self.at = _STRING.match(self.text, self.at).end()  # type: ignore[union-attr]  # valid by contract
        else:
            self.at = _SCALAR.match(self.text, self.at).end()  # type: ignore[union-attr]  # as above

    def _array(self, path: Key) -> None:
        self.at += 1
        index = 0
        while self.text[self._skip(_BLANK)] != "]":
            start = self.at
            self._value((*path, index))
            written = self.text[start : self.at].split("\n")[0].rstrip()
            self._mark((*path, index), start, start + len(written))
            index += 1
            if self.text[self._skip(_BLANK)] == ",":
                self.at += 1
        self.at += 1

    def _inline(self, path: Key) -> None:
        self.at += 1
        while self.text[self._skip(_BLANK)] != "}":
            self._pair(path)
            if self.text[self._skip(_BLANK)] == ",":
                self.at += 1
        self.at += 1

    def _mark(self, path: Key, start: int, end: int, *, again: bool = False) -> None:
        line = self.text.count("\n", 0, start) + 1
        column = start - (self.text.rfind("\n", 0, start) + 1) + 1
        if again or path not in self.found:
            self.found[path] = Spot(line, column, end - start)

    def _skip(self, pattern: re.Pattern[str]) -> int:
        self.at = pattern.match(self.text, self.at).end()  # type: ignore[union-attr]  # both match the empty text
        return self.at


def _unquoted(key: str) -> str:
    """A key as `tomllib` reads it, escapes undone."""
    return next(iter(tomllib.loads(f"{key} = 0"))) if key[0] in "\"'" else key


def nearest_spot(found: dict[Key, Spot], path: Sequence[str | int]) -> Spot | None:
    """The place of a path, or of the innermost table around it that has one."""
    for length in range(len(path), 0, -1):
        if tuple(path[:length]) in found:
            return found[tuple(path[:length])]
    return None
