"""What people watch while a stage trains: a line per validation, each figure with its best so far and where."""

from __future__ import annotations

import math
import operator
import re
from collections.abc import Callable, Collection, Mapping
from typing import Any

from vqtool.api.quantizer import Quantizer
from vqtool.api.task import Better
from vqtool.console import out
from vqtool.errors import VqtoolError
from vqtool.recipe.spec import TrainOptions

CODEBOOK = re.compile(r"codes\..+\.")  # a figure of one codebook: too many to list
Best = tuple[float, int]  # a value, and the step it was reached at
COMPARE: dict[str, Callable[[float, float], bool]] = {
    "<": operator.lt,
    "<=": operator.le,
    ">": operator.gt,
    ">=": operator.ge,
}


class Headline:
    """The figures of a stage that people watch, and the best of each so far.

    Args:
        stage: its name.
        steps: how many steps it has.
        figures: names of figures of validation rows; with each whether less ("min") or more ("max") is better, or None
            where neither is. Those that a row does not have are left out.
        quantizer: for the number of codes beside the perplexity.
    """

    def __init__(
        self, stage: str, steps: int, figures: Mapping[str, Better], quantizer: Quantizer | None = None
    ) -> None:
        self.stage, self.steps, self.figures = stage, steps, dict(figures)
        self.best: dict[str, Best] = {}
        sizes = quantizer.codebook_sizes if quantizer is not None else ()
        self.codes = sum(sizes) / len(sizes) if sizes else math.nan

    def show(
        self, step: int, row: Mapping[str, Any], knobs: Mapping[str, float], epoch: str, *, counts: bool = True
    ) -> None:
        """Print the line of a validation at a step, counted from 1; if it `counts`, for the best of each figure."""
        shown = [f"{self.stage} {step}/{self.steps}", epoch]
        for name, better in self.figures.items():
            value = row.get(name)
            if isinstance(value, int | float):
                shown.append(self.one(name, float(value), better if counts else None, step))
        shown += [f"{name.removeprefix('quantizer.')} {number(value)}" for name, value in knobs.items() if name != "lr"]
        out.say("  ".join(part for part in shown if part))

    def one(self, name: str, value: float, better: Better, step: int) -> str:
        """One figure, with its best so far and where that was, if it is not this one."""
        text = self.text(name, value)
        if better is None or math.isnan(value):
            return text
        best, where = self.best.get(name, (math.nan, 0))
        if math.isnan(best) or (value < best if better == "min" else value > best):
            self.best[name] = (value, step)
            return f"{text} (best)" if where else text
        return f"{text} (best {self.text(name, best, bare=True)} at {where})"

    def text(self, name: str, value: float, *, bare: bool = False) -> str:
        """A figure under the name that people know it by; `bare`, the figure alone."""
        label, form = FORMS.get(name, (name, number))
        figure = form(value)
        if bare:
            return figure
        return f"{label} {figure}" + (f"/{self.codes:.0f}" if name == "codes.perplexity" else "")


def number(value: float) -> str:
    """Four digits that count."""
    return f"{value:.4g}"


FORMS: dict[str, tuple[str, Callable[[float], str]]] = {  # the names that people know figures by, and their forms
    "codes.perplexity": ("perplexity", lambda value: f"{value:.0f}"),
    "codes.used": ("used", lambda value: f"{value:.0%}"),
    "output.snr_db": ("snr", lambda value: f"{value:.2f} dB"),
    "output.si_sdr_db": ("si-sdr", lambda value: f"{value:.2f} dB"),
}


def asked_figures(options: TrainOptions) -> dict[str, str]:
    """The figures of a validation that the options of a stage name, each with the option that does."""
    return dict.fromkeys(options.show, "show") | dict.fromkeys(options.stop_when, "stop_when") | {options.best: "best"}


def require_figures(options: TrainOptions, there: Collection[str], stage: str) -> None:
    """Refuse a name that is not among the figures of a validation.

    Raises:
        VqtoolError: it names the figure, its option and what there is.
    """
    for name, option in asked_figures(options).items():
        if name not in there:
            raise VqtoolError(
                f"`{option}` names `{name}`, which is not among the validation metrics",
                hint="one of " + ", ".join(sorted(one for one in there if not CODEBOOK.match(one))),
                where=f"stage `{stage}`",
            )


def holds(value: float, asked: str) -> bool:
    """Whether a value meets a condition of `stop_when`, such as "< 0.01"; NaN meets none."""
    sign, limit = re.fullmatch(r"\s*(<=|>=|<|>)\s*(.+?)\s*", asked).groups()  # type: ignore[union-attr]  # checked
    return COMPARE[sign](value, float(limit))


def set_knobs(given: Mapping[str, Any]) -> dict[str, float]:
    """Those of a stage's `set` that are numbers, for the rows of metrics.jsonl."""
    return {name: float(value) for name, value in given.items()
            if isinstance(value, int | float) and not isinstance(value, bool)}  # fmt: skip
