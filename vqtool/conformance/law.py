"""A law as data: what it says, what breaking it does, how to fix it, and the function that checks it."""

from __future__ import annotations

import sysconfig
import traceback
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Generic, Literal, TypeVar

import torch

from vqtool.conformance.words import GRADES, WORDS, Grade

Status = Literal["kept", "broken", "n/a"]
SEVERE: tuple[Grade, ...] = ("fatal", "harmful")  # what fails a gate
S = TypeVar("S")
T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class Verdict:
    """The outcome of one check: `figure` is the number behind it, `note` says what it counts.

    `grade`: how bad this violation is, where that is not the law's own grade.
    """

    status: Status
    figure: float | None = None
    note: str = ""
    grade: Grade | None = None


class NotApplicable(Exception):  # noqa: N818 - not an error
    """Raised in a check: the law says nothing about this subject, and why."""


class NoSuchFeature(NotApplicable):
    """Raised in a check: the law is about a feature that the subject does not have, and is not reported."""


@dataclass(frozen=True, slots=True)
class Law(Generic[S]):
    """One law for subjects of kind S (`Subject`: vqtool's quantizers; `PriorSubject`; `ForeignModule`: any module)."""

    id: str
    check: Callable[[S], Verdict]
    meaning: str  # what the law says
    harm: str  # what breaking it does to training
    fix: str  # how to change code that breaks it, in one line
    source: str  # where it comes from: a paper, or where it went wrong in public
    grade: Grade  # how bad breaking it is


class Laws(list[Law[S]]):
    """Laws in the order of their checks: it decorates each, and the function's name gives the law's id."""

    def __call__(self, check: Callable[[S], Verdict]) -> Callable[[S], Verdict]:
        id = check.__name__.replace("_", "-")
        self.append(Law(id, check, *WORDS[id], GRADES.get(id, "harmful")))
        return check


@dataclass(frozen=True, slots=True)
class Outcome:
    """A law and what its check found."""

    law: Law[Any]
    verdict: Verdict

    @property
    def grade(self) -> Grade:
        """How bad a violation is: fatal, harmful or cosmetic."""
        return self.verdict.grade or self.law.grade

    def row(self) -> dict[str, Any]:
        """The outcome as `vqtool verify --json` gives it."""
        law, verdict = self.law, self.verdict
        return {"id": law.id, "status": verdict.status, "grade": self.grade, "figure": verdict.figure,
                "note": verdict.note,
                "meaning": law.meaning, "harm": law.harm, "fix": law.fix}  # fmt: skip


def kept(figure: float | None = None, note: str = "") -> Verdict:
    """The law holds."""
    return Verdict("kept", figure, note)


def broken(figure: float | None = None, note: str = "", grade: Grade | None = None) -> Verdict:
    """The law does not hold."""
    return Verdict("broken", figure, note, grade)


def not_applicable(note: str) -> Verdict:
    """The law says nothing about this subject."""
    return Verdict("n/a", None, note)


def within(figure: float, limit: float, note: str, grade: Grade | None = None) -> Verdict:
    """Kept if `figure` <= `limit`; a NaN breaks the law."""
    return kept(figure, note) if figure <= limit else broken(figure, note, grade)


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
    """Check one law.

    A check that the code under test brings down is a broken law; one that fails by itself says nothing.
    """
    found = tried(lambda: law.check(subject))
    if isinstance(found, NoSuchFeature):
        raise found
    if isinstance(found, NotApplicable):
        found = not_applicable(str(found))
    elif isinstance(found, BaseException):
        lines = str(getattr(found, "message", found)).strip().splitlines()
        said = f"{type(found).__name__}: {lines[0][:160] if lines else ''}"
        found = broken(None, said) if of_the_subject(found) else not_applicable(f"it could not be checked: {said}")
    return Outcome(law, found)


def of_the_subject(error: BaseException) -> bool:
    """Whether an error was raised in code under test, not by a check or by what the check called itself."""
    frames = [Path(frame.filename) for frame in traceback.extract_tb(error.__traceback__)]
    ours = Path(__file__).parent, Path(torch.__file__).parent
    standard = Path(sysconfig.get_paths()["stdlib"])
    return any(
        not any(path.is_relative_to(folder) for folder in ours)
        and not (path.is_relative_to(standard) and "site-packages" not in path.parts)
        and path.name not in ("<string>", "<--forward>")
        for path in frames
    )


def judge_all(laws: Iterable[Law[S]], subject: S) -> list[Outcome]:
    """Check each of `laws` on the same subject; those about features that it does not have are left out."""
    found = []
    for law in laws:
        try:
            found.append(judge(law, subject))
        except NoSuchFeature:
            continue
    return found
