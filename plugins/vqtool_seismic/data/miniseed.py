"""Continuous seismograms: miniSEED, SAC or whatever else ObsPy reads, from a file, a folder or an SDS tree."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal

from annotated_doc import Doc
from annotated_types import Ge, Gt, Interval

from vqtool_seismic.continuous import ContinuousRecords
from vqtool_seismic.seismograms import Seismograms
from vqtool_seismic.splits import By
from vqtool_seismic.windows import Cut


class Miniseed(Seismograms):
    """Reads headers first and samples when they are needed, so an archive may be larger than memory.

    The components of one instrument belong together; where one of them has a gap the record is cut. Samples that are
    not numbers are a gap too, except that a straight line bridges one or two of them; both are counted. Without picks
    nothing is labelled. With them, half a minute before a P and the minute after it is a trace of its own.
    """

    def __init__(
        self,
        *,
        path: Annotated[Path, Doc("a file, a folder (with all below it) or an SDS tree")],
        picks: Annotated[Path | None, Doc("arrivals in QuakeML or a .csv table")] = None,
        window: Annotated[int, Ge(64), Doc("samples of a window")] = 2880,
        shortest: Annotated[
            Annotated[int, Ge(1)] | None,
            Doc("traces shorter than a window keep their length, from so many samples on; left out: half a window"),
        ] = None,
        sample_rate: Annotated[float, Gt(0), Doc("in Hz; records of another rate are resampled")] = 100.0,
        frame: Annotated[int, Ge(1), Doc("samples that a label stands for, best the encoder's stride")] = 32,
        level: Annotated[
            float, Ge(0), Doc("seconds about a window whose mean and deviation standardise it; 0: the window's own")
        ] = 90.0,
        split: Annotated[
            Literal["auto", "station", "trace"], Doc("what is held out; auto: stations, if there are enough")
        ] = "auto",
        valid_share: Annotated[float, Interval(gt=0, lt=0.5), Doc("of the stations or traces, for validation")] = 0.1,
        test_share: Annotated[float, Interval(gt=0, lt=0.5), Doc("of the stations or traces, held out")] = 0.2,
        seed: Annotated[int, Doc("of the split and of where the held-out windows begin")] = 0,
        labelled: Annotated[
            Literal["three-component", "any"], Doc("which traces are labelled by phase; all of them train")
        ] = "three-component",
        components: Annotated[
            dict[str, Literal["Z", "N", "E"]] | None,
            Doc("Z, N or E of channels without a SEED code, by their names (or their files', where they have none)"),
        ] = None,
    ) -> None:
        cut = Cut(window, sample_rate, frame, max(window, round(level * sample_rate)), labelled == "three-component",
                  shortest)  # fmt: skip
        source = ContinuousRecords(path, sample_rate, picks, components)
        by: By = split
        super().__init__(source, cut, by=by, valid_share=valid_share, test_share=test_share, seed=seed)
