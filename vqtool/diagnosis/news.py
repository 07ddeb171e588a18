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

    With `looks` 2, a finding is news only where it was there at the last look, too.
    """

    def __init__(self, stop_on: StopOn | None = None, *, looks: Literal[1, 2] = 1) -> None:
        self.stop_on, self.looks = stop_on, looks
        self.reported: dict[Key, int] = {}  # the worst severity of each, as its place in SEVERITIES
        self.missed: dict[Key, int] = {}  # for how many looks it was not there
        self.ill: Finding | None = None

    def of(self, findings: Iterable[Finding], waits: Callable[[Finding], bool] = lambda _: False) -> list[Finding]:
        """What is new among the findings of a look; one that `waits` is not, but has not gone either."""
        found = [f for f in findings if f.severity in ("warn", "fail") and f.id not in LATER]
        waiting = [f for f in found if waits(f)]
        found = [f for f in found if f not in waiting]
        now = {key: SEVERITIES.index(f.severity) for f in found for key in keys(f)}
        stays = {key for key in now if self.missed.get(key) == 0}
        sure = stays if self.looks > 1 else now.keys()
        new = [f for f in found if any(key in sure and now[key] > self.reported.get(key, 0) for key in keys(f))]
        least = SEVERITIES.index(self.stop_on) if self.stop_on is not None else len(SEVERITIES)
        self.ill = next((f for f in found if SEVERITIES.index(f.severity) >= least and stays & set(keys(f))), None)
        there = now.keys() | (self.reported.keys() & {key for f in waiting for key in keys(f)})
        self.missed = {key: 0 if key in there else self.missed.get(key, 0) + 1 for key in there | self.missed.keys()}
        self.missed = {key: looks for key, looks in self.missed.items() if looks < GONE}
        sure_now = {key: now.get(key, 0) for key in sure}
        self.reported = {key: max(sure_now.get(key, 0), self.reported.get(key, 0)) for key in self.missed}
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
