"""Options that several commands take or that need some lines, and the few values that some of them can have."""

from __future__ import annotations

from enum import StrEnum
from pathlib import Path
from typing import Annotated

import typer


class Severity(StrEnum):
    """From which finding on to stop."""

    warn = "warn"
    fail = "fail"


class Device(StrEnum):
    """Where to compute."""

    auto = "auto"
    cpu = "cpu"
    cuda = "cuda"
    mps = "mps"


class ExportFormat(StrEnum):
    """For whom to export."""

    onnx = "onnx"
    pt2 = "pt2"


class Filling(StrEnum):
    """What to put where a series has gaps."""

    ffill = "ffill"
    interp = "interp"


Overrides = Annotated[
    list[str] | None,
    typer.Option("--set", "-s", metavar="KEY=VALUE", help="Change a key of the recipe, as in quantizer.levels=4."),
]
DeviceOption = Annotated[Device, typer.Option("--device", help="Where to compute; auto takes cuda, mps, then cpu.")]
Seed = Annotated[int | None, typer.Option("--seed", help="In place of the recipe's seed.")]
Checkpoint = Annotated[Path, typer.Argument(metavar="CKPT", help="A checkpoint, or a run for its newest.")]
NewestCheckpoint = Annotated[
    Path | None, typer.Argument(metavar="CKPT", help="A checkpoint or run; the newest under runs/ by default.")
]
StopOn = Annotated[
    Severity | None, typer.Option("--stop-on", help="Save, stop and exit 3 where the watch finds this, twice in a row.")
]
Force = Annotated[
    bool, typer.Option("--force", help="Replace files that exist; vqtool's own codes and pages need no --force.")
]
DataPath = Annotated[Path | None, typer.Option("--data", metavar="PATH", help="In place of the recipe's data.")]
Levels = Annotated[int | None, typer.Option(help="Only the first levels of a residual quantizer.")]
Tsne = Annotated[bool, typer.Option("--tsne", help="Lay out code vectors by t-SNE, in place of PCA.")]
OutFile = Annotated[Path, typer.Option("--out", metavar="FILE", help="Where to write.")]
NewestForecaster = Annotated[
    Path | None,
    typer.Argument(metavar="CKPT", help="A checkpoint or run; the newest under runs/ that can forecast by default."),
]
SeriesFile = Annotated[
    Path | None, typer.Option("--data", metavar="FILE", help="The series (CSV, Parquet); the training data by default.")
]
DataOverrides = Annotated[
    list[str] | None,
    typer.Option("--set", "-s", metavar="data.KEY=VALUE", help="How to read the file, as in data.time=when."),
]
Cutoff = Annotated[
    str | None, typer.Option("--cutoff", metavar="TIME", help="As if the rows after this time did not exist.")
]
Freq = Annotated[str | None, typer.Option("--freq", help="The calendar's step, as h, D or M; inferred by default.")]
Fill = Annotated[Filling | None, typer.Option("--fill", help="Fill gaps and missing values, else an error.")]
FARTHEST = 100_000  # steps ahead: more is a slip of the finger, and would fill the memory
DECILES = "0.1,0.2,0.3,0.4,0.5,0.6,0.7,0.8,0.9"
Quantiles = Annotated[str, typer.Option("--quantiles", metavar="Q,Q,...", help="Between 0 and 1.")]
PathCount = Annotated[
    int, typer.Option("--samples", min=1, max=10_000, metavar="N", help="Sample paths for each series.")
]
Temperature = Annotated[
    float | None, typer.Option("--temperature", min=0.0, metavar="F", help="Of the sampling; 0 is greedy.")
]
TopK = Annotated[int | None, typer.Option("--top-k", min=1, metavar="N", help="Sample from the N likeliest codes.")]
TopP = Annotated[
    float | None, typer.Option("--top-p", min=0.0, max=1.0, metavar="F", help="Sample from the likeliest share.")
]
Greedy = Annotated[bool, typer.Option("--greedy", help="The likeliest codes, one path.")]
SamplingSeed = Annotated[int, typer.Option("--seed", help="Of the sampling.")]
ForecastFile = Annotated[Path | None, typer.Option("--out", metavar="FILE", help="Where to write (CSV, Parquet).")]
ForecastPlot = Annotated[
    Path | None, typer.Option("--plot", metavar="FILE", help="A picture of histories, medians and fans (PNG).")
]
Sweep = Annotated[
    str | None, typer.Option("--sweep", metavar="KEY=A:B:STEP", help="Evaluate at every value from A to B.")
]
SweepPlot = Annotated[Path | None, typer.Option("--plot", metavar="FILE", help="Draw the sweep: .png, .svg or .pdf.")]
Axes = Annotated[str | None, typer.Option("--axes", metavar="X,Y", help="Plot one metric over another.")]
ReportFile = Annotated[
    Path | None, typer.Option("--report", metavar="FILE.html", help="Write a page to click through.")
]
