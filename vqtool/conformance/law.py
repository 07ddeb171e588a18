"""A law as data: what it says, what breaking it does, how to fix it, and the function that checks it."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Any, Generic, Literal, TypeVar

from vqtool.conformance.words import WORDS
from vqtool.errors import VqtoolError

Status = Literal["kept", "broken", "n/a"]
S = TypeVar("S")
T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class Verdict:
    """The outcome of one check: `figure` is the number behind it, `note` says what it counts."""

    status: Status
    figure: float | None = None
    note: str = ""


class NotApplicable(Exception):  # noqa: N818 - not an error
    """Raised in a check: the law says nothing about this subject, and why."""


@dataclass(frozen=True, slots=True)
class Law(Generic[S]):
    """One law for subjects of kind S (`Subject`: vqtool's quantizers; `PriorSubject`; `ForeignModule`: any module)."""

    id: str
    check: Callable[[S], Verdict]
    meaning: str  # what the law says
    harm: str  # what breaking it does to training
    fix: str  # how to change code that breaks it, in one line
    source: str  # where it comes from: a paper, or where it went wrong in public


class Laws(list[Law[S]]):
    """Laws in the order of their checks: it decorates each, and the function's name gives the law's id."""

    def __call__(self, check: Callable[[S], Verdict]) -> Callable[[S], Verdict]:
        id = check.__name__.replace("_", "-")
        self.append(Law(id, check, *WORDS[id]))
        return check


@dataclass(frozen=True, slots=True)
class Outcome:
    """A law and what its check found."""

    law: Law[Any]
    verdict: Verdict

    def row(self) -> dict[str, Any]:
        """The outcome as `vqtool verify --json` gives it."""
        law, verdict = self.law, self.verdict
        return {"id": law.id, "status": verdict.status, "figure": verdict.figure, "note": verdict.note,
                "meaning": law.meaning, "harm": law.harm, "fix": law.fix}  # fmt: skip


def kept(figure: float | None = None, note: str = "") -> Verdict:
    """The law holds."""
    return Verdict("kept", figure, note)


def broken(figure: float | None = None, note: str = "") -> Verdict:
    """The law does not hold."""
    return Verdict("broken", figure, note)


def not_applicable(note: str) -> Verdict:
    """The law says nothing about this subject."""
    return Verdict("n/a", None, note)


def within(figure: float, limit: float, note: str) -> Verdict:
    """Kept if `figure` <= `limit`; a NaN breaks the law."""
    return kept(figure, note) if figure <= limit else broken(figure, note)


def tried(call: Callable[[], T]) -> T | BaseException:
    """What a call of code under test returned or raised, `sys.exit` included."""
    try:
        return call()
    except KeyboardInterrupt:
        raise
    except BaseException as error:
        return error


def in_a_line(error: BaseException) -> str:
    """What an error says, and its kind where that says more."""
    lines = str(error).strip().splitlines()
    return lines[0] if lines and isinstance(error, Exception) else repr(error)


def judge(law: Law[S], subject: S) -> Outcome:
    """Check one law; a check that the code under test brings down is a broken law, not a broken tool."""
    found = tried(lambda: law.check(subject))
    if isinstance(found, NotApplicable):
        found = not_applicable(str(found))
    elif isinstance(found, VqtoolError):
        found = broken(None, f"refused: {found.message}")
    elif isinstance(found, BaseException):
        lines = str(found).strip().splitlines()
        found = broken(None, f"{type(found).__name__}: {lines[0][:160] if lines else ''}")
    return Outcome(law, found)


def judge_all(laws: Iterable[Law[S]], subject: S) -> list[Outcome]:
    """Check each of `laws` on the same subject."""
    return [judge(law, subject) for law in laws]
