"""Progress of a long computation: a bar on a terminal, plain lines elsewhere."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from typing import Any, TextIO

EVERY, FIRST = 10.0, 2.0  # seconds between two plain lines, and before the first
_shown: list[Progress] = []  # the innermost last


class Progress:
    """Counts silently; the base of the bar and of the lines."""

    def __init__(self, total: int | None, label: str, stream: TextIO | None = None) -> None:
        self.total = total
        self.label = label
        self.stream = stream
        self.done = self.before = 0

    def advance(self, n: int = 1, **figures: float | str) -> None:
        """`n` more are done; `figures` are shown beside, the last value of each."""
        self.done += n

    def begin_at(self, n: int) -> None:
        """`n` were done before: they say nothing about the rate."""
        self.done = self.before = n

    def expect(self, total: int | None) -> None:
        """Now it is known how many there are."""
        self.total = total

    def say(self, text: str) -> None:
        """A line for people that must not break the bar."""
        print(text, file=self.stream or sys.stderr, flush=True)

    @contextmanager
    def part(self, total: int | None, label: str) -> Iterator[Progress]:
        """The progress of a part of this computation, shown in the same way."""
        yield Progress(total, label, self.stream)


class Lines(Progress):
    """A plain line at most every ten seconds, and one at the end."""

    def __init__(
        self,
        total: int | None,
        label: str,
        stream: TextIO | None = None,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        super().__init__(total, label, stream)
        self._clock = clock
        self._began = self._reported = clock()
        self._reported_at = 0
        self._figures: dict[str, float | str] = {}

    def advance(self, n: int = 1, **figures: float | str) -> None:
        """Count, and print a line if enough time has passed."""
        super().advance(n)
        self._figures |= figures
        if self._clock() - self._reported >= (EVERY if self._reported_at else FIRST):
            self.report()

    @contextmanager
    def part(self, total: int | None, label: str) -> Iterator[Progress]:
        """Lines of its own, and none where it does not take long."""
        yield Lines(total, label, self.stream, self._clock)

    def report(self) -> None:
        """Print how far it is, unless that was the last line."""
        if self.done == self._reported_at:
            return
        self._reported, self._reported_at = self._clock(), self.done
        seconds = self._reported - self._began
        share = f"{self.done}/{self.total}" if self.total else str(self.done)
        rate = f"{(self.done - self.before) / seconds:.3g}/s" if seconds > 0 else ""
        self.say("  ".join(part for part in (f"{self.label} {share}", figures_text(self._figures), rate) if part))


class Bar(Progress):
    """A live bar, drawn by rich."""

    def __init__(self, total: int | None, label: str, drawn: Any) -> None:
        super().__init__(total, label)
        self._drawn = drawn
        self._task = drawn.add_task(label, total=total, figures="")
        self._figures: dict[str, float | str] = {}

    def begin_at(self, n: int) -> None:
        """The bar starts there."""
        super().begin_at(n)
        self._drawn.reset(self._task, completed=n)

    def expect(self, total: int | None) -> None:
        """Now it is known how many there are."""
        super().expect(total)
        self._drawn.update(self._task, total=total)

    @contextmanager
    def part(self, total: int | None, label: str) -> Iterator[Progress]:
        """A second bar, gone when the part is done."""
        bar = Bar(total, label, self._drawn)
        try:
            yield bar
        finally:
            self._drawn.remove_task(bar._task)

    def advance(self, n: int = 1, **figures: float | str) -> None:
        """Move the bar."""
        super().advance(n)
        self._figures |= figures
        self._drawn.update(self._task, advance=n, figures=figures_text(self._figures))

    def say(self, text: str) -> None:
        """A line above the bar."""
        from rich.text import Text

        self._drawn.console.print(Text.from_ansi(text), soft_wrap=True)


def figures_text(figures: dict[str, float | str]) -> str:
    """`loss 0.1234  mse 0.02`."""
    return "  ".join(f"{name} {value if isinstance(value, str) else f'{value:.4g}'}" for name, value in figures.items())


@contextmanager
def progress_of(total: int | None, label: str) -> Iterator[Progress]:
    """The progress of a part of what is going on, beside that of the whole; silent where none is shown."""
    with (_shown[-1] if _shown else Progress(None, "")).part(total, label) as part:
        yield part


@contextmanager
def progress_for(total: int | None, label: str, *, silent: bool, stream: TextIO) -> Iterator[Progress]:
    """The progress that suits the stream."""
    with ExitStack() as stack:
        if silent:
            shown = Progress(total, label, stream)
        elif not stream.isatty():
            shown = lines = Lines(total, label, stream)
            stack.callback(lines.report)
        else:
            shown = Bar(total, label, stack.enter_context(_live(stream)))
        _shown.append(shown)
        stack.callback(_shown.pop)
        yield shown


def _live(stream: TextIO) -> Any:
    """What draws bars on a terminal; lines of others come through `console.Foreign`, so rich need not catch them."""
    from rich import progress
    from rich.console import Console

    class Rate(progress.ProgressColumn):
        def render(self, task: progress.Task) -> str:
            return f"{task.speed:.3g}/s" if task.speed else ""

    columns = (
        progress.TextColumn("{task.description}", markup=False),
        progress.BarColumn(bar_width=None),
        progress.MofNCompleteColumn(),
        Rate(),
        progress.TimeElapsedColumn(),
        progress.TimeRemainingColumn(),
        progress.TextColumn("{task.fields[figures]}", markup=False),
    )
    console = Console(file=stream)
    return progress.Progress(*columns, console=console, transient=True, redirect_stdout=False, redirect_stderr=False)
