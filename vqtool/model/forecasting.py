"""Forecasts by a model: which model, how sample paths are drawn, and what comes after the histories of a file."""

from __future__ import annotations

import contextlib
import dataclasses
import tempfile
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from vqtool.api import Compares, DataSpec, Forecast, ForecastFiles, Histories, Parts, QuantileForecaster, Task
from vqtool.console import out
from vqtool.errors import VqtoolError
from vqtool.model.data import check_found, options_asked, report_notes, user_files
from vqtool.model.seeds import seed_of
from vqtool.recipe import Recipe
from vqtool.sequence.forecasting import check_paths
from vqtool.suggest import did_you_mean, listed

ROWS = 32  # histories that are forecast at once; a row's result does not depend on it


@dataclass(frozen=True)
class SamplingOptions:
    """How sample paths are drawn; what is None is left to the task."""

    samples: int = 100
    temperature: float | None = None
    top_k: int | None = None
    top_p: float | None = None
    greedy: bool = False
    seed: int = 0
    quantiles: Sequence[float] = ()

    @classmethod
    def of(cls, *, quantiles: str, **sampling: Any) -> SamplingOptions:
        """As the commands get them, the quantiles as text."""
        return cls(**sampling, quantiles=quantile_levels(quantiles))

    def __post_init__(self) -> None:
        if self.greedy and self.restricted:
            raise VqtoolError("--greedy and sampling exclude each other", hint="leave one of them out")

    @property
    def restricted(self) -> bool:
        """Whether an option changes how codes are drawn."""
        return not (self.temperature is None and self.top_k is None and self.top_p is None)

    @property
    def one_path(self) -> bool:
        """Whether there is the likeliest path alone, or one draw: neither has quantiles."""
        return self.greedy or self.temperature == 0 or self.samples == 1

    def check(self, task: Task) -> str | None:
        """Check that these paths can give the quantiles, or that the task knows them; returns a warning.

        Raises:
            VqtoolError: too few paths for the outermost quantile.
        """
        if isinstance(task, QuantileForecaster):
            ignored = "this model draws nothing: --temperature, --top-k and --top-p change none of its quantiles"
            return ignored if self.restricted else None
        if not self.one_path:
            check_paths(self.samples, self.quantiles)
        return None

    def of_rows(self, keys: Sequence[str]) -> dict[str, Any]:
        """The keyword arguments of `Forecasts.forecast` for rows of these keys."""
        seeds = [seed_of(self.seed, key) for key in keys]
        if self.greedy:
            return {"greedy": True, "seeds": seeds}
        given = {"temperature": self.temperature, "top_k": self.top_k, "top_p": self.top_p}
        return {"samples": self.samples, "seeds": seeds} | {k: v for k, v in given.items() if v is not None}


def quantile_levels(given: str | Sequence[float]) -> list[float]:
    """`0.1,0.5,0.9`, or numbers, in ascending order; a sequence may be empty."""
    try:
        parts = [part for part in given.split(",") if part.strip()] if isinstance(given, str) else given
        found = sorted({float(part) for part in parts})
    except (TypeError, ValueError):
        found = [0.0]
    if not all(0 < level < 1 for level in found) or (isinstance(given, str) and not found):
        raise VqtoolError(f"`{given}` are not quantiles", hint="numbers between 0 and 1, as in --quantiles 0.1,0.5,0.9")
    return found


class Forecaster:
    """Forecasts of the series in files of a model's data kind.

    Args:
        overrides: options of the data to set, as `data.KEY=VALUE`.
        options: more of them, by name; None: not set.

    Raises:
        VqtoolError: the data are not series, or an option is wrong.
    """

    def __init__(self, recipe: Recipe, spec: DataSpec, parts: Parts, task: Any, how: SamplingOptions,
                 overrides: Sequence[str] = (), **options: str | None) -> None:  # fmt: skip
        self.recipe, self.parts, self.task, self.how = recipe, parts, task, how
        self.method: str | None = None  # a forecast that the model compares with, to be given in place of its own
        if warning := how.check(task):
            out.warn(warning)
        set_by_name = [f'data.{name}="{value}"' for name, value in options.items() if value is not None]
        self.overrides = [*overrides, *set_by_name]
        self.asked = options_asked(recipe, self.overrides)
        files = user_files(recipe, spec, self.asked)
        if not isinstance(files, ForecastFiles):
            raise VqtoolError(f"the model was trained on data `{recipe.data.kind}`, which are not time series")
        self.files = files

    @property
    def file(self) -> Path | None:
        """The file that `-s data.path=...` names."""
        return Path(self.asked["path"]) if self.asked.get("path") else None

    def histories(self, data: Path | None, **which: Any) -> Histories:
        """The histories of a file (of the training data without one); `which` is passed to `ForecastFiles.histories`.

        What was done to the series is reported.
        """
        steps = which.get("steps")
        if type(steps) is not int or steps < 1:
            raise VqtoolError(f"`steps` should be a whole number of at least 1, not {steps!r}")
        data = data or self.file
        if data is None:
            check_found(self.recipe.data.options)
        rows = self.files.histories(data, **which)
        report_notes(rows.notes)
        for warning in rows.warnings:
            out.warn(warning)
        return rows

    def forecasts(self, rows: Histories, steps: int, device: torch.device, *, compare: bool = False) -> list[Forecast]:
        """Forecasts of all rows, a few rows at a time; the parts are on the `device`, in evaluation mode.

        With `compare`, those that the model knows to compare with stand beside each as its `baselines`. Else the
        `method` that was chosen gives the medians; the quantiles are the model's, for want of others.
        """
        if self.method is not None and not compare:
            return [self._by_method(one) for one in self.forecasts(rows, steps, device, compare=True)]
        parts, task, how = self.parts, self.task, self.how
        forecasts: list[Forecast] = []
        n, known = len(rows.keys), isinstance(task, QuantileForecaster) and not how.greedy
        for begin in range(0, n, ROWS):
            some = range(begin, min(begin + ROWS, n))
            batch = {name: value[some.start : some.stop].to(device) for name, value in rows.batch.items()}
            if known:
                paths = task.quantiles(parts, batch, steps, [0.5, *how.quantiles]).cpu()
            else:
                paths = task.forecast(parts, batch, steps, **how.of_rows(rows.keys[some.start : some.stop])).cpu()
            if not bool(torch.isfinite(paths).all()):
                hint = f"vqtool diagnose {self.recipe.title}"
                raise VqtoolError("the model's forecast is not finite", hint=hint, exit_code=1)
            if compare and isinstance(task, Compares):
                compared = {name: value.cpu() for name, value in task.compare(parts, batch, steps).items()}
                forecasts += rows.forecasts(some, paths, how.quantiles, known=known, compared=compared)
            else:
                forecasts += rows.forecasts(some, paths, how.quantiles, known=known)
        return forecasts

    def _by_method(self, one: Forecast) -> Forecast:
        """The same forecast with the medians of `method`; an error names those that there are."""
        name = str(self.method)
        if name not in one.baselines:
            hint = did_you_mean(name, one.baselines, otherwise=f"it knows {listed(one.baselines) or 'none'}")
            raise VqtoolError(f"this model compares with no method `{name}`", hint=hint, where="--method")
        return dataclasses.replace(one, median=one.baselines[name], baselines={})

    def weights(self, rows: Histories, steps: int, device: torch.device) -> list[dict[str, float]]:
        """What each row's forecast is a weighted mean of, the largest weight first; empty where that is not known."""
        if not isinstance(self.task, Compares):
            return [{} for _ in rows.keys]
        batch = {name: value.to(device) for name, value in rows.batch.items()}
        names, found = self.task.explain(self.parts, batch, steps)
        each = [sorted(zip(names, row, strict=True), key=lambda item: -item[1]) for row in found.tolist()]
        return [dict(row) for row in each]


def data_frame(forecasts: Sequence[Forecast]) -> Any:
    """A pandas DataFrame: `unique_id`, `ds`, `median` and a column for each quantile (`q0.1`)."""
    import pandas

    return pandas.concat([
        pandas.DataFrame({"unique_id": one.id, "ds": list(one.ds), "median": list(one.median),
                          **{f"q{level}": list(values) for level, values in one.quantiles.items()}})
        for one in forecasts
    ], ignore_index=True)  # fmt: skip


@contextlib.contextmanager
def as_file(frame: Any) -> Iterator[Path]:
    """A path as it is; a pandas DataFrame as a CSV file of its columns, and of its index where that has a name."""
    if isinstance(frame, str | Path):
        yield Path(frame)
        return
    if not (hasattr(frame, "columns") and hasattr(frame, "to_csv")):
        raise VqtoolError(f"series should be a pandas DataFrame or the path of a file, not {type(frame).__name__}")
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "frame.csv"
        (frame if frame.index.name is None else frame.reset_index()).to_csv(path, index=False)
        yield path
