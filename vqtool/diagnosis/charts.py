"""Drawings for the report's page as SVG text: training history with the findings marked, and signals."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from html import escape

import numpy as np

from vqtool.diagnosis.html_page import figure
from vqtool.diagnosis.samples import thinned
from vqtool.diagnosis.view import Card, Chart, Line, number_text

WIDTH, HEIGHT = 320, 120  # of one chart, in units of its own
LEFT, RIGHT, TOP, BOTTOM = 6, 6, 14, 16


def chart(shown: Chart, marks: Sequence[Card]) -> str:
    """One measure over the steps of a stage: training as a line, validation as a line with dots."""
    points = [point for line in (shown.train, shown.valid) for point in line if math.isfinite(point[1])]
    if not points:
        return figure(shown.name, "no finite value", "")
    steps, values = zip(*points, strict=True)
    low, high, last = min(values), max(values), max(max(steps), 1)
    logarithmic = low > 0 and high / low > 100
    axis = Axis(last, low, high, logarithmic)
    dots = [f'<circle class="valid" cx="{x:.1f}" cy="{y:.1f}" r="1.8"/>'
            for part in axis.parts(shown.valid) for x, y in part]  # fmt: skip
    body = [
        *(f'<path class="{split}" d="{path(axis.parts(line))}"/>'
          for split, line in (("train", shown.train), ("valid", shown.valid)) if line),
        *dots,
        *(mark(axis.x(card.finding.step or 0), card) for card in marks),
        f'<text x="{LEFT}" y="{HEIGHT - 4}">{number_text(low)}</text>',
        f'<text x="{LEFT}" y="10">{number_text(high)}{" (log)" if logarithmic else ""}</text>',
        f'<text x="{WIDTH - RIGHT}" y="{HEIGHT - 4}" text-anchor="end">step {last:,.0f}</text>',
    ]  # fmt: skip
    label = f"{shown.name} over the steps, from {number_text(values[0])} to {number_text(shown.last)}"
    return figure(shown.name, number_text(shown.last), svg(label, body))


def svg(label: str, body: Iterable[str]) -> str:
    """A drawing with a description for screen readers."""
    return f'<svg viewBox="0 0 {WIDTH} {HEIGHT}" role="img" aria-label="{escape(label)}">{"".join(body)}</svg>'


class Axis:
    """Where a step and a value lie in a chart of the steps from 0 to `last`."""

    def __init__(self, last: float, low: float, high: float, logarithmic: bool) -> None:
        self.last = last
        self.scale = math.log if logarithmic else float
        self.low, self.high = self.scale(low), self.scale(high)
        if self.high == self.low:
            self.low, self.high = self.low - 0.5, self.high + 0.5

    def x(self, step: float) -> float:
        """From the left."""
        return LEFT + min(max(step / self.last, 0), 1) * (WIDTH - LEFT - RIGHT)

    def y(self, value: float) -> float:
        """From the top."""
        return TOP + (self.high - self.scale(value)) / (self.high - self.low) * (HEIGHT - TOP - BOTTOM)

    def parts(self, line: Line) -> list[list[tuple[float, float]]]:
        """The points of a line, broken where a value is not finite."""
        parts: list[list[tuple[float, float]]] = [[]]
        for step, value in line:
            if math.isfinite(value):
                parts[-1].append((self.x(step), self.y(value)))
            elif parts[-1]:
                parts.append([])
        return [part for part in parts if part]


def path(parts: Iterable[Sequence[tuple[float, float]]]) -> str:
    """An SVG path through each part's points."""
    return "".join("M" + "L".join(f"{x:.1f} {y:.1f}" for x, y in part) for part in parts)


def mark(x: float, card: Card) -> str:
    """The step at which a finding began, by its number in the list of findings."""
    found = card.finding
    title = f"{card.number}: {found.id} from step {found.step}" + (f", {found.changed}" if found.changed else "")
    return (f'<g class="mark {found.severity}"><title>{escape(title)}</title>'
            f'<line x1="{x:.1f}" x2="{x:.1f}" y1="{TOP}" y2="{HEIGHT - BOTTOM}"/>'
            f'<text x="{min(x + 2, WIDTH - 12):.1f}" y="{TOP + 8}">{card.number}</text></g>')  # fmt: skip


def signals(originals: np.ndarray, reconstructions: np.ndarray | None, unit: str) -> list[str]:
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
        name = f"window {row + 1}"
        note = f"{number_text(low)} to {number_text(high)} {unit}".strip()
        figures.append(figure(name, note, svg(f"{name} and its reconstruction", lanes)))
    return figures


def wave(channel: np.ndarray, low: float, high: float, lane: int, lanes: int) -> str:
    """An SVG path of one channel [L] in its lane."""
    values = thinned(np.asarray(channel, np.float64), 2 * WIDTH)
    height, span = HEIGHT / lanes, (high - low) or 1.0
    x = np.linspace(LEFT, WIDTH - RIGHT, len(values))
    y = lane * height + height * (0.06 + 0.88 * (high - values) / span)
    keep = np.isfinite(y)
    return path([list(zip(x[keep], y[keep], strict=True))])
