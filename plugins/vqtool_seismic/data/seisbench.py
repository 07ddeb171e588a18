"""Seismograms in the SeisBench format: a folder with metadata.csv and waveforms.hdf5, in one piece or in chunks."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal

from annotated_doc import Doc
from annotated_types import Ge, Gt, Interval

from vqtool_seismic.seisbench_folder import SeisBenchFolder
from vqtool_seismic.seismograms import Seismograms
from vqtool_seismic.splits import By
from vqtool_seismic.windows import Cut


class Seisbench(Seismograms):
    """Reads traces when they are needed, so a set may be larger than memory; h5py reads the format.

    Of the metadata it takes `trace_name`, the station's and network's codes, the sampling rate, the samples of P and S,
    `trace_category` (noise or not), `split`, and `trace_start_time` for the times of tokens.
    """

    def __init__(
        self,
        *,
        path: Annotated[Path, Doc("folder of the data set")],
        window: Annotated[int, Ge(64), Doc("samples of a window")] = 2880,
        shortest: Annotated[
            Annotated[int, Ge(1)] | None,
            Doc("traces shorter than a window keep their length, from so many samples on; left out: half a window"),
        ] = None,
        sample_rate: Annotated[float, Gt(0), Doc("in Hz; traces of another rate are resampled")] = 100.0,
        frame: Annotated[int, Ge(1), Doc("samples that a label stands for, best the encoder's stride")] = 32,
        level: Annotated[
            float, Ge(0), Doc("seconds about a window whose mean and deviation standardise it; 0: the window's own")
        ] = 90.0,
        split: Annotated[By, Doc("by the metadata's column, by station or by trace; auto: what works first")] = "auto",
        valid_share: Annotated[float, Interval(gt=0, lt=0.5), Doc("for validation, where no column says")] = 0.1,
        test_share: Annotated[float, Interval(gt=0, lt=0.5), Doc("held out, where no column says")] = 0.2,
        seed: Annotated[int, Doc("of the split and of where the held-out windows begin")] = 0,
        labelled: Annotated[
            Literal["three-component", "any"], Doc("which traces are labelled by phase; all of them train")
        ] = "three-component",
        components: Annotated[
            dict[str, Literal["Z", "N", "E"]] | None,
            Doc("Z, N or E of channels without a SEED code, by their names (or their files'), when files are encoded"),
        ] = None,
    ) -> None:
        cut = Cut(window, sample_rate, frame, max(window, round(level * sample_rate)), labelled == "three-component",
                  shortest)  # fmt: skip
        source = SeisBenchFolder(path, sample_rate)
        super().__init__(source, cut, by=split, valid_share=valid_share, test_share=test_share, seed=seed)
