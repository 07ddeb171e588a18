"""What would stop a run later, found before it begins: losses, splits and names of figures of every stage."""

from __future__ import annotations

import torch

from vqtool.api.data import Batch, Data, Rows
from vqtool.api.loss import reads
from vqtool.catalog import catalog
from vqtool.console import out
from vqtool.errors import VqtoolError
from vqtool.model.build import build
from vqtool.model.checkpoint import fill
from vqtool.model.model import Model
from vqtool.recipe.spec import table_of
from vqtool.training.evaluate import Scores, check_named, held_out, of_task
from vqtool.training.headline import asked_figures, require_figures
from vqtool.training.loop import StageLoop
from vqtool.training.runtime import Runtime
from vqtool.training.validate import measure

TOKENS = 64  # that codebooks start on, here
FEW = 2  # validation rows that show which figures there are
TRAINED = ("codes.moved.", "codes.followed.")  # figures of codebooks that have taken a step
SOMETIMES = {"rescale", "soft_hard.gap", "exposure_gap"}  # not where an output, a loss or an error is zero


class FewRows:
    """Some rows of a split, evenly over it."""

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

    Takes no step, and leaves the model as it was. Warns of metrics that no stage's task feeds.

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
    idle = {table_of(given)["kind"] for given in model.recipe.evaluate.metrics or ()}
    known: set[str] = set()  # later rows keep what earlier stages said of the codes
    for stage in model.recipe.stages:
        loop = StageLoop(model, stage, data, runtime, seed=model.recipe.seed, log=lambda row: None)
        loop.module.task.begin(loop.module.parts)
        there = check_figures(loop, known, idle)
        known |= {name for name in there if name.startswith(("codes.", "joint.", "sequence."))}
    for kind in sorted(idle):
        needs, _ = reads(catalog().load("metric", kind).update)
        out.warn(f"`evaluate.metrics` names `{kind}`, which measures nothing here: it reads "
                 + ", ".join(f"`{name}`" for name in sorted(needs)) + ", which no stage's task gives")  # fmt: skip


def check_figures(loop: StageLoop, known: set[str], idle: set[str]) -> set[str]:
    """The figures that a few rows show, and those of earlier stages; all rows are asked before a name is refused.

    Metrics that the stage's task feeds are removed from `idle`.
    """
    model, stage, rows = loop.model, loop.stage, loop.data.rows("valid")
    asked = asked_figures(loop.options).keys()
    unsure = {name for name in asked if name.startswith(TRAINED) or name in SOMETIMES}
    there = {"step"} | known
    for some in (FewRows(rows, FEW), rows):
        there |= measure(loop.module, model, stage, some, loop.runtime, seed=loop.seed).row.keys()
        if idle or not asked <= there | unsure:
            scores = Scores(model)
            try:
                there |= of_task(scores, stage.name, some, loop.runtime).compute().keys()
                idle -= scores.used()
            except VqtoolError:
                raise
            except Exception:  # a metric may need more rows, or a trained model: the first validation will show
                there |= asked
                idle.clear()
        if asked <= there | unsure:
            break
    require_figures(loop.options, there | unsure, stage.name)
    return there
