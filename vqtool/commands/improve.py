"""`vqtool improve`: reinitialise dead codes, train on, and show the figures before and after."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from vqtool.commands import outputs
from vqtool.console import out
from vqtool.errors import VqtoolError
from vqtool.files import require_parent_dir
from vqtool.foreign.tensors import tensors_of
from vqtool.model import checkpoint as files
from vqtool.model.build import stage_named, without_discriminator
from vqtool.model.checkpoint import Checkpoint
from vqtool.model.data import open_data
from vqtool.model.format import SOURCE, stage_file
from vqtool.model.latents import with_latents
from vqtool.model.load import from_checkpoint
from vqtool.model.model import Model
from vqtool.model.runs import checkpoint_path
from vqtool.recipe import Recipe, StageSpec
from vqtool.recipe.thresholds import limits
from vqtool.tables import DETAIL, number
from vqtool.training.dead_codes import Improvement, improve
from vqtool.training.evaluate import evaluate_rows
from vqtool.training.lock import writing_beside
from vqtool.training.runtime import Runtime, runtime

USE = ("codes.used", "codes.perplexity")
LAYOUTS = ("NDT", "NTD", "NDHW", "NHWD", "ND")  # of latents: N recordings, D features, the others are tokens


def run(*, checkpoint: Path, data: Path | None, merge: bool, steps: int, out_file: Path | None, device: str,
        no_discriminator: bool = False, latents: Path | None = None, layout: str | None = None,
        force: bool = False) -> int:  # fmt: skip
    """Improve the codebooks of a checkpoint, write another one, and show the validation rows before and after."""
    path, model, read, stage = quantizers_own(checkpoint)
    if no_discriminator and "discriminator" in model.parts:
        model.recipe = without_discriminator(model.recipe)
        del model.parts["discriminator"]
        stage = stage_named(model.recipe, stage.name)
    target = out_file if out_file is not None else path.with_name(f"{path.stem}-improved.safetensors")
    require_parent_dir(target)
    outputs.check(target, inputs=[path, data, latents], force=force, recipe=model.recipe)
    recipe = model.recipe if latents is None and layout is None else on_latents(model, latents or data, layout)
    with runtime(device) as here, writing_beside(target.parent):
        rows = open_data(recipe, path=data)
        if rows.spec.channels != model.spec.channels:
            raise VqtoolError(f"the data have {rows.spec.channels} channels, and the model knows {model.spec.channels}")
        before = metrics(model, stage, rows.rows("valid"), here)
        done = improve(model, read, stage, rows, here, merge=merge, steps=steps)
        after = metrics(model, stage, rows.rows("valid"), here)
        kept = metadata(read, model, done, merge)
        kept |= {"resolved": model.recipe.resolved(target.parent), "recipe": model.recipe.kept_text()}
        source = {name: tensor for name, tensor in read.tensors.items() if name.startswith(SOURCE)}
        files.save(target, model.tensors() | done.loop.module.learned_by_losses() | source, kept)
    show(done, done.before.row | before, done.after.row | after)
    best = done.loop.options.best
    sign = 1 if done.loop.options.best_mode == "min" else -1
    if best in done.before.row and sign * done.after.row[best] > sign * done.before.row[best]:
        out.warn(f"`{best}` is worse than before: more --steps may help")
    for name, was, now in grown_gaps(done.before.row | before, done.after.row | after):
        out.warn(
            f"`{name}` grew from {was:.3g} to {now:.3g}: the path that these steps trained is not the one deployed"
        )
    later = [s.name for s in model.recipe.stages if s.name not in model.tasks]
    if later:
        out.say(f"stage {', '.join(later)} knows the old codes: train it again on this checkpoint's")
    out.print(str(target))
    out.document({
        "checkpoint": str(path),
        "out": str(target),
        "stage": stage.name,
        "split": "valid",
        **done.document(),
        "before": done.before.row | before,
        "after": done.after.row | after,
    })  # fmt: skip
    return 0


def grown_gaps(before: Mapping[str, float], after: Mapping[str, float]) -> Iterator[tuple[str, float, float]]:
    """Distances of the soft from the deployed path that grew beyond what `vqtool diagnose` warns of: (name, was, is).

    `best` does not see them, since it judges one path alone.
    """
    for name, finding in (("gap", "soft-hard-accuracy"), ("soft_hard.gap", "soft-hard-gap")):
        most = limits()[finding].warn
        if name in before and name in after and most is not None and after[name] > max(most, before[name]):
            yield name, before[name], after[name]


def on_latents(model: Model, path: Path | None, layout: str | None) -> Recipe:
    """The recipe with latents of this layout as its data; by default the one in which the features fit.

    Raises:
        VqtoolError: the model has an encoder of its own, the array fits no layout, or several.
    """
    dim = model.spec.channels
    if model.recipe.data.kind != "latents" or path is None:
        raise VqtoolError("--latents is for quantizers that `vqtool convert` made, and --layout goes with it",
                          hint="--data PATH for others")  # fmt: skip
    if layout is None:
        held = tensors_of(path)
        array = held.get("", held.get("x"))
        shape = () if array is None else array.shape
        fits = [one for one in LAYOUTS if len(one) == len(shape) and shape[one.index("D")] == dim]
        if len(fits) != 1:
            which = f": which axis holds the {dim} features?" if fits else f", and the quantizer takes {dim} features"
            raise VqtoolError(f"`{path}` is {list(shape)}{which}", hint=f"--layout {' or '.join(fits or LAYOUTS)}")
        layout = fits[0]
    return with_latents(model.recipe, path, layout)


def quantizers_own(given: Path) -> tuple[Path, Model, Checkpoint, StageSpec]:
    """The checkpoint of the last stage that trained the quantizer: the given one, or that of the given run."""
    path = checkpoint_path(given)
    model, read = from_checkpoint(path)
    name = next((n for n, task in reversed(model.tasks.items()) if "quantizer" in task.trains), None)
    if name is None or "quantizer" not in model.parts:
        raise VqtoolError(f"`{path}` holds no quantizer that a stage trained: there is nothing to improve")
    if name != read.metadata["stage"]:  # what was trained later reads the codes as they are
        own = path.with_name(stage_file(name))
        if path == given or not own.is_file():
            raise VqtoolError(
                f"`{path}` comes from stage `{read.metadata['stage']}`, which knows the codes as they are",
                hint=f"vqtool improve {own}, the checkpoint of stage `{name}`, then train what follows it",
            )
        path = own
        model, read = from_checkpoint(path)
    return path, model, read, stage_named(model.recipe, name)


def metrics(model: Model, stage: StageSpec, rows: Any, here: Runtime) -> dict[str, float]:
    """The recipe's own metrics on the validation rows; the use of codes is measured beside them."""
    model.parts.to(here.device)
    found = evaluate_rows(model, stage.name, rows, here)
    return {name: value for name, value in found.items() if not name.startswith("codes.")}


def metadata(read: Checkpoint, model: Model, done: Improvement, merge: bool) -> dict[str, Any]:
    """The metadata of the new checkpoint: those of the old one, and what was done to it."""
    progress, options = done.loop.progress, done.loop.options
    return {
        **read.metadata,
        **model.metadata(),
        "step": int(read.metadata.get("step", 0)) + done.steps,
        "metrics": {"best": progress.best, "best_step": progress.best_step, "named": options.best},
        "improved": {"steps": done.steps, "merge": merge, "revived": sum(r.dead for r in done.reinitialised),
                     "merged": sum(r.duplicates for r in done.reinitialised)},
    }  # fmt: skip


def show(done: Improvement, before: dict[str, float], after: dict[str, float]) -> None:
    """What was done to each codebook, then a table: a row a figure, before and after."""
    for book in done.reinitialised:
        merged = f", {book.duplicates} duplicates freed" if book.duplicates else ""
        out.say(f"{book.name}: {book.dead} of {book.size} codes reinitialised{merged}")
    names = [*USE, "loss", *done.loop.module.weights, *(n for n in before if n.startswith("error") or "." not in n)]
    shown = [n for n in dict.fromkeys(names) if n in before and n in after and not DETAIL.search(n)]
    rows = [[name, number(before[name]), number(after[name])] for name in shown]
    out.table(f"valid, after {done.steps} more steps", ["figure", "before", "after"], rows)
