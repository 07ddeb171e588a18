"""The command line: every command's signature and help. Bodies live in `vqtool/commands` and are imported when run."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal

import typer

import vqtool.shared_options as opt
from vqtool import completion
from vqtool.command import add_plugin_commands, app, command, main

__all__ = ["app", "main"]


def version(shown: bool) -> None:
    """Print the version and stop."""
    if shown:
        import vqtool

        typer.echo(f"vqtool {vqtool.__version__}")
        raise typer.Exit


@app.callback()
def root(
    version: Annotated[
        bool, typer.Option("--version", callback=version, is_eager=True, help="Show the version and exit.")
    ] = False,
) -> None:
    """Vector quantization from one command line: train, evaluate and use what a recipe describes."""


@command("train")
def train(
    *,
    recipe: opt.RecipeOrRun = None,
    overrides: opt.Overrides,
    out_dir: opt.RunFolder = None,
    seed: opt.Seed = None,
    device: opt.Device = "auto",
    stage: Annotated[str | None, typer.Option("--stage", metavar="NAME", help="Stop after this stage.")] = None,
    only: opt.OnlyStage = False,
    start: opt.StartingPoint = None,
    fresh: opt.FreshRoles = None,
    stop_on: opt.StopOn = None,
) -> None:
    """Train every stage of a recipe. Held-out metrics are shown beside those of simple baselines.

    Codebooks are checked while training, as by `vqtool diagnose`; each finding is reported once.
    """


@command("train:resume")
def resume(
    run: opt.ResumedRun = None,
    data: opt.DataPath = None,
    device: opt.Device = "auto",
    stop_on: opt.StopOn = None,
    force: Annotated[bool, typer.Option("--force", help="Continue even if the data have changed.")] = False,
) -> None:
    """Continue a run where it stopped."""


@command("evaluate", opt.machine)
def evaluate(
    *,
    checkpoint: opt.NewestCheckpoint = None,
    data: opt.DataPath = None,
    overrides: opt.Overrides,
    sweep: opt.Sweep = None,
    plot: opt.SweepPlot = None,
    axes: opt.Axes = None,
    split: opt.Split = None,
    force: opt.Force = False,
) -> None:
    """Evaluate a checkpoint on held-out rows, beside simple baselines."""


@command("diagnose")
def diagnose(
    checkpoint: opt.AnyModel = None,
    codes: opt.CodesOfModel = None,
    layout: opt.Layout = None,
    sizes: opt.Sizes = None,
    vectors: opt.Vectors = None,
    usage: opt.Usage = None,
    data: opt.EncodedData = None,
    split: opt.EncodedSplit = None,
    against: opt.Against = None,
    report: opt.ReportFile = None,
    plot: opt.ReportPlot = None,
    tsne: opt.Tsne = False,
    strict: Annotated[bool, typer.Option("--strict", help="Exit with code 3 if a finding fails.")] = False,
    force: opt.Force = False,
    device: opt.Device = "auto",
) -> None:
    """Report how healthy codebooks are, why, and how to fix them: of vqtool's own runs and of any other model.

    Without --data or --split nothing is encoded: the counts of the last validation are read from the checkpoint.
    """


@command("improve")
def improve(
    checkpoint: opt.Checkpoint,
    data: opt.DataPath = None,
    latents: opt.Latents = None,
    layout: opt.LatentsLayout = None,
    merge: opt.MergeTwins = False,
    no_discriminator: opt.NoDiscriminator = False,
    steps: Annotated[int, typer.Option("--steps", min=0, metavar="N", help="Number of fine-tuning steps.")] = 200,
    out_file: opt.ImprovedFile = None,
    force: opt.Force = False,
    device: opt.Device = "auto",
) -> None:
    """Re-initialise dead codes from the data and fine-tune. Metrics before and after are shown."""


@command("convert")
def convert(
    source: opt.ConvertSource,
    to: opt.ConvertTo,
    out_file: opt.ConvertOut,
    into: opt.ConvertInto = None,
    part: opt.ConvertPart = None,
    force: opt.Force = False,
) -> None:
    """Convert a quantizer of another library to vqtool with the same codes, or back.

    Quantizers of EnCodec, DAC, Mimi, VQGAN and vector-quantize-pytorch become a checkpoint for `diagnose`, `encode` and
    `improve`.
    """


@command("generate", opt.machine)
def generate(
    *,
    checkpoint: opt.Checkpoint,
    condition: opt.Conditions,
    out_file: opt.OutFile,
    overrides: opt.DataOverrides,
    beam: Annotated[int | None, typer.Option("--beam", min=1, metavar="N", help="Beam search of this width.")] = None,
    temperature: opt.Temperature = None,
    top_k: opt.TopK = None,
    top_p: opt.TopP = None,
    samples: Annotated[int, typer.Option("--samples", min=1, metavar="N", help="Number of signals per condition.")] = 1,
    seed: opt.SamplingSeed = 0,
    force: opt.Force = False,
) -> None:
    """Generate signals for given conditions. The most probable codes are taken unless an option says to sample."""


def forecasting(
    *,
    checkpoint: opt.NewestForecaster = None,
    data: opt.SeriesFile = None,
    overrides: opt.DataOverrides,
    cutoff: opt.Cutoff = None,
    freq: opt.Freq = None,
    fill: opt.Fill = None,
    quantiles: opt.Quantiles = opt.DECILES,
    samples: opt.PathCount = 100,
    temperature: opt.Temperature = None,
    top_k: opt.TopK = None,
    top_p: opt.TopP = None,
    greedy: opt.Greedy = False,
    seed: opt.SamplingSeed = 0,
    out_file: opt.ForecastFile = None,
    force: opt.Force = False,
) -> None:
    """What `forecast` and `backtest` share."""


@command("forecast", forecasting, opt.machine)
def forecast(
    steps: Annotated[
        int, typer.Option("--steps", min=1, max=opt.MAX_STEPS, metavar="N", help="Number of time steps to forecast.")
    ],
    plot: opt.ForecastPlot = None,
    conformal: opt.Conformal = False,
    explain: opt.Explain = False,
    method: opt.Method = None,
) -> None:
    """Forecast series, in their own units and with their time stamps."""


@command("forecast:backtest", forecasting, opt.machine)
def backtest(
    horizon: Annotated[
        int, typer.Option("--horizon", min=1, max=opt.MAX_STEPS, metavar="N", help="Time steps ahead of each cutoff.")
    ],
    n_windows: Annotated[
        int, typer.Option("--n-windows", min=1, metavar="N", help="Number of cutoffs per series.")
    ] = 1,
    step_size: Annotated[
        int | None,
        typer.Option("--step-size", min=1, metavar="N", help="Rows between cutoffs; by default the horizon."),
    ] = None,
    anomalies: opt.Anomalies = 0,
    refit: opt.Refit = False,
) -> None:
    """Score forecasts from past cutoffs, beside simple baselines.

    The last window ends with the file; each of the others begins --step-size rows before the next.
    """


@command("encode", opt.machine)
def encode(
    *,
    checkpoint: opt.NewestCheckpoint = None,
    input_file: opt.InputFile = None,
    out_file: opt.OutFile,
    overrides: opt.DataOverrides,
    levels: opt.Levels = None,
    raw: opt.RawRate = None,
    force: opt.Force = False,
) -> None:
    """Encode signals to codes; `--out -` is stdout."""


@command("encode:decode")
def decode(
    *,
    checkpoint: opt.NewestCheckpoint = None,
    codes_file: opt.CodesFile = None,
    out_file: opt.OutFile,
    levels: opt.Levels = None,
    raw: opt.RawOutput = False,
    force: opt.Force = False,
    device: opt.Device = "auto",
) -> None:
    """Decode codes to signals, in their own units; `--out -` is stdout."""


@command("classify", opt.machine)
def classify(
    *,
    checkpoint: opt.Checkpoint,
    input_file: opt.OwnInputs,
    out_file: opt.TableFile = None,
    overrides: opt.Overrides,
    seed: opt.NoiseSeed = 0,
    force: opt.Force = False,
) -> None:
    """Classify pictures, sentences or other inputs: the likeliest class of each, as the model would be deployed."""


@command("export")
def export(
    checkpoint: opt.Checkpoint,
    to: Annotated[
        Literal["onnx", "pt2", "fp16"],
        typer.Option("--to", help="Format: ONNX, pt2 (torch.export), or fp16: a checkpoint of half the size."),
    ] = "onnx",
    out_dir: opt.OutDir = None,
    force: opt.Force = False,
) -> None:
    """Export a model to ONNX or torch.export, run and compared with PyTorch; or its checkpoint as float16.

    Encoder and decoder become files of their own; of a classifier the whole, or the two ends of its channel apart.
    """


@command("codes", opt.machine)
def codes(
    checkpoint: opt.Checkpoint,
    data: opt.DataPath = None,
    split: opt.AnalysedSplit = None,
    label: opt.AnalysedLabel = None,
    out_dir: opt.CodesFolder = None,
    tsne: opt.Tsne = False,
    force: opt.Force = False,
) -> None:
    """Show which codes stand for which labels, and how reliably.

    For data with a label for every frame or window. A code is claimed for a label only if enough groups (people,
    places, machines) support it. The probes are fitted on the training rows, or in folds over the groups.
    """


@command("verify")
def verify(
    *,
    target: opt.VerifyTarget,
    kind: opt.VerifyKind = None,
    arguments: opt.ConstructorArguments,
    laws: opt.LawsAlone,
    skip: opt.LawsSkipped,
    layout: opt.LatentsAxes = None,
    forward: opt.ForwardCall = None,
    update: opt.UpdateMethod = None,
    decode: opt.DecodeMethod = None,
    strict: Annotated[bool, typer.Option("--strict", help="Exit with 3 for cosmetic violations too.")] = False,
    seed: Annotated[int, typer.Option("--seed", help="Seed for the random inputs.")] = 0,
) -> None:
    """Check the laws of a quantizer or prior, and report violations. It may be any torch module.

    Violations are fatal, harmful or cosmetic; the first two end with exit code 3.
    """


@command("bench")
def bench(
    *,
    case: opt.BenchCase = None,
    kinds: opt.BenchKinds,
    device: opt.Device = "auto",
) -> None:
    """Measure speed and memory beside other libraries."""


@command("check")
def check(
    *,
    recipe: opt.Recipe,
    overrides: opt.Overrides,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Also build the parts and take one step.")] = False,
) -> None:
    """Check a recipe and report every problem at once."""


@command("new")
def new(
    name: Annotated[
        str, typer.Argument(metavar="NAME", help="Name or file of the new recipe, or `plugin` for a plugin.")
    ],
    plugin_name: Annotated[str | None, typer.Argument(metavar="PLUGIN", help="Name of the new plugin.")] = None,
    source: Annotated[
        str | None,
        typer.Option("--from", metavar="KIND", help="Shipped recipe to copy.", autocompletion=completion.recipes),
    ] = None,
) -> None:
    """Create a recipe from a shipped one, or a plugin. Nothing is overwritten.

    Sample data of a recipe are copied too. `vqtool new plugin NAME` writes a folder with a quantizer, a loss, a data
    set and tests that pass as written.
    """


@command("show")
def show(
    path: Annotated[
        Path, typer.Argument(metavar="FILE|RUN", help="A checkpoint, a run, codes, or any file or folder of weights.")
    ],
) -> None:
    """Show what a checkpoint, a run, codes or other tensors hold."""


@command("plugins")
def plugins(
    role: Annotated[
        str | None,
        typer.Argument(metavar="ROLE", help="List only this role, such as quantizer.", autocompletion=completion.roles),
    ] = None,
    name: Annotated[
        str | None,
        typer.Argument(metavar="NAME", help="Show the options of this kind.", autocompletion=completion.kinds),
    ] = None,
    timings: Annotated[bool, typer.Option("--timings", help="Show how long each plugin takes to import.")] = False,
) -> None:
    """List what a recipe can name, and which package provides it."""


@command("schema")
def schema() -> None:
    """Print the JSON Schema of recipes, installed plugins included."""


@command("help")
def help(
    topic: Annotated[str | None, typer.Argument(metavar="TOPIC", help="A page, or a command.")] = None,
) -> None:
    """Show a page of the documentation, or list the pages."""


add_plugin_commands()
