"""Where in a recipe's text, or in which override, a key was given."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from vqtool.errors import VqtoolError, Where
from vqtool.recipe import toml_lines

Key = tuple[str | int, ...]


class Places:
    """Answers for every key path of a recipe with the place that a message points at."""

    def __init__(self, text: str, path: Path | str | None) -> None:
        self.name = str(path) if path is not None else "recipe"
        self._lines = text.split("\n")  # as TOML has lines; `splitlines` knows more ends than that
        self._found = toml_lines.positions(text)
        self._overrides: dict[Key, str] = {}

    def override(self, key: Key, text: str) -> None:
        """A key was given by `-s text`."""
        self._overrides[key] = text

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
        spot = toml_lines.nearest_spot(self._found, key)
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
