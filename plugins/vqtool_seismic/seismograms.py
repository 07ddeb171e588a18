"""What all seismic data sets share: windows of traces in splits, and random crops to train on."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import torch

from vqtool.api import Batch, Coded, Data, DataSpec, Rows
from vqtool.errors import VqtoolError
from vqtool_seismic import stream
from vqtool_seismic.phases import PHASES
from vqtool_seismic.splits import SPLITS, By, divided
from vqtool_seismic.traces import Held, Source, Trace
from vqtool_seismic.windows import Cut, Windows, described

BOTH = "dev+test"  # all held-out stations together


class Seismograms(Data):
    """Windows `x` [3, L] of ground motion: components Z, N, E, each standardised by the `level` seconds about it.

    A batch also holds `phase` [T] (a label of `PHASES` for every frame, -1 where none is known), `event` (1: the window
    holds a P onset, 0: it is noise, -1: neither), `p` and `s` (samples after the window's begin, NaN where not picked),
    `live` [3] (which components are there), `scale` [3] (what they were divided by), `station` and `window` (the row).
    """

    splits = (*SPLITS, BOTH)

    def __init__(self, source: Source, cut: Cut, *, by: By, valid_share: float, test_share: float, seed: int) -> None:
        self.cut, self.held = cut, Held(source)
        usable = [trace for trace in source.traces if trace.samples * 2 >= cut.length]
        skipped = Counter(source.skipped)
        if len(usable) < len(source.traces):
            skipped["shorter than half a window"] += len(source.traces) - len(usable)
        if not usable:
            told = "; ".join(f"{count}: {reason}" for reason, count in skipped.items())
            raise VqtoolError("there is no trace to read" + (f" ({told})" if told else ""), where="[data] path")
        notes = list(source.notes)
        parts = divided(usable, by, valid_share, test_share, seed, notes)
        notes += [f"{count} traces skipped: {reason}" for reason, count in sorted(skipped.items())]
        stations = sorted({trace.station for trace in usable})
        parts[BOTH] = parts["valid"] + parts["test"]
        self._rows = {name: Windows(self.held, traces, stations, cut, seed=seed) for name, traces in parts.items()}
        self.notes = (_summary(parts, cut), *notes)
        about = {
            "frame": cut.frame,
            "level": cut.level,
            "skipped": dict(skipped),
            "traces": {n: len(t) for n, t in parts.items()},
        }
        self.spec = described(cut, stations, about)

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

    own_codes = True

    @classmethod
    def files_read(cls, path: Path, *, decode: bool = False) -> list[Path]:
        """Those that may hold waveforms, or those of a SeisBench folder."""
        return stream.files_read(path)

    @classmethod
    def read_chunks(cls, spec: DataSpec, path: Path) -> Iterator[tuple[Batch, dict[str, Any]]]:
        """Overlapping windows of continuous records or of a SeisBench folder, some minutes at a time; see `stream`."""
        return stream.read(spec, path)

    @classmethod
    def to_encode(
        cls, spec: DataSpec, path: Path, options: Mapping[str, Any], asked: Mapping[str, Any]
    ) -> Iterator[tuple[Batch, dict[str, Any]]]:
        """`read_chunks`, with the components of channels as `asked`, or as the training data's options say."""
        for name in asked.keys() - {"components"}:
            raise VqtoolError("files are encoded with no option but `components`", where=f"data.{name}")
        return stream.read(spec, path, (dict(options) | dict(asked)).get("components"))

    @classmethod
    def write_codes(cls, spec: DataSpec, path: Path, chunks: Iterator[Coded], about: Mapping[str, Any]) -> list[Path]:
        """One line or row a token, with its time: `.csv` or `.npz`; see `stream`."""
        return stream.write(spec, path, chunks, about)

    @classmethod
    def read_codes(cls, spec: DataSpec, path: Path, about: Mapping[str, Any]) -> tuple[dict[str, Any], Iterator[Coded]]:
        """An error: the tokens written for reading hold neither the level nor the overlap that decoding needs."""
        raise VqtoolError(f"the tokens in `{path}` are for reading: seismograms cannot be made of them again")


def _summary(parts: dict[str, list[Trace]], cut: Cut) -> str:
    each = ", ".join(
        f"{name} {len(traces)} of {len({t.station for t in traces})} stations" for name, traces in parts.items()
    )
    return f"traces: {each}; windows of {cut.length} samples at {cut.rate:g} Hz, labels {', '.join(PHASES)}"
