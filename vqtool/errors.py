"""The one error a user sees: what is wrong, where, and what to do about it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Where:
    """A place in a text file: 1-based line and column, the line itself, and how many characters to underline."""

    path: str
    line: int
    column: int
    text: str = ""
    width: int = 1


class VqtoolError(Exception):
    """A user's mistake or a failure with a known cause; rendered once, by `console.render_error`.

    Args:
        message: what is wrong: lower-case start, backticks for code.
        hint: what to do, best a command to run.
        where: a place in a file, or a plain string (a path, a part of a recipe).
        exit_code: 2 for bad usage, recipe or input; 1 for everything that failed later.
        others: more errors of the same attempt, shown together (a recipe reports all its problems at once).
    """

    def __init__(
        self,
        message: str,
        *,
        hint: str | None = None,
        where: Where | str | None = None,
        exit_code: int = 2,
        others: Sequence[VqtoolError] = (),
    ) -> None:
        super().__init__(message)
        self.message = message
        self.hint = hint
        self.where = where
        self.exit_code = exit_code
        self.others = tuple(others)

    def all(self) -> list[VqtoolError]:
        """This error and those reported with it, in the order they were found."""
        return [self, *(e for other in self.others for e in other.all())]

    def where_text(self) -> str | None:
        """`where` in one line: `file:line:column` or the plain string."""
        if isinstance(self.where, Where):
            return f"{self.where.path}:{self.where.line}:{self.where.column}"
        return self.where


def counted(count: int, noun: str) -> str:
    """A count and a noun, in the plural where it is not one."""
    return f"{count:,} {noun}{'' if count == 1 else 's'}"


class MissingError(VqtoolError):
    """A library or a program that something optional needs is not installed."""


def missing_extra(package: str, extra: str, needed_by: str) -> MissingError:
    """The error for an optional library that is not installed: names the extra that brings it."""
    return MissingError(
        f"{needed_by} needs the library `{package}`, which is not installed",
        hint=f"pip install 'vqtool[{extra}]'",
        exit_code=1,
    )
