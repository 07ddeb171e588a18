"""The share of rows whose likeliest class is the right one, on every path that a task scores."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping

from torch import Tensor

from vqtool.api import DataSpec, Metric


class Accuracy(Metric):
    """`accuracy`, or `accuracy.<path>` for scores that a task names, such as `accuracy.hard.<level>`.

    Where a level has both, `gap.<level>` is |soft - hard|: what a figure of the soft path promises beyond, or hides of,
    the deployed one. Labels of -1 (unknown) do not count.
    """

    def __init__(self, spec: DataSpec) -> None:
        super().__init__(spec)
        self.right: dict[str, int] = defaultdict(int)
        self.rows = 0

    def update(self, *, scores: Mapping[str, Tensor], label: Tensor) -> None:
        """`scores` logits [B, classes] by path, `label` [B] long."""
        known = label >= 0
        self.rows += int(known.sum())
        for name, logits in scores.items():
            self.right[name] += int((logits.argmax(-1) == label)[known].sum())

    def compute(self) -> Mapping[str, float]:
        """The figures named above, as fractions."""
        if not self.rows:
            return {}
        share = {name: right / self.rows for name, right in self.right.items()}
        figures = {f"accuracy.{name}".rstrip("."): value for name, value in share.items()}
        for name, value in share.items():
            path, _, level = name.partition(".")
            if path == "soft" and name.replace("soft", "hard", 1) in share:
                figures[f"gap.{level}".rstrip(".")] = abs(value - share[name.replace("soft", "hard", 1)])
        return figures
