"""Arguments and options that several commands take, or whose declaration is long."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any, Literal

import typer

from vqtool import completion
from vqtool.files import as_output

MAX_STEPS = 100_000  # of a forecast: more is a typing error, and would fill the memory
DECILES = "0.1,0.2,0.3,0.4,0.5,0.6,0.7,0.8,0.9"


def repeated(*names: str, **details: Any) -> Any:
    """An option that may be given many times; an empty list where it is not."""
    return typer.Option(*names, default_factory=list, show_default=False, **details)


def written(*names: str, **details: Any) -> Any:
    """An option that names a file to write: a slash at its end is kept, since it means a folder."""
    return typer.Option(*names, parser=as_output, **details)


# --- what to read ----------------------------------------------------------------------------------------------------

Recipe = Annotated[Path, typer.Argument(metavar="RECIPE", help="The TOML file of a recipe.")]
Checkpoint = Annotated[Path, typer.Argument(metavar="CKPT", help="A checkpoint, or a run for its newest one.")]
InputFile = Annotated[
    Path | None,
    typer.Argument(metavar="INPUT", show_default=False, help="A file of signals, or a folder of files; - is stdin."),
]
CodesFile = Annotated[
    Path | None,
    typer.Argument(metavar="CODES", show_default=False, help="A file that `vqtool encode` wrote; - is stdin."),
]
NewestCheckpoint = Annotated[
    Path | None, typer.Argument(metavar="CKPT", help="A checkpoint or run; by default the newest under runs/.")
]
AnyModel = Annotated[
    Path | None,
    typer.Argument(
        metavar="MODEL",
        help="A checkpoint or run, any other file or folder of weights, or codes; by default the newest under runs/.",
    ),
]
EncodedData = Annotated[
    Path | None, typer.Option("--data", metavar="PATH", help="Encode the data at PATH instead of the recipe's.")
]
EncodedSplit = Annotated[
    str | None, typer.Option("--split", metavar="NAME", help="Encode this split; with --data, valid by default.")
]
CodesOfModel = Annotated[
    Path | None,
    typer.Option("--codes", metavar="FILE", help="Count use in these codes (.npy, .npz, .safetensors, .pt)."),
]
Layout = Annotated[
    str | None,
    typer.Option(
        "--layout", metavar="AXES", help="Axes of the codes: n sequences, q levels, else positions: nqt, ntq, nhw."
    ),
]
Sizes = Annotated[
    str | None, typer.Option("--sizes", metavar="K,...", help="Number of codes of each codebook; one for all.")
]
Vectors = Annotated[
    str | None, typer.Option("--vectors", metavar="REGEX", help="Names of the tensors that hold code vectors.")
]
Usage = Annotated[
    str | None, typer.Option("--usage", metavar="REGEX", help="Names of the tensors that count how codes are used.")
]
NewestForecaster = Annotated[
    Path | None,
    typer.Argument(metavar="CKPT", help="A checkpoint or run; by default the newest under runs/, else `forecaster`."),
]
DataPath = Annotated[
    Path | None, typer.Option("--data", metavar="PATH", help="Read data from PATH instead of the recipe's.")
]
RecipeOrRun = Annotated[
    Path | None,
    typer.Argument(
        metavar="RECIPE",
        help="The TOML file of a recipe, or a run to train again. Not needed with --from a model that has its own.",
    ),
]
Conformal = Annotated[
    bool, typer.Option("--conformal", help="Set the quantiles by how far past forecasts of this file were off.")
]
Explain = Annotated[bool, typer.Option("--explain", help="Show what each forecast is made of.")]
Method = Annotated[
    str | None,
    typer.Option(
        "--method", metavar="NAME", help="Forecast by a method that the model compares itself with, such as naive."
    ),
]
Anomalies = Annotated[
    int, typer.Option("--anomalies", min=0, metavar="N", help="Show the N values farthest outside their forecasts.")
]
Refit = Annotated[bool, typer.Option("--refit", help="Train the model again on the rows before each cutoff.")]
Split = Annotated[str | None, typer.Option("--split", metavar="NAME", help="Use only this held-out split.")]
SeriesFile = Annotated[
    Path | None,
    typer.Option("--data", metavar="FILE", help="The series (CSV, Excel, Parquet, ...); by default the training data."),
]
Cutoff = Annotated[str | None, typer.Option("--cutoff", metavar="TIME", help="Ignore the rows after this time.")]
Freq = Annotated[
    str | None, typer.Option("--freq", help="The time step, such as h, D or M; inferred from the file by default.")
]
Fill = Annotated[
    Literal["ffill", "interp"] | None,
    typer.Option("--fill", help="Fill gaps and missing values; by default they are an error."),
]

OwnInputs = Annotated[Path, typer.Argument(metavar="INPUT", help="A file of signals, or a folder of files.")]

# --- what to change --------------------------------------------------------------------------------------------------

Overrides = Annotated[
    list[str], repeated("--set", "-s", metavar="KEY=VALUE", help="Override a key of the recipe: quantizer.levels=4.")
]
DataOverrides = Annotated[
    list[str],
    repeated("--set", "-s", metavar="data.KEY=VALUE", help="Override how the file is read: data.time=when."),
]
Seed = Annotated[int | None, typer.Option("--seed", help="Seed to use instead of the recipe's.")]
Device = Annotated[
    Literal["auto", "cpu", "cuda", "mps"],
    typer.Option("--device", help="Device to compute on; auto prefers cuda, then mps, then cpu."),
]
Precision = Annotated[
    Literal["fp32", "bf16", "fp16"],
    typer.Option("--precision", help="Precision to compute in; codes are chosen in fp32."),
]


def machine(device: Device = "auto", precision: Precision = "fp32") -> None:
    """What a command that uses a model computes on, and how."""


StopOn = Annotated[
    Literal["warn", "fail"] | None,
    typer.Option(
        "--stop-on", help="Stop with exit code 3 when a finding this severe is seen in two consecutive checks."
    ),
]
Levels = Annotated[int | None, typer.Option("--levels", help="Use only the first levels of a residual quantizer.")]
RawRate = Annotated[
    int | None,
    typer.Option(
        "--raw", min=1, metavar="RATE", help="Stdin is samples without a header (16-bit, little-endian), RATE a second."
    ),
]
RawOutput = Annotated[
    bool, typer.Option("--raw", help="Write samples without a header (16-bit, little-endian) to stdout.")
]

# --- sampling --------------------------------------------------------------------------------------------------------

Temperature = Annotated[
    float | None, typer.Option("--temperature", min=0.0, metavar="F", help="Sampling temperature; 0 is greedy.")
]
TopK = Annotated[int | None, typer.Option("--top-k", min=1, metavar="N", help="Sample from the N most probable codes.")]
TopP = Annotated[
    float | None,
    typer.Option(
        "--top-p", min=0.0, max=1.0, metavar="F", help="Sample from the most probable codes that sum to this share."
    ),
]
SamplingSeed = Annotated[int, typer.Option("--seed", help="Seed for sampling.")]
Greedy = Annotated[bool, typer.Option("--greedy", help="Always take the most probable code: a single path.")]
PathCount = Annotated[
    int, typer.Option("--samples", min=1, max=10_000, metavar="N", help="Number of sample paths per series.")
]
Quantiles = Annotated[
    str, typer.Option("--quantiles", metavar="Q,Q,...", help="Quantiles to report, such as 0.1,0.5,0.9.")
]

# --- what to write ---------------------------------------------------------------------------------------------------

Force = Annotated[
    bool, typer.Option("--force", help="Overwrite existing files; vqtool's own codes and pages need no --force.")
]
OutFile = Annotated[Path, written("--out", metavar="FILE", help="File to write, or a folder for it.")]
OutDir = Annotated[
    Path | None, typer.Option("--out", "-o", metavar="DIR", help="Folder to write to; by default the checkpoint's.")
]
ForecastFile = Annotated[
    Path | None, written("--out", metavar="FILE", help="File to write the forecasts to (CSV or Parquet).")
]
ForecastPlot = Annotated[
    Path | None, written("--plot", metavar="FILE", help="Plot histories, medians and quantile fans (PNG).")
]
Sweep = Annotated[
    str | None, typer.Option("--sweep", metavar="KEY=A:B:STEP", help="Evaluate at every value from A to B.")
]
SweepPlot = Annotated[Path | None, written("--plot", metavar="FILE", help="Plot the sweep: .png, .svg or .pdf.")]
Axes = Annotated[str | None, typer.Option("--axes", metavar="X,Y", help="Plot metric Y over metric X.")]
ReportFile = Annotated[Path | None, written("--report", metavar="FILE.html", help="Write an interactive HTML report.")]
Against = Annotated[
    Path | None, typer.Option("--against", metavar="MODEL", help="Show what changed since this checkpoint or model.")
]
ReportPlot = Annotated[
    Path | None, written("--plot", metavar="FILE", help="Plot code use and code vectors: .png, .svg or .pdf.")
]
Tsne = Annotated[bool, typer.Option("--tsne", help="Lay out code vectors with t-SNE instead of PCA.")]

TableFile = Annotated[
    Path | None, written("--out", metavar="FILE.csv", help="File to write the table to; by default shown.")
]
NoiseSeed = Annotated[int, typer.Option("--seed", help="Seed for noise, where the model has any.")]

# --- convert and improve ---------------------------------------------------------------------------------------------

ConvertSource = Annotated[
    Path, typer.Argument(metavar="SOURCE", help="A model's file or folder; with --to a library, a checkpoint.")
]
ConvertTo = Annotated[
    Literal["vqtool", "encodec", "dac", "mimi", "vqgan", "vector-quantize-pytorch"],
    typer.Option("--to", help="What to convert to: vqtool, or the library that the quantizer came from."),
]
ConvertOut = Annotated[
    Path, typer.Option("--out", metavar="PATH", help="File to write; with --into a folder, a new folder.")
]
ConvertInto = Annotated[
    Path | None,
    typer.Option("--into", metavar="PATH", help="Write a copy of this model with this quantizer in it."),
]
ConvertPart = Annotated[
    str | None, typer.Option("--part", metavar="NAME", help="Which quantizer of the model, by its module's name.")
]
Latents = Annotated[
    Path | None,
    typer.Option("--latents", metavar="FILE", help="Latents (.npy, .npz) for a quantizer that was converted."),
]
LatentsLayout = Annotated[
    Literal["NDT", "NTD", "NDHW", "NHWD", "ND"] | None,
    typer.Option("--layout", case_sensitive=False, help="Axes of the latents; by default where D features fit."),
]


# --- of one command alone --------------------------------------------------------------------------------------------

RunFolder = Annotated[
    Path | None, typer.Option("--out", "-o", metavar="DIR", help="The run's folder; by default under runs/.")
]
StartingPoint = Annotated[
    Path | None,
    typer.Option("--from", metavar="CKPT", help="Start from the weights of this checkpoint or run."),
]
OnlyStage = Annotated[bool, typer.Option("--only", help="Train the stage of --stage alone, on the parts of --from.")]
FreshRoles = Annotated[
    list[str] | None,
    typer.Option("--fresh", metavar="ROLE", help="Start this part anew, whatever --from holds. Repeatable."),
]
ConstructorArguments = Annotated[
    list[str],
    repeated(
        "--arg",
        metavar="KEY=VALUE",
        help="Argument of the constructor; config.KEY=VALUE for a field of its configuration; may be repeated.",
    ),
]
LawsAlone = Annotated[list[str], repeated("--law", metavar="ID", help="Check this law only; may be repeated.")]
LawsSkipped = Annotated[list[str], repeated("--skip", metavar="ID", help="Leave this law out; may be repeated.")]
LatentsAxes = Annotated[
    str | None,
    typer.Option("--layout", help="Layout of its input: BTD, BDT, BDHW, ND, BHWD, BDTHW or BTHWD; else found."),
]
ForwardCall = Annotated[
    str | None, typer.Option("--forward", metavar="EXPR", help="How to call it, as 'm(x, mask=None)'.")
]
UpdateMethod = Annotated[
    str | None, typer.Option("--update", metavar="NAME", help="Method to call after each training step.")
]
DecodeMethod = Annotated[
    str | None, typer.Option("--decode", metavar="NAME", help="Method that decodes, or as 'm.decode(codes)'.")
]
ResumedRun = Annotated[
    Path | None, typer.Argument(metavar="RUN", help="A run's folder; by default the newest under runs/.")
]
VerifyTarget = Annotated[
    str,
    typer.Argument(
        metavar="ROLE|TARGET",
        help="A role, FILE.py:CLASS or package.module:CLASS.",
        autocompletion=completion.roles_with_laws,
    ),
]
VerifyKind = Annotated[
    str | None,
    typer.Argument(
        metavar="KIND", help="One kind of the role; by default all of them.", autocompletion=completion.kinds
    ),
]
BenchCase = Annotated[
    str | None,
    typer.Argument(
        metavar="CASE", help="What to measure; without it, the cases are listed.", autocompletion=completion.cases
    ),
]
BenchKinds = Annotated[
    list[str],
    typer.Argument(
        metavar="KIND",
        help="Kinds of quantizer to compare with each other.",
        autocompletion=completion.quantizers,
        default_factory=list,
        show_default=False,
    ),
]
MergeTwins = Annotated[
    bool, typer.Option("--merge", help="Also merge nearly identical codes, and re-initialise the freed ones.")
]
NoDiscriminator = Annotated[
    bool, typer.Option("--no-discriminator", help="Fine-tune, and write the checkpoint, without a discriminator.")
]
ImprovedFile = Annotated[
    Path | None, written("--out", metavar="FILE", help="File to write; by default beside the checkpoint.")
]
Conditions = Annotated[
    Path, typer.Option("--condition", metavar="FILE", help="The conditions to generate signals for.")
]
AnalysedSplit = Annotated[
    str | None, typer.Option("--split", metavar="NAME", help="Split to analyse; by default the held-out one.")
]
AnalysedLabel = Annotated[
    str | None,
    typer.Option("--label", metavar="NAME", help="Label of the data to use; by default that of frames."),
]
CodesFolder = Annotated[
    Path | None, typer.Option("--out", "-o", metavar="DIR", help="Write an HTML page and its plots to this folder.")
]
