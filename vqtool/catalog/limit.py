"""The limits of a finding of `vqtool diagnose`: at which figures it warns and fails."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal


@dataclass(frozen=True, slots=True)
class Limit:
    """When the figure of a finding warns and when it fails; None: never. A recipe's `[diagnose]` can set both."""

    id: str  # of the finding: "collapse", ...
    figure: str  # what is measured, in one line
    warn: float | None
    fail: float | None
    source: str  # where the numbers come from
    worse: Literal["low", "high"] = "high"
    shown: tuple[str, str, str] | None = None  # a measure that reports show: its name, what it is, its format

    def grade(self, figure: float) -> tuple[Literal["ok", "warn", "fail"], float | None]:
        """(severity, the threshold that decided it): of an "ok", the one at which it would warn."""
        sign = 1 if self.worse == "high" else -1
        for severity, limit in (("fail", self.fail), ("warn", self.warn)):
            if limit is not None and sign * figure >= sign * limit:
                return severity, limit  # type: ignore[return-value]  # the two literals above
        return "ok", self.warn if self.warn is not None else self.fail
