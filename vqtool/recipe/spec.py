"""What a checked recipe is: frozen values, every default filled in, and their form in a checkpoint."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import Annotated, Any, Literal

from annotated_types import Ge, Gt, Interval, MinLen
from pydantic import BaseModel, Field, StringConstraints, create_model

from vqtool.recipe import thresholds
from vqtool.recipe.options import STRICT
from vqtool.recipe.portable import PATH_MARK, frozen_path, places, without_places

CONDITION = r"^\s*(<|<=|>|>=)\s*[-+]?(\d+\.?\d*|\.\d+)([eE][-+]?\d+)?\s*$"  # of `stop_when`


class DiscriminatorOptions(BaseModel):
    """`[stage.discriminator]`: how the part `[discriminator]` of a stage learns."""

    model_config = STRICT

    after: Annotated[int, Ge(0)] = Field(0, description="steps before it and the losses that read it begin")
    lr: Annotated[float | None, Gt(0)] = Field(
        None, description="its learning rate at the peak, on the stage's schedule; by default that of the stage"
    )
    betas: tuple[Annotated[float, Interval(ge=0, lt=1)], Annotated[float, Interval(ge=0, lt=1)]] = Field(
        (0.5, 0.9), description="how slowly its AdamW's two averages follow"
    )
    balance: bool = Field(
        True, description="scale losses that read it: one of weight 1 pushes the output as hard as the other losses do"
    )


class TrainOptions(BaseModel):
    """`[train]`, and what a `[[stage]]` may give itself."""

    model_config = STRICT

    steps: Annotated[int | None, Ge(1)] = Field(
        None, description="optimizer steps of the stage; either this or `epochs`"
    )
    epochs: Annotated[int | None, Ge(1)] = Field(
        None, description="passes over the training rows; either this or `steps`"
    )
    batch: Annotated[int, Ge(1)] = Field(64, description="rows per step, over all ranks and micro-batches")
    lr: Annotated[float, Gt(0)] = Field(1e-3, description="learning rate at its peak")
    rates: dict[str, Annotated[float, Ge(0)]] = Field(
        {}, description="share of lr that a part learns at, by role: `{ encoder = 0.1 }`; 1 for the others, 0: it stays"
    )
    weight_decay: Annotated[float, Ge(0)] = Field(0.0, description="decay of weights per step, times lr (AdamW)")
    betas: tuple[Annotated[float, Interval(ge=0, lt=1)], Annotated[float, Interval(ge=0, lt=1)]] = Field(
        (0.9, 0.99), description="how slowly AdamW's two averages follow"
    )
    warmup: Annotated[float, Interval(ge=0, le=1)] = Field(0.05, description="share of the stage in which lr rises")
    lr_end: Annotated[float, Interval(ge=0, le=1)] = Field(0.01, description="share of lr at the end of its cosine")
    clip: Annotated[float, Gt(0)] | None = Field(1.0, description='largest norm of the gradient; "none" clips nothing')
    accumulate: Annotated[int, Ge(1)] = Field(1, description="micro-batches a step is computed in")
    precision: Literal["fp32", "bf16", "fp16"] = Field("fp32", description="of the forward pass; statistics stay fp32")
    bypass: Annotated[float, Interval(ge=0, lt=1)] = Field(
        0.0, description="share of the stage, at its start, without quantization, if it trains the quantizer; the "
        "codebooks start behind it"
    )  # fmt: skip
    compile: bool = Field(
        False,
        description="compile what the stage trains (torch.compile), except for the quantizer: needs a C++ compiler",
    )
    average: Annotated[float, Interval(ge=0, lt=1)] = Field(
        0.0, description="decay of the weights' average; 0 keeps none"
    )
    log_every: Annotated[int, Ge(1)] = Field(
        50, description="steps between two rows of metrics.jsonl; the first has one too"
    )
    valid_every: Annotated[int | None, Ge(1)] = Field(
        None, description="steps between validations; five a stage by default"
    )
    save_seconds: Annotated[float, Gt(0)] = Field(
        60.0, description="seconds between saves to resume from; every validation saves as well"
    )
    discriminator: DiscriminatorOptions = Field(
        DiscriminatorOptions.model_validate({}),
        description="how the part `[discriminator]` learns, where losses read it",
    )
    patience: Annotated[int | None, Ge(1)] = Field(None, description="stop after so many validations without gain")
    patience_after: Annotated[float, Interval(ge=0, le=1)] = Field(
        0.0, description="share of the stage before which validations without gain do not count"
    )
    stop_when: dict[str, Annotated[str, StringConstraints(pattern=CONDITION)]] = Field(
        {}, description='end the stage where all hold in one validation: `{ consistency = "< 0.01" }`'
    )
    show: dict[str, Literal["min", "max", "none"]] = Field(
        {}, description='further figures of the line of each validation, with the better way: `{ "snr.db" = "max" }`'
    )
    best: str = Field("loss", description="the validation metric whose best checkpoint is kept")
    best_mode: Literal["min", "max"] = Field("min", description="whether less or more of `best` is better")


class EvaluateOptions(BaseModel):
    """`[evaluate]`: what held-out rows are measured by, and against whom."""

    model_config = STRICT

    metrics: tuple[str | dict[str, Any], ...] | None = Field(
        None, description="metrics: a name, or a table of `kind` and options; by default all that find what they read"
    )
    baselines: tuple[str | dict[str, Any], ...] = Field(
        (), description="baselines, measured on the same rows: a name, or a table of `kind` and options"
    )
    batch: Annotated[int, Ge(1)] = Field(256, description="rows at a time")
    splits: Annotated[tuple[str, ...], MinLen(1)] | None = Field(
        None, description="held-out splits to report; by default all"
    )


def diagnose_options() -> type[BaseModel]:
    """`[diagnose]`: how often the watch looks, and every threshold of every finding, those of plugins too."""
    options: dict[str, Any] = {
        key: (float | None, Field(value, description=f'{meaning}; "none" switches it off'))
        for key, (meaning, value) in thresholds.keys().items()
    }
    every = (f"steps between two looks at the codebooks while training; 0 never looks; by default {thresholds.LOOKS} "
             f"looks a stage, {thresholds.CLOSEST} to {thresholds.FARTHEST} steps apart")  # fmt: skip
    options["every"] = (Annotated[int, Ge(0)] | None, Field(None, description=every))
    return create_model("DiagnoseOptions", __config__=STRICT, **options)


class TopOptions(BaseModel):
    """The keys of a recipe outside of any table."""

    model_config = STRICT

    title: str = Field("", description="what the recipe is for, in one line")
    seed: Annotated[int, Interval(ge=0, lt=2**63)] = Field(0, description="of every random choice")
    deterministic: bool = Field(False, description="deterministic kernels, also where that is slower")


@dataclass(frozen=True, slots=True)
class PartSpec:
    """A component that the recipe names: a role, a kind, and its options with defaults filled in."""

    role: str
    kind: str
    options: Mapping[str, Any] = field(default_factory=dict)


def table_of(given: str | Mapping[str, Any]) -> Mapping[str, Any]:
    """The table of a component that is given by its kind alone, or with options as a table."""
    return {"kind": given} if isinstance(given, str) else given


@dataclass(frozen=True, slots=True)
class LossSpec:
    """A loss of a stage; `kind` None: one of the quantizer's own terms."""

    name: str
    weight: float
    kind: str | None
    options: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class ScheduleSpec:
    """A number that changes while a stage trains: `quantizer.temperature`, `task.own_tokens`, `losses.mse`, `lr`."""

    target: str
    kind: str
    options: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class StageSpec:
    """One `[[stage]]`: a task over the parts, its losses, knobs and schedules."""

    name: str
    task: PartSpec
    losses: tuple[LossSpec, ...]
    set: Mapping[str, Any]
    schedules: tuple[ScheduleSpec, ...]
    train: TrainOptions


@dataclass(frozen=True, slots=True)
class Recipe:
    """A checked recipe: its text, and what it says with every default filled in. Paths in options are absolute."""

    text: str
    path: Path | None
    title: str
    seed: int
    deterministic: bool
    data: PartSpec
    parts: Mapping[str, PartSpec]  # by table name: `conditioner`, `prior_conditioner`
    stages: tuple[StageSpec, ...]
    evaluate: EvaluateOptions
    diagnose: Mapping[str, Any] = field(default_factory=dict)  # what it gives: better defaults reach old models too
    folder: Path | None = None  # what relative paths were resolved against
    renamed: tuple[str, ...] = ()  # warnings of options that it calls by a former name

    def warnings(self) -> list[str]:
        """Options under former names, and what a recipe can ask for but hardly means."""
        return [*self.renamed] + [
            f"the weight of loss `{loss.name}` in stage `{stage.name}` is negative: training makes that loss larger"
            for stage in self.stages
            for loss in stage.losses
            if loss.weight < 0
        ]

    def files(self) -> list[Path]:
        """Every file or folder that an option names."""
        options = [spec.options for spec in (self.data, *self.parts.values(), *(s.task for s in self.stages))]
        options += [loss.options for stage in self.stages for loss in stage.losses]
        return [path for some in options for path in paths_in(some)]

    def kept_text(self) -> str:
        """The text without absolute paths."""
        return without_places(self.text, self.files(), self.folder)

    def resolved(self, beside: Path | None = None) -> dict[str, Any]:
        """JSON values that `resolved.from_resolved` rebuilds the recipe from. No path is absolute: see `portable`.

        `beside` is the folder that they will lie in.
        """
        return places(self.folder, self.path, beside) | self.values(self._kept)

    def values(self, of_path: Callable[[Path], Any] = str) -> dict[str, Any]:
        """All that the recipe says as JSON values, each path as `of_path` gives it."""

        def plain(value: Any) -> Any:
            if isinstance(value, Path):
                return of_path(value)
            if isinstance(value, list | tuple):
                return [plain(item) for item in value]
            if isinstance(value, BaseModel):
                value = value.model_dump()
            elif isinstance(value, PartSpec | LossSpec | ScheduleSpec | StageSpec):
                value = {one.name: getattr(value, one.name) for one in fields(value)}
            if isinstance(value, Mapping):
                return {key: plain(item) for key, item in value.items()}
            return value

        return {
            "title": self.title,
            "seed": self.seed,
            "deterministic": self.deterministic,
            "file": None if self.path is None else self.path.name,
            "data": plain(self.data),
            "parts": plain(self.parts),
            "stages": plain(self.stages),
            "evaluate": plain(self.evaluate),
            "diagnose": dict(self.diagnose),
        }

    def _kept(self, path: Path) -> dict[str, str]:
        """A path as files keep it."""
        return {PATH_MARK: frozen_path(path, self.folder)}


def paths_in(value: Any) -> list[Path]:
    """The paths in an option's value."""
    items = value.values() if isinstance(value, Mapping) else value if isinstance(value, list | tuple) else ()
    return [value] if isinstance(value, Path) else [path for item in items for path in paths_in(item)]
