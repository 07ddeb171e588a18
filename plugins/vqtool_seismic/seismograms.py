"""What all seismic data sets share: windows of traces in splits, and random crops to train on."""

from __future__ import annotations

from collections import Counter

import torch

from vqtool.api import Batch, Data, Rows
from vqtool.errors import VqtoolError
from vqtool_seismic.messages import in_brackets
from vqtool_seismic.phases import PHASES
from vqtool_seismic.splits import SPLITS, By, divided
from vqtool_seismic.traces import Held, Source, Trace
from vqtool_seismic.user_file import SeismogramFiles
from vqtool_seismic.windows import Cut, Windows, described

BOTH = "dev+test"  # all held-out stations together


class Seismograms(Data):
    """Windows `x` [3, L] of ground motion: components Z, N, E, each standardised by the `level` seconds about it.

    A batch also holds `phase` [T] (a label of `PHASES` for every frame, -1 where none is known), `event` (1: the window
    holds a P onset, 0: it is noise, -1: neither), `p` and `s` (samples after the window's begin, NaN where not picked),
    `live` [3] (which components are there), `scale` [3] (what they were divided by), `station` and `window` (the row).
    A trace shorter than a window goes on as its own mirror image; with `shortest` it is a shorter row, and `mask` [L]
    says which samples it has.
    """

    splits = (*SPLITS, BOTH)
    files = SeismogramFiles

    def __init__(self, source: Source, cut: Cut, *, by: By, valid_share: float, test_share: float, seed: int) -> None:
        self.cut, self.held = cut, Held(source)
        least = -(-cut.length // 2) if cut.shortest is None else cut.shortest
        usable = [trace for trace in source.traces if trace.samples >= least]
        skipped = Counter(source.skipped)
        if len(usable) < len(source.traces):
            short = "half a window" if cut.shortest is None else f"{least} samples"
            skipped[f"shorter than {short}"] += len(source.traces) - len(usable)
        if not usable:
            raise VqtoolError(f"there is no trace to read{in_brackets(skipped)}", where="[data] path")
        notes = list(source.notes)
        parts = divided(usable, by, valid_share, test_share, seed, notes)
        notes += [f"{count} traces skipped: {reason}" for reason, count in sorted(skipped.items())]
        stations = sorted({trace.station for trace in usable})
        parts[BOTH] = parts["valid"] + parts["test"]
        self._rows = {name: Windows(self.held, traces, stations, cut, seed=seed) for name, traces in parts.items()}
        self.notes = (_summary(parts, cut), *notes)
        metadata = {
            "frame": cut.frame,
            "level": cut.level,
            "skipped": dict(skipped),
            "traces": {n: len(t) for n, t in parts.items()},
        }
        self.spec = described(cut, stations, metadata)

    def rows(self, split: str) -> Rows:
        """The windows of `train`, `valid`, `test`, or of the last two together: `dev+test`."""
        if split not in self._rows:
            known = ", ".join(f"`{name}`" for name in self.splits)
            raise VqtoolError(f"there is no split `{split}`; there are {known}")
        return self._rows[split]

    def augment(self, batch: Batch, generator: torch.Generator) -> Batch:
        """Every window moved at random within its trace, so that no onset has a place of its own."""
        shares = torch.rand(len(batch["window"]), generator=generator, device=generator.device).tolist()
        return self._rows["train"].crops(batch["window"].tolist(), shares)


def _summary(parts: dict[str, list[Trace]], cut: Cut) -> str:
    each = ", ".join(
        f"{name} {len(traces)} of {len({t.station for t in traces})} stations" for name, traces in parts.items()
    )
    return f"traces: {each}; windows of {cut.length} samples at {cut.rate:g} Hz, labels {', '.join(PHASES)}"
