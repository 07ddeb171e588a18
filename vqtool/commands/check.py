"""`vqtool check`: a recipe's problems, all at once; with --dry-run its parts are built and take one step."""

from __future__ import annotations

from pathlib import Path

from vqtool.console import out
from vqtool.recipe import Recipe, StageSpec, load
from vqtool.recipe.options import toml_value


def run(*, recipe: Path, overrides: list[str], dry_run: bool) -> int:
    """Check a recipe; returns the exit code."""
    checked = load(recipe, overrides)
    warnings = checked.warnings()
    for warning in warnings:
        out.warn(warning)
    missing = [path for path in checked.data.options.values() if isinstance(path, Path) and not path.exists()]
    if missing and not dry_run:  # the rest of the recipe has been checked
        out.warn(f"the data were not checked: there is no `{missing[0]}`")
    else:
        from vqtool.training.session import try_stages

        try_stages(checked, step=dry_run)
    out.print(f"{recipe} is valid" + (", and one step of every stage runs" if dry_run else ""))
    out.table("", ["part", "kind", "options"], parts(checked))
    out.table("", ["stage", "task", "length", "losses"], [stage_row(stage) for stage in checked.stages])
    out.document({"recipe": str(recipe), "sound": True, "dry_run": dry_run, "warnings": warnings,
                  "resolved": checked.resolved()})  # fmt: skip
    return 0


def parts(recipe: Recipe) -> list[list[str]]:
    """A row per part: what it is and what its options are."""
    every = {"data": recipe.data, **recipe.parts}
    return [
        [name, part.kind, ", ".join(f"{key} = {toml_value(value)}" for key, value in part.options.items())]
        for name, part in every.items()
    ]


def stage_row(stage: StageSpec) -> list[str]:
    """A stage in a row."""
    length = f"{stage.train.steps} steps" if stage.train.steps is not None else f"{stage.train.epochs} epochs"
    return [stage.name, stage.task.kind, length, ", ".join(f"{loss.name} {loss.weight:g}" for loss in stage.losses)]
