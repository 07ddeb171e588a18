"""The report of `vqtool verify`: the outcomes of all laws, by how bad the violations are."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from torch import Tensor, nn

from vqtool.conformance.interface import as_call, infer_interface
from vqtool.conformance.law import SEVERE, Law, Outcome, S, judge_all
from vqtool.conformance.words import WORDS
from vqtool.errors import VqtoolError
from vqtool.suggest import did_you_mean


@dataclass(frozen=True)
class Report(Sequence[Outcome]):
    """What was verified and what came of it; a sequence of its outcomes, which prints as a list of violations.

    `fatal`, `harmful` and `cosmetic` are the broken laws of each grade; `warnings` is what was assumed of the target.
    """

    target: str
    outcomes: tuple[Outcome, ...]
    warnings: tuple[str, ...] = ()

    def broken(self, *grades: str) -> list[Outcome]:
        """The broken laws, of these grades where any are given."""
        return [o for o in self.outcomes if o.verdict.status == "broken" and (not grades or o.grade in grades)]

    @property
    def fatal(self) -> list[Outcome]:
        """What keeps a model from training or its codes from meaning anything."""
        return self.broken("fatal")

    @property
    def harmful(self) -> list[Outcome]:
        """What makes a model worse than it would be."""
        return self.broken("harmful")

    @property
    def cosmetic(self) -> list[Outcome]:
        """Rounding, and what shows under unusual use alone."""
        return self.broken("cosmetic")

    def passes(self, *, strict: bool = False) -> bool:
        """Whether it passes a gate: no violation that is fatal or harmful, or with `strict` none at all."""
        return not (self.broken() if strict else self.broken(*SEVERE))

    def document(self) -> dict[str, Any]:
        """The report as `vqtool verify --json` prints it."""
        rows = [outcome.row() for outcome in self.outcomes]
        count = {status: sum(row["status"] == status for row in rows) for status in ("kept", "broken")}
        grades = {grade: len(self.broken(grade)) for grade in ("fatal", "harmful", "cosmetic")}
        return {"target": self.target, **count, **grades, "warnings": list(self.warnings), "laws": rows}

    def __getitem__(self, index: Any) -> Any:
        return self.outcomes[index]

    def __len__(self) -> int:
        return len(self.outcomes)

    def __str__(self) -> str:
        lines = [f"{o.grade}: {o.law.id}  {o.verdict.note}; fix: {o.law.fix}" for o in self.broken()]
        kept = sum(o.verdict.status == "kept" for o in self.outcomes)
        return "\n".join([*lines, f"{self.target}: {kept} laws kept, {len(lines)} broken"])


def report_on(target: str, laws: Iterable[Law[S]], subject: S, only: Sequence[str], skip: Sequence[str]) -> Report:
    """Judge a subject by the laws of these ids (all, where none are named) but those of `skip`."""
    for id in (*only, *skip):
        if id not in WORDS:
            raise VqtoolError(f"there is no law `{id}`", hint=did_you_mean(id, WORDS), where="--law, --skip")
    wanted = [law for law in laws if (not only or law.id in only) and law.id not in skip]
    outcomes = tuple(judge_all(wanted, subject))
    return Report(target, outcomes, tuple(getattr(subject, "warnings", ())))


def report_on_module(
    laws: Iterable[Law[Any]],
    make: Callable[[], nn.Module],
    name: str,
    options: Mapping[str, Any],
    *,
    only: Sequence[str] = (),
    skip: Sequence[str] = (),
    layout: str | None = None,
    example: Tensor | None = None,
    forward: str | Callable[..., Any] | None = None,
    update: str | Callable[..., Any] | None = None,
    decode: str | Callable[..., Any] | None = None,
    rebuilt: bool = True,
    seed: int = 0,
    said: Callable[[str], None] = lambda _: None,
) -> Report:
    """Find how a foreign module is called, and judge it by `laws`; `said` gets the layout."""
    how = {
        "call": as_call(forward, "forward", ("m", "x")),
        "update": as_call(update, "update", ("m",)),
        "decode": as_call(decode, "decode", ("m", "codes")),
    }
    foreign = infer_interface(make, name, options, layout=layout, example=example, rebuilt=rebuilt, seed=seed, **how)
    said(f"it takes {foreign.layout} with D = {foreign.dim}")
    return report_on(name, laws, foreign, only, skip)
