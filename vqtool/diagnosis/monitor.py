"""Watching the codebooks of any model in a training loop of one's own: `vqtool.CodebookMonitor`."""

from __future__ import annotations

import warnings
from collections import deque
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.distributed as dist
from torch import Tensor, nn

from vqtool.diagnosis.diagnosis import Diagnosis, diagnosis_of
from vqtool.diagnosis.findings import diagnosed
from vqtool.diagnosis.measures import decibels, perplexity, usage_row
from vqtool.diagnosis.news import News, StopOn, UnhealthyError, keys
from vqtool.diagnosis.reading import codebook
from vqtool.diagnosis.report import Finding, Report
from vqtool.errors import VqtoolError
from vqtool.foreign.modules import LiveCodebook, candidates, quantizers_of, unwrapped
from vqtool.foreign.outlets import is_whole
from vqtool.foreign.taps import Counter, Gate, Tap

TOKENS = 10  # per code that a look wants to have counted
STEPS = 10  # the fewest steps before a look whose codes are counted
REMEMBERED = 400  # looks that trends are read from
RISING = 1.1  # times the perplexity of the look before: the codebook is recovering, or still finding its places
WARM = 5  # looks in which codes that were never chosen may still find their places
FALLEN = 0.7  # of its highest perplexity: codes that were in use are not any more
OF_USE = ("collapse", "dead-level", "dead-codes")  # findings that wait for as long as that goes on


class Findings(list[Finding]):
    """What is new at a look; empty where nothing is. Prints as one paragraph for each finding."""

    def __str__(self) -> str:
        return "\n".join(map(str, self))


class CodebookMonitor:
    """Watches the codebooks of a model that trains in a loop of your own, and reports what goes wrong with them.

    ```python
    monitor = vqtool.CodebookMonitor(model, every=200)
    for step, x in enumerate(loader):
        ...  # one training step
        if found := monitor.look(step):
            print(found)
    ```

    Codes are counted on the device by forward hooks, in the last steps before every `every`-th step alone: as many as
    give 10 tokens for each code, at least 10. Only then is anything copied to the host. Passes in evaluation mode and
    the second pass of activation checkpointing are not counted; where torch.distributed is in use, the counts of all
    ranks are added up. A model that is compiled must get its monitor before its first pass.

    Args:
        model: any module that trains; without one, codes come by `add`.
        every: steps between two looks.
        codebooks: names, and where their vectors are: `{"vq": "quantize.embedding"}`, an nn.Embedding, a parameter or a
            buffer. By default the quantizers of vqtool, vector-quantize-pytorch, EnCodec, DAC, Mimi, VQGAN and others
            are found by the names and shapes of their tensors.
        modules: quantizers of one's own, by path or as they are; as a table with the number of their codes,
            `{"vq": 512}`, where a module has none of the usual attributes for it.
        stop_on: "fail" or "warn": `look` raises `UnhealthyError` where a finding of this severity, or a worse one, is
            there at two looks in a row.

    Raises:
        VqtoolError: the model has no quantizer, and the error lists modules that may be meant; also by the first `look`
            after a pass, where the codes of none can be seen.
    """

    def __init__(
        self, model: nn.Module | None = None, *, every: int = 200, codebooks: Mapping[str, str] | None = None,
        modules: Sequence[str | nn.Module] | Mapping[str, int] | None = None, stop_on: StopOn | None = None,
    ) -> None:  # fmt: skip
        if every < 1 or stop_on not in (None, "warn", "fail"):
            raise VqtoolError(f'every={every!r}, stop_on={stop_on!r}: 1 or more, and "warn" or "fail"')
        self.model, self.every = model, every
        self.news, self.gate = News(stop_on), Gate()
        self.books: list[LiveCodebook] = []
        self.taps: list[Tap] = []
        if model is not None:
            found = quantizers_of(model, codebooks, modules)
            self.books, self.taps = list(found.books), [Tap(outlet, self.gate) for outlet in found.outlets]
        self.sources: dict[int, tuple[Counter, int]] = {}  # of each codebook its counter, and its place there
        self.step: int | None = None  # of the last call of `look`
        self.rows: deque[dict[str, Any]] = deque(maxlen=REMEMBERED)
        self.counts: dict[str, np.ndarray] = {}  # [K] of the last look
        self.before: dict[int, Tensor] = {}  # what training moves of each codebook, at the last look
        self.even: dict[str, list[float]] = {}  # the perplexity of each codebook at every look
        self.silent = False  # whether it was said that nothing is counted

    def look(self, step: int) -> Findings:
        """Call it after every training step with the step's number: what is new, at every `every`-th step.

        Raises:
            UnhealthyError: there is what the monitor is to stop for.
            VqtoolError: passes went through the quantizers, and no codes came out of any.
        """
        self._choose()
        before = step - 1 if self.step is None else self.step
        self.step, found = step, Findings()
        due = step > 0 and step // self.every > before // self.every
        if due:
            found += self._look(step)
        opens = step + max(step - before, 1) > (step // self.every + 1) * self.every - self._window()
        if due or (opens and not self.gate.open):
            for counter in self._counters():
                counter.clear()
        self.gate.open = opens
        if due and self.news.ill is not None:
            raise UnhealthyError(self.news.ill, f"step {step}")
        return found

    @torch.no_grad()
    def add(self, name: str, codes: Tensor, latents: Tensor | None = None, *, size: int | None = None,
            vectors: Tensor | None = None) -> None:  # fmt: skip
        """Count codes by hand, where hooks cannot see them; call it in every training step, before `look`.

        Args:
            name: of the codebook, "level0", ...
            codes: whole numbers of any shape; those below 0 are none.
            latents: what was quantized, [..., D] of as many tokens; together with `vectors` its error is measured.
            size: how many codes K the codebook has; needed with the first call, or `vectors`.
            vectors: the codebook [K, D].

        Raises:
            VqtoolError: `codes` are not whole numbers, or the codebook's size is not known.
        """
        if not is_whole(codes):
            raise VqtoolError(f"`{name}`: codes are a tensor of whole numbers, at least one")
        q = next((q for q, book in enumerate(self.books) if book.name == name), None)
        if q is None:
            size = size if size is not None else len(vectors) if vectors is not None else None
            if size is None:
                raise VqtoolError(f"how many codes has `{name}`?", hint=f'monitor.add("{name}", codes, size=1024)')
            q = len(self.books)
            unit = "level" if name.startswith("level") else ""
            self.books.append(LiveCodebook(name, size, unit, lambda: None, lambda: None))
        counter, _ = self.sources.setdefault(q, (Counter((self.books[q].size,)), 0))
        if self.gate.open:
            counter.add([codes])
            if latents is not None and vectors is not None:
                chosen = nn.functional.embedding(codes.clamp(0, len(vectors) - 1).reshape(-1), vectors)
                counter.compare(latents.reshape(chosen.shape), chosen)

    def figures(self) -> dict[str, float]:
        """What the last look measured, for W&B or TensorBoard: `codes.used`, `codes.perplexity.level3`, ..."""
        return {k: v for k, v in self.rows[-1].items() if k not in ("step", "split")} if self.rows else {}

    def report(self) -> Diagnosis:
        """The whole diagnosis of the last look, with the code vectors as they are now: `print` it, or `.to_html(path)`.

        Measuring the vectors takes a second for codebooks of 8192; `look` does not do it.
        """
        counts = self.counts or self._counted()
        return diagnosis_of(self._report(counts, [book.vectors() for book in self.books]))

    def close(self) -> None:
        """Take the hooks away."""
        for tap in self.taps:
            tap.close()

    def __enter__(self) -> CodebookMonitor:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    # --- where codes come from ---------------------------------------------------------------------------------------

    def _counters(self) -> list[Counter]:
        return [*(tap.counter for tap in self.taps), *(counter for counter, _ in self.sources.values())]

    def _choose(self) -> None:
        """Take for each codebook the first outlet that gave its codes, and close those that nobody needs."""
        for q in range(len(self.books)):
            if q not in self.sources:
                tap = next((t for t in self.taps if q in t.outlet.books and t.counter.counts), None)
                if tap is not None:
                    self.sources[q] = tap.counter, tap.outlet.books.index(q)
        if self.model is not None and not self.sources and any(tap.called and tap.outlet.near for tap in self.taps):
            where = ", ".join(dict.fromkeys(f"`{t.outlet.path}`" for t in self.taps if t.called and t.outlet.near))
            raise VqtoolError(f"no codes came out of {where}", hint=candidates(self.model))
        used = {id(counter) for counter, _ in self.sources.values()}
        for tap in list(self.taps):
            if id(tap.counter) not in used and all(q in self.sources for q in tap.outlet.books):
                tap.close()
                self.taps.remove(tap)

    def _window(self) -> int:
        """The steps before a look whose codes are counted."""
        known = [(self.books[q].size, counter.per_pass) for q, (counter, _) in self.sources.items()]
        steps = max((-(-TOKENS * size // tokens) if tokens else self.every for size, tokens in known),
                    default=self.every)  # fmt: skip
        return min(max(steps, STEPS), self.every)

    # --- looking -----------------------------------------------------------------------------------------------------

    def _look(self, step: int) -> list[Finding]:
        counts = self._counted()
        if not any(n.any() for n in counts.values()):
            self._warn_of_nothing()
            return []
        before, rows = self.rows[-1]["step"] if self.rows else None, self._rows()
        row = usage_row(counts) | {f"codes.used.{name}": float((n > 0).mean()) for name, n in counts.items()}
        more = [(self._moved(rows) if self.rows else {}) | self._error()]
        if in_ranks():
            dist.broadcast_object_list(more, 0)  # so that all ranks find the same
        self.rows.append({"step": step, "split": "train", **row, **more[0]})
        self.before, self.counts = rows, counts
        for name, n in counts.items():
            self.even.setdefault(name, []).append(perplexity(n))
        broken = {q for q, table in rows.items() if not bool(table.isfinite().all())}
        vectors = [book.vectors() if q in broken else None for q, book in enumerate(self.books)]
        report = diagnosed(self._report(counts, vectors))
        found = self.news.of(report.findings, lambda f: f.id in OF_USE and self._settles(f))
        since = "from the first look on" if before is None else f"not yet at step {before:,}"
        return [f if f.step is not None else replace(f, step=step, changed=since) for f in found]

    def _settles(self, finding: Finding) -> bool:
        """Whether codebooks with a finding of use are on their way up, or may be: at the first look nobody knows."""
        where = {where for _, where in keys(finding)} if finding.where else self.even.keys()
        seen = [self.even[name] for name in where]
        if len(self.rows) == 1 or all(s[-1] > RISING * s[-2] for s in seen if len(s) > 1):
            return True
        starting = finding.id == "dead-codes" and len(self.rows) <= WARM
        return starting and not any(s[-1] < FALLEN * max(s) for s in seen)

    def _counted(self) -> dict[str, np.ndarray]:
        """The counts [K] of every codebook over all ranks, in one copy from the device."""
        own = self.model.parameters() if self.model is not None else ()
        tensors = (*(c.counts[0] for c, _ in self.sources.values() if c.counts), *own)
        device = tensors[0].device if tensors else torch.device("cpu")  # a rank without a pass sums zeros
        zeros = [torch.zeros(book.size + 2, dtype=torch.int64, device=device) for book in self.books]
        rows = [self._of(q)[1] for q in range(len(self.books))]
        flat = torch.cat([zero if row is None else row.to(device) for row, zero in zip(rows, zeros, strict=True)])
        if in_ranks():
            dist.all_reduce(flat)
        counted = np.split(flat.cpu().numpy(), np.cumsum([len(zero) for zero in zeros])[:-1])
        for book, counts in zip(self.books, counted, strict=True):
            if counts[-1]:
                raise VqtoolError(f"`{book.name}` has {book.size} codes, and {counts[-1]} were {book.size} or more",
                                  hint='modules={"PATH": K} says how many codes a module has')  # fmt: skip
        return {book.name: counts[1:-1] for book, counts in zip(self.books, counted, strict=True)}

    def _of(self, q: int) -> tuple[Counter | None, Tensor | None]:
        """The counter of a codebook, and its row there."""
        counter, place = self.sources.get(q, (None, 0))
        return counter, counter.counts[place] if counter is not None and counter.counts else None

    @torch.no_grad()
    def _rows(self) -> dict[int, Tensor]:
        """What training moves of each codebook, as it is now."""
        rows = {q: book.rows() for q, book in enumerate(self.books)}
        return {q: row.clone() for q, row in rows.items() if row is not None}

    @torch.no_grad()
    def _moved(self, now: Mapping[int, Tensor]) -> dict[str, float]:
        """The share of the codes chosen that moved since the last look, where a gradient reaches what chose them."""
        moved: dict[str, float] = {}
        for q, rows in now.items():
            counter, counts = self._of(q)
            old = self.before.get(q)
            if counter is None or counts is None or not counter.trained or old is None or old.shape != rows.shape:
                continue
            chosen = (counts[1:-1] > 0).to(rows.device)
            changed = (rows != old.to(rows.device)).flatten(1).any(1)
            moved[f"codes.moved.{self.books[q].name}"] = float((changed & chosen).sum() / chosen.sum().clamp_min(1))
        return moved

    def _error(self) -> dict[str, float]:
        """The squared error of quantizing: what the last level leaves, or the mean of codebooks beside each other."""
        sums = [counter.errors for q, (counter, _) in sorted(self.sources.items()) if counter.errors is not None]
        if not sums:
            return {}
        each = [s[:2].double().cpu().numpy() / float(s[2]) for s in sums]
        levels = all(book.unit == "level" for book in self.books)
        power = each[0][0] if levels else float(np.mean([e[0] for e in each]))
        error = each[-1][1] if levels else float(np.mean([e[1] for e in each]))
        return {"commitment": float(error), "codes.snr_db": decibels(float(power), float(error))}

    def _report(self, counts: Mapping[str, np.ndarray], vectors: Sequence[np.ndarray | None]) -> Report:
        row = self.figures()
        books = tuple(codebook(book.name, book.size, counts.get(book.name), vectors[q], row)
                      for q, book in enumerate(self.books))  # fmt: skip
        unit = next((book.unit for book in self.books if book.unit), "codebook")
        quantizer = {"names": [b.name for b in self.books], "sizes": [b.size for b in self.books], "noun": unit}
        name = type(unwrapped(self.model)).__name__ if self.model is not None else "codes"
        steps = f"the training steps up to {self.step}" if self.step is not None else "training"
        return Report(Path(name), steps, max((int(n.sum()) for n in counts.values()), default=0), books, row,
                      list(self.rows), {}, {"quantizer": quantizer, "step": self.step})  # fmt: skip

    def _warn_of_nothing(self) -> None:
        """Say once that no codes were counted, and why; that is as it should be where quantizers are bypassed."""
        if self.silent or any(getattr(tap.outlet.module, "bypass", 0) == 1 for tap in self.taps):
            return
        self.silent = True
        why = "no training pass went through the quantizers. A compiled model needs its monitor before its first pass"
        if any(tap.evaluated for tap in self.taps):
            why = "every pass through the quantizers was in evaluation mode"
        warnings.warn(f"CodebookMonitor: no codes were counted in {self.every} steps: {why}", stacklevel=4)


def in_ranks() -> bool:
    """Whether this process is one of several that train together."""
    return dist.is_available() and dist.is_initialized() and dist.get_world_size() > 1


class Watching:
    """What the callbacks of training libraries share: a monitor from the start of training on, and its warnings.

    Args:
        every: optimizer steps between two looks.
        codebooks: as for `CodebookMonitor`.
        modules: as for `CodebookMonitor`, by path in the model.
        stop_on: "fail" or "warn": training stops where a finding of this severity, or a worse one, is there at two
            looks in a row.
    """

    def __init__(
        self, *, every: int = 200, codebooks: Mapping[str, str] | None = None,
        modules: Sequence[str | nn.Module] | Mapping[str, int] | None = None, stop_on: StopOn | None = None,
    ) -> None:  # fmt: skip
        self.options: dict[str, Any] = {"every": every, "codebooks": codebooks, "modules": modules, "stop_on": stop_on}
        self.monitor: CodebookMonitor | None = None
        self.figures: dict[str, float] = {}  # of a look, where they are logged later

    def watch(self, model: nn.Module) -> None:
        """Find the quantizers of a model, once they are where they train."""
        self.monitor = CodebookMonitor(model, **self.options)

    def looked(self, step: int, *, shows: bool) -> tuple[dict[str, float], bool]:
        """After a step: the figures of a look, empty where none was due, and whether training is to stop."""
        assert self.monitor is not None
        before, stop = len(self.monitor.rows), False
        try:
            for finding in self.monitor.look(step):
                if shows:
                    warnings.warn(f"step {step}: {finding}", stacklevel=3)
        except UnhealthyError as error:
            stop = True
            warnings.warn(str(error), stacklevel=3)
        return self.monitor.figures() if len(self.monitor.rows) > before else {}, stop

    def release(self) -> None:
        """Take the hooks away; `monitor` still has its report."""
        if self.monitor is not None:
            self.monitor.close()
