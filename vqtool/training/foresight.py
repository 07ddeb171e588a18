"""What would stop a run later, found before it begins: losses, splits and names of figures of every stage."""

from __future__ import annotations

from typing import Any

import torch

from vqtool.api.data import Batch, Data, Rows
from vqtool.errors import VqtoolError
from vqtool.model.build import build
from vqtool.model.checkpoint import fill
from vqtool.model.model import Model
from vqtool.training.evaluate import check_named, evaluate_rows, held_out
from vqtool.training.loop import StageLoop
from vqtool.training.runtime import Runtime
from vqtool.training.validate import measure

TOKENS = 64  # that codebooks start on, here
FEW = 2  # validation rows that show which figures there are
TRAINED = ("codes.moved.", "codes.followed.")  # figures of codebooks that have taken a step
SOMETIMES = {"rescale", "soft_hard.gap", "exposure_gap", "output.snr_db", "output.si_sdr_db", "range_ratio", "dc"}


class Some:
    """A few rows of a split, evenly over it."""

    def __init__(self, rows: Rows, most: int) -> None:
        self.rows, n = rows, min(most, len(rows))
        self.places = [at * len(rows) // n for at in range(n)]

    def __len__(self) -> int:
        return len(self.places)

    def __getitem__(self, index: int) -> Batch:
        return self.rows[self.places[index]]

    def __getitems__(self, indices: list[int]) -> Batch:
        return self.rows.__getitems__([self.places[at] for at in indices])


def check_stages(model: Model, data: Data, runtime: Runtime) -> None:
    """Refuse now what would be an error of the recipe when its stage comes, or at the end.

    Takes no step, and leaves the model as it was.

    Raises:
        VqtoolError: what a loss needs is missing, a name of a figure or split is wrong, a metric or a baseline does not
            fit.
    """
    held_out(data, None, model.recipe.evaluate.splits)
    trained = model.parts.state_dict()
    model = build(model.recipe, model.spec)
    fill(model.parts, trained, "the model")
    model.parts.to(runtime.device)
    check_named(model)
    quantizer = model.quantizer
    if quantizer is not None and not quantizer.initialised:  # with any codes: their names are those of real ones
        generator = torch.Generator().manual_seed(0)
        z = torch.randn(1, TOKENS, quantizer.dim, generator=generator)
        quantizer.initialise(z.to(runtime.device), None, seed=0)
    known: set[str] = set()  # later rows keep what earlier stages said of the codes
    for stage in model.recipe.stages:
        loop = StageLoop(model, stage, data, runtime, seed=model.recipe.seed, log=lambda row: None)
        there = check_figures(loop, known)
        known |= {name for name in there if name.startswith(("codes.", "joint.", "sequence."))}


def asked_figures(loop: StageLoop) -> dict[str, str]:
    """The names of figures of validation rows that a stage's options give, each with the option."""
    options = loop.options
    return dict.fromkeys(options.show, "show") | dict.fromkeys(options.stop_when, "stop_when") | {options.best: "best"}


def check_figures(loop: StageLoop, known: set[str]) -> set[str]:
    """The figures that a few rows show, and those of earlier stages; all rows are asked before a name is refused."""
    rows = loop.data.rows("valid")
    asked = {name: option for name, option in asked_figures(loop).items()
             if not name.startswith(TRAINED) and name not in SOMETIMES}  # fmt: skip
    for some in (Some(rows, FEW), rows):
        there = known | figures(loop, some, asked.keys() - known)
        missing = [name for name in asked if name not in there]
        if not missing:
            return there
    raise unknown_figure(missing[0], asked[missing[0]], there, loop.stage.name)


def figures(loop: StageLoop, rows: Rows, asked: set[str]) -> set[str]:
    """The names of the figures of a validation on some rows; all that are asked for where they cannot be known yet."""
    model, stage = loop.model, loop.stage
    try:
        found = {"step"} | measure(loop.module, model, stage, rows, loop.runtime, seed=loop.seed).row.keys()
    except VqtoolError:
        raise
    except Exception:  # parts that are not trained yet may not be able to; training will show
        return set(asked)
    if not asked <= found:
        try:
            found |= evaluate_rows(model, stage.name, rows, loop.runtime).keys()
        except Exception:  # of metrics too; some need more rows
            return set(asked)
    return found


def unknown_figure(name: str, option: str, there: Any, stage: str) -> VqtoolError:
    """The error for a name that no validation has."""
    return VqtoolError(
        f"`{option}` names `{name}`, which is not among the validation metrics",
        hint="one of " + ", ".join(sorted(there)),
        where=f"stage `{stage}`",
    )
