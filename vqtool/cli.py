"""The command line: every command's signature and help. Bodies live in `vqtool/commands` and are imported when run."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from vqtool import completion
from vqtool.command import app, command, main
from vqtool.shared_options import (
    DECILES,
    FARTHEST,
    Axes,
    Checkpoint,
    Cutoff,
    DataOverrides,
    DataPath,
    Device,
    DeviceOption,
    ExportFormat,
    Fill,
    Force,
    ForecastFile,
    ForecastPlot,
    Freq,
    Greedy,
    Levels,
    NewestCheckpoint,
    NewestForecaster,
    OutFile,
    Overrides,
    PathCount,
    Quantiles,
    ReportFile,
    SamplingSeed,
    Seed,
    SeriesFile,
    StopOn,
    Sweep,
    SweepPlot,
    Temperature,
    TopK,
    TopP,
    Tsne,
)

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
    recipe: Annotated[Path, typer.Argument(metavar="RECIPE", help="A recipe's TOML file.")],
    overrides: Overrides = None,
    out_dir: Annotated[
        Path | None, typer.Option("--out", "-o", metavar="DIR", help="The run's folder; under runs/ by default.")
    ] = None,
    seed: Seed = None,
    device: DeviceOption = Device.auto,
    stage: Annotated[str | None, typer.Option("--stage", metavar="NAME", help="Stop after this stage.")] = None,
    start: Annotated[
        Path | None, typer.Option("--from", metavar="CKPT", help="Begin with the parts of this checkpoint or run.")
    ] = None,
    stop_on: StopOn = None,
) -> None:
    """Train every stage of a recipe. Held-out figures are shown beside those of plain baselines.

    Codebooks are watched meanwhile, as by `vqtool diagnose`; what is found is warned of once.
    """


@command("train:resume")
def resume(
    run: Annotated[
        Path | None, typer.Argument(metavar="RUN", help="A run's folder; the newest under runs/ by default.")
    ] = None,
    data: DataPath = None,
    device: DeviceOption = Device.auto,
    stop_on: StopOn = None,
    force: Annotated[bool, typer.Option("--force", help="Go on even if the data changed since.")] = False,
) -> None:
    """Go on where a run stopped."""


@command("evaluate")
def evaluate(
    checkpoint: NewestCheckpoint = None,
    data: DataPath = None,
    overrides: Overrides = None,
    sweep: Sweep = None,
    plot: SweepPlot = None,
    axes: Axes = None,
    split: Annotated[str | None, typer.Option("--split", metavar="NAME", help="Only this held-out split.")] = None,
    force: Force = False,
    device: DeviceOption = Device.auto,
) -> None:
    """Measure a checkpoint on held-out rows, beside plain baselines."""


@command("diagnose")
def diagnose(
    checkpoint: NewestCheckpoint = None,
    data: Annotated[
        Path | None, typer.Option("--data", metavar="PATH", help="Encode these data, in place of the recipe's.")
    ] = None,
    split: Annotated[
        str | None, typer.Option("--split", metavar="NAME", help="Encode this split of the data; valid with --data.")
    ] = None,
    report: ReportFile = None,
    plot: Annotated[Path | None, typer.Option("--plot", metavar="FILE.png", help="Draw use and code vectors.")] = None,
    tsne: Tsne = False,
    strict: Annotated[bool, typer.Option("--strict", help="Exit 3 where something fails.")] = False,
    force: Force = False,
    device: DeviceOption = Device.auto,
) -> None:
    """Tell how healthy codebooks are, why, and what to do.

    Without --data or --split nothing is encoded: what the last validation counted is read from the checkpoint.
    """


@command("improve")
def improve(
    checkpoint: Checkpoint,
    data: DataPath = None,
    merge: Annotated[
        bool, typer.Option("--merge", help="Also make one of codes that are nearly the same, and free the others.")
    ] = False,
    steps: Annotated[
        int, typer.Option("--steps", min=0, metavar="N", help="Train the stage on for so many steps.")
    ] = 200,
    out_file: Annotated[
        Path | None, typer.Option("--out", metavar="FILE", help="Where to write; beside the checkpoint by default.")
    ] = None,
    force: Force = False,
    device: DeviceOption = Device.auto,
) -> None:
    """Give dead codes a new life where the data are, and train on. The figures before and after are shown."""


@command("generate")
def generate(
    checkpoint: Checkpoint,
    condition: Annotated[Path, typer.Option("--condition", metavar="FILE", help="What the signals are to follow.")],
    out_file: OutFile,
    beam: Annotated[int | None, typer.Option("--beam", min=1, metavar="N", help="Beam search of this width.")] = None,
    temperature: Annotated[
        float | None, typer.Option("--temperature", min=0.0, metavar="F", help="Sample; 0 is greedy, the default.")
    ] = None,
    top_k: Annotated[
        int | None, typer.Option("--top-k", min=1, metavar="N", help="Sample from the N likeliest codes.")
    ] = None,
    top_p: Annotated[
        float | None, typer.Option("--top-p", min=0.0, max=1.0, metavar="F", help="Sample from the likeliest share.")
    ] = None,
    samples: Annotated[int, typer.Option("--samples", min=1, metavar="N", help="Signals per condition.")] = 1,
    seed: Annotated[int, typer.Option("--seed", help="Of the sampling.")] = 0,
    force: Force = False,
    device: DeviceOption = Device.auto,
) -> None:
    """Write signals that follow given conditions."""


@command("forecast")
def forecast(
    steps: Annotated[int, typer.Option("--steps", min=1, max=FARTHEST, metavar="N", help="How many time steps ahead.")],
    checkpoint: NewestForecaster = None,
    data: SeriesFile = None,
    overrides: DataOverrides = None,
    cutoff: Cutoff = None,
    freq: Freq = None,
    fill: Fill = None,
    quantiles: Quantiles = DECILES,
    samples: PathCount = 100,
    temperature: Temperature = None,
    top_k: TopK = None,
    top_p: TopP = None,
    greedy: Greedy = False,
    seed: SamplingSeed = 0,
    out_file: ForecastFile = None,
    plot: ForecastPlot = None,
    force: Force = False,
    device: DeviceOption = Device.auto,
) -> None:
    """Forecast series in their own units and time stamps."""


@command("backtest")
def backtest(
    horizon: Annotated[
        int, typer.Option("--horizon", min=1, max=FARTHEST, metavar="N", help="Time steps ahead of each cutoff.")
    ],
    checkpoint: NewestForecaster = None,
    n_windows: Annotated[int, typer.Option("--n-windows", min=1, metavar="N", help="Cutoffs for each series.")] = 1,
    step_size: Annotated[
        int | None,
        typer.Option("--step-size", min=1, metavar="N", help="Rows between cutoffs; the horizon by default."),
    ] = None,
    data: SeriesFile = None,
    overrides: DataOverrides = None,
    cutoff: Cutoff = None,
    freq: Freq = None,
    fill: Fill = None,
    quantiles: Quantiles = DECILES,
    samples: PathCount = 100,
    temperature: Temperature = None,
    top_k: TopK = None,
    top_p: TopP = None,
    greedy: Greedy = False,
    seed: SamplingSeed = 0,
    out_file: ForecastFile = None,
    force: Force = False,
    device: DeviceOption = Device.auto,
) -> None:
    """Score forecasts from past cutoffs, beside plain rivals.

    The last window ends with the file; each of the others begins --step-size rows before the next.
    """


@command("encode")
def encode(
    checkpoint: Checkpoint,
    input_file: Annotated[Path, typer.Argument(metavar="INPUT", help="A file of signals, or a folder.")],
    out_file: OutFile,
    overrides: DataOverrides = None,
    levels: Levels = None,
    force: Force = False,
    device: DeviceOption = Device.auto,
) -> None:
    """Turn signals into codes."""


@command("encode:decode")
def decode(
    checkpoint: Checkpoint,
    codes_file: Annotated[Path, typer.Argument(metavar="CODES", help="What `vqtool encode` wrote.")],
    out_file: OutFile,
    levels: Levels = None,
    force: Force = False,
    device: DeviceOption = Device.auto,
) -> None:
    """Turn codes back into signals, in their own units."""


@command("export")
def export(
    checkpoint: Checkpoint,
    to: Annotated[ExportFormat, typer.Option("--to", help="ONNX, or a program of torch.export.")] = ExportFormat.onnx,
    out_dir: Annotated[
        Path | None, typer.Option("--out", "-o", metavar="DIR", help="Where to; beside the checkpoint by default.")
    ] = None,
    force: Force = False,
) -> None:
    """Write how a model gets to codes and back for other runtimes. Each file is run and compared with PyTorch."""


@command("codes")
def codes(
    checkpoint: Checkpoint,
    data: DataPath = None,
    split: Annotated[
        str | None, typer.Option("--split", metavar="NAME", help="Which rows; the held-out ones by default.")
    ] = None,
    label: Annotated[
        str | None, typer.Option("--label", metavar="NAME", help="Which label of the data; of frames by default.")
    ] = None,
    out_dir: Annotated[
        Path | None, typer.Option("--out", "-o", metavar="DIR", help="Write a page and its pictures there.")
    ] = None,
    tsne: Tsne = False,
    force: Force = False,
    device: DeviceOption = Device.auto,
) -> None:
    """Tell which codes fire on which labels, and how surely.

    For data with a label for every frame or window. A code is claimed for a label only where enough groups (people,
    places, machines) are behind it. The probes are fitted on the training rows, or in folds over the groups.
    """


@command("verify")
def verify(
    target: Annotated[
        str,
        typer.Argument(
            metavar="ROLE|TARGET",
            help="A role, FILE.py:CLASS or package.module:CLASS.",
            autocompletion=completion.judged,
        ),
    ],
    kind: Annotated[
        str | None,
        typer.Argument(metavar="KIND", help="One kind of the role; all by default.", autocompletion=completion.kinds),
    ] = None,
    arguments: Annotated[
        list[str] | None, typer.Option("--arg", metavar="KEY=VALUE", help="An argument of the constructor.")
    ] = None,
    seed: Annotated[int, typer.Option("--seed", help="Of the random inputs.")] = 0,
) -> None:
    """Tell which laws a quantizer or a prior keeps. It may be ours, a plugin's or any torch module."""


@command("bench")
def bench(
    case: Annotated[
        str | None,
        typer.Argument(
            metavar="CASE", help="What to measure; lists the cases without.", autocompletion=completion.cases
        ),
    ] = None,
    kinds: Annotated[
        list[str] | None,
        typer.Argument(
            metavar="KIND",
            help="Kinds of quantizer, ours or plugins', to race each other.",
            autocompletion=completion.racers,
        ),
    ] = None,
    device: DeviceOption = Device.auto,
) -> None:
    """Measure speed and memory beside other libraries."""


@command("check")
def check(
    recipe: Annotated[Path, typer.Argument(metavar="RECIPE", help="A recipe's TOML file.")],
    overrides: Overrides = None,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Also build the parts and take one step.")] = False,
) -> None:
    """Check a recipe and report every problem at once."""


@command("new")
def new(
    name: Annotated[
        str, typer.Argument(metavar="NAME", help="The new recipe's name or file; `plugin` for a plugin instead.")
    ],
    plugin_name: Annotated[str | None, typer.Argument(metavar="PLUGIN", help="The new plugin's name.")] = None,
    source: Annotated[
        str | None,
        typer.Option(
            "--from", metavar="KIND", help="The shipped recipe to begin from.", autocompletion=completion.recipes
        ),
    ] = None,
) -> None:
    """Begin a recipe from a shipped one, or a plugin. Nothing is overwritten.

    A recipe's sample data come along. `vqtool new plugin NAME` writes a folder with a quantizer, a loss, a data set
    and tests that pass as written.
    """


@command("show")
def show(
    path: Annotated[Path, typer.Argument(metavar="CKPT|RUN", help="A checkpoint or a run's folder.")],
) -> None:
    """Tell what a checkpoint or a run holds."""


@command("plugins")
def plugins(
    role: Annotated[
        str | None,
        typer.Argument(metavar="ROLE", help="Only this role, as quantizer.", autocompletion=completion.roles),
    ] = None,
    name: Annotated[
        str | None, typer.Argument(metavar="NAME", help="The options of this kind.", autocompletion=completion.kinds)
    ] = None,
    timings: Annotated[bool, typer.Option("--timings", help="What each plugin's import takes.")] = False,
) -> None:
    """List what a recipe can name, and who provides it."""


@command("schema")
def schema() -> None:
    """Print the JSON Schema of recipes. It covers everything that is installed."""
