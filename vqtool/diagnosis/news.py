"""What is new at a look at codebooks that are training: each finding once, until it gets worse or comes back."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Literal

from vqtool.diagnosis.report import SEVERITIES, Finding
from vqtool.errors import VqtoolError

StopOn = Literal["warn", "fail"]
LATER = ("few-tokens", "hot-code")  # notes of a diagnosis; nobody wants them while training
GONE = 2  # looks without a finding, after which it is news again

Key = tuple[str, str]  # a finding's id and one of the codebooks that have it


class News:
    """Remembers what was found at earlier looks; `ill` is what to stop at: found at the last two looks.

    Args:
        stop_on: the severity of what to stop at, or of milder findings than that.
        twice: a finding is news only where it was there at the last look already.
    """

    def __init__(self, stop_on: StopOn | None = None, *, twice: bool = False) -> None:
        self.stop_on, self.twice = stop_on, twice
        self.last: set[Key] = set()  # what was there at the last look
        self.reported: dict[Key, int] = {}  # the worst severity of each, as its place in SEVERITIES
        self.missed: dict[Key, int] = {}  # for how many looks it was not there
        self.ill: Finding | None = None

    def of(self, findings: Iterable[Finding], waits: Callable[[Finding], bool] = lambda _: False) -> list[Finding]:
        """What is new among the findings of a look; one that `waits` is not, but has not gone either."""
        found = [f for f in findings if f.severity in ("warn", "fail") and f.id not in LATER]
        waiting = {id(f) for f in found if waits(f)}
        there = {key for f in found for key in keys(f)}
        found = [f for f in found if id(f) not in waiting]
        now = {key: SEVERITIES.index(f.severity) for f in found for key in keys(f)}
        again, self.last = now.keys() & self.last, set(now)
        least = SEVERITIES.index(self.stop_on) if self.stop_on is not None else len(SEVERITIES)
        self.ill = next((f for f in found if SEVERITIES.index(f.severity) >= least and again & set(keys(f))), None)
        if self.twice:
            found = [f for f in found if again & set(keys(f))]
        new = [f for f in found if any(now[key] > self.reported.get(key, 0) for key in keys(f))]
        for key in [key for f in found for key in keys(f)]:
            self.reported[key] = max(now[key], self.reported.get(key, 0))
        self.missed = {key: 0 if key in there else self.missed.get(key, 0) + 1 for key in self.reported}
        self.reported = {key: worst for key, worst in self.reported.items() if self.missed[key] < GONE}
        return new


def keys(finding: Finding) -> list[Key]:
    """What a finding is remembered by."""
    return [(finding.id, where) for where in (finding.where, *finding.also)]


class UnhealthyError(VqtoolError):
    """A finding that training was to stop at, found at two looks in a row."""

    def __init__(self, finding: Finding | None, where: str, *hints: str) -> None:
        self.finding = finding
        cause = f"{finding.id}: {finding.cause}" if finding is not None else "what another rank found"
        fix = finding.fix if finding is not None else ()
        super().__init__(f"stopped for {cause}", hint="\n".join((*fix, *hints)), where=where, exit_code=3)
