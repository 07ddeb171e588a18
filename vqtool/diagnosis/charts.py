"""Drawings for the report's page as SVG text: training history with the findings marked, and signals."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from html import escape
from typing import Any

import numpy as np

from vqtool.diagnosis.report import Finding, Report
from vqtool.diagnosis.samples import thinned

WIDTH, HEIGHT = 320, 120  # of one chart, in units of its own
LEFT, RIGHT, TOP, BOTTOM = 6, 6, 14, 16
MOST_POINTS = 160  # of one line
MOST_CHARTS = 12  # of one stage
FIRST = ("loss", "codes.perplexity", "codes.used", "mse", "commitment")
NO_MEASURE = ("stage", "step", "split", "seconds")

Row = Mapping[str, Any]


def history(report: Report) -> str:
    """Every stage's measures over its steps, as small charts of their own; findings that began there are marked."""
    stages = list(dict.fromkeys(str(row["stage"]) for row in report.history if "stage" in row))
    marks = numbered_marks(report, stages)
    told = [stage_history(stage, [r for r in report.history if r.get("stage") == stage], marks) for stage in stages]
    key = '<p><span class="key train">training</span><span class="key valid">validation</span></p>'
    return (key + "".join(told)) if told else "<p>No training history: the checkpoint lies in no run's folder.</p>"


def numbered_marks(report: Report, stages: Sequence[str]) -> list[tuple[str, int, Finding]]:
    """(stage, number in the list of findings, finding) of those that tell when they began."""
    last = str(report.about.get("stage") or (stages[-1] if stages else ""))
    return [(f.where if f.where in stages else last, number, f)
            for number, f in enumerate(report.findings, 1) if f.step is not None]  # fmt: skip


def stage_history(stage: str, rows: Sequence[Row], marks: Sequence[tuple[str, int, Finding]]) -> str:
    """One stage's heading and charts."""
    names = list(dict.fromkeys(name for row in rows for name, value in row.items()
                               if name not in NO_MEASURE and isinstance(value, int | float)))  # fmt: skip
    names = [n for n in FIRST if n in names] + [n for n in names if n not in FIRST]
    here = [(number, finding) for where, number, finding in marks if where == stage]
    drawn = [chart(name, rows, here) for name in names[:MOST_CHARTS]]
    more = [chart(name, rows, here) for name in names[MOST_CHARTS:]]
    rest = f'<details><summary>{len(more)} more</summary><div class="grid">{"".join(more)}</div></details>'
    return f'<h3>Stage {escape(stage)}</h3><div class="grid">{"".join(drawn)}</div>{rest if more else ""}'


def chart(name: str, rows: Sequence[Row], marks: Sequence[tuple[int, Finding]]) -> str:
    """One measure over the steps of a stage: training as a line, validation as a line with dots."""
    lines = {split: line_of(name, rows, split) for split in ("train", "valid")}
    points = [p for line in lines.values() for p in line if math.isfinite(p[1])]
    if not points:
        return (f'<figure class="chart"><figcaption><b>{escape(name)}</b> '
                f"<span>not one finite value</span></figcaption></figure>")  # fmt: skip
    steps, values = [p[0] for p in points], [p[1] for p in points]
    low, high = min(values), max(values)
    logarithmic = low > 0 and high / low > 100
    axis = Axis(0, max(max(steps), 1), low, high, logarithmic)
    body = [f'<path class="{split}" d="{path(axis.at(line))}"/>' for split, line in lines.items() if line]
    body += [f'<circle class="valid" cx="{x:.1f}" cy="{y:.1f}" r="1.8"/>'
             for part in axis.at(lines["valid"]) for x, y in part]  # fmt: skip
    body += [mark(axis.x(finding.step or 0), number, finding) for number, finding in marks]
    body.append(f'<text x="{LEFT}" y="{HEIGHT - 4}">{number_text(low)}</text>')
    body.append(f'<text x="{LEFT}" y="10">{number_text(high)}{" (log)" if logarithmic else ""}</text>')
    body.append(f'<text x="{WIDTH - RIGHT}" y="{HEIGHT - 4}" text-anchor="end">step {max(steps):,.0f}</text>')
    last = (lines["valid"] or lines["train"])[-1][1]
    told = f"{escape(name)} over the steps, from {number_text(values[0])} to {number_text(last)}"
    return (
        f'<figure class="chart"><figcaption><b>{escape(name)}</b> <span>{number_text(last)}</span></figcaption>'
        f'<svg viewBox="0 0 {WIDTH} {HEIGHT}" role="img" aria-label="{told}">{"".join(body)}</svg></figure>'
    )


class Axis:
    """Where a step and a value lie in a chart."""

    def __init__(self, first: float, last: float, low: float, high: float, logarithmic: bool) -> None:
        self.first, self.last = first, last
        self.scale = math.log if logarithmic else float
        self.low, self.high = self.scale(low), self.scale(high)
        if self.high == self.low:
            self.low, self.high = self.low - 0.5, self.high + 0.5

    def x(self, step: float) -> float:
        """From the left."""
        along = (step - self.first) / (self.last - self.first)
        return LEFT + min(max(along, 0), 1) * (WIDTH - LEFT - RIGHT)

    def y(self, value: float) -> float:
        """From the top."""
        share = (self.scale(value) - self.low) / (self.high - self.low)
        return TOP + (1 - share) * (HEIGHT - TOP - BOTTOM)

    def at(self, line: Iterable[tuple[float, float]]) -> list[list[tuple[float, float]]]:
        """The points of a line, broken where a value is not finite."""
        parts: list[list[tuple[float, float]]] = [[]]
        for step, value in line:
            if math.isfinite(value):
                parts[-1].append((self.x(step), self.y(value)))
            elif parts[-1]:
                parts.append([])
        return [part for part in parts if part]


def line_of(name: str, rows: Sequence[Row], split: str) -> list[tuple[float, float]]:
    """(step, value) of a measure; of very many rows every so many."""
    mine = [r for r in rows if r.get("split", "train") == split and isinstance(r.get(name), int | float)]
    every = -(-len(mine) // MOST_POINTS) or 1
    kept = mine[::every] + (mine[-1:] if (len(mine) - 1) % every else [])
    return [(float(r.get("step", 0)), float(r[name])) for r in kept]


def path(parts: Iterable[Sequence[tuple[float, float]]]) -> str:
    """An SVG path through each part's points."""
    return "".join("M" + "L".join(f"{x:.1f} {y:.1f}" for x, y in part) for part in parts)


def mark(x: float, number: int, finding: Finding) -> str:
    """The step at which a finding began, by its number in the list of findings."""
    title = escape(
        f"{number}: {finding.id} from step {finding.step}" + (f", {finding.changed}" * bool(finding.changed))
    )
    text = min(x + 2, WIDTH - 12)
    return (f'<g class="mark {finding.severity}"><title>{title}</title>'
            f'<line x1="{x:.1f}" x2="{x:.1f}" y1="{TOP}" y2="{HEIGHT - BOTTOM}"/>'
            f'<text x="{text:.1f}" y="{TOP + 8}">{number}</text></g>')  # fmt: skip


def number_text(value: float) -> str:
    """A figure in few characters."""
    return f"{value:,.0f}" if float(value).is_integer() and abs(value) < 1e7 else f"{value:.4g}"


def signals(originals: np.ndarray, reconstructions: np.ndarray | None, unit: str) -> str:
    """Windows [R, C, L], each with its reconstruction drawn over it; one scale a window, one lane a channel."""
    figures = []
    for row, original in enumerate(originals):
        both = [original] if reconstructions is None else [original, reconstructions[row]]
        finite = np.concatenate([np.asarray(x, np.float64).ravel() for x in both])
        finite = finite[np.isfinite(finite)]
        low, high = (float(finite.min()), float(finite.max())) if finite.size else (0.0, 1.0)
        lanes = [
            f'<path class="{css}" d="{wave(channel, low, high, lane, len(original))}"/>'
            for x, css in zip(both, ("original", "rebuilt"), strict=False)
            for lane, channel in enumerate(x)
        ]
        told = f"{number_text(low)} to {number_text(high)} {unit}".strip()
        figures.append(
            f'<figure class="chart"><figcaption><b>window {row + 1}</b> <span>{escape(told)}</span></figcaption>'
            f'<svg viewBox="0 0 {WIDTH} {HEIGHT}" role="img" aria-label="window {row + 1} and its reconstruction">'
            f"{''.join(lanes)}</svg></figure>"
        )
    return f'<div class="grid">{"".join(figures)}</div>'


def wave(channel: np.ndarray, low: float, high: float, lane: int, lanes: int) -> str:
    """An SVG path of one channel [L] in its lane."""
    values = thinned(np.asarray(channel, np.float64), 2 * WIDTH)
    height, span = HEIGHT / lanes, (high - low) or 1.0
    x = np.linspace(LEFT, WIDTH - RIGHT, len(values))
    y = lane * height + height * (0.06 + 0.88 * (high - values) / span)
    keep = np.isfinite(y)
    return path([list(zip(x[keep], y[keep], strict=True))])
