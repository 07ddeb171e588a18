"""`vqtool codes`: which codes fire on which labels of a data set, and how much they reveal about them."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import torch

from vqtool.analysis import codes_view
from vqtool.analysis.agreement import agreements
from vqtool.analysis.code_labels import Reading, by_group, document, held_against
from vqtool.analysis.codes_page import CAPTIONS
from vqtool.analysis.labelled import Labelled
from vqtool.analysis.probe import LinearProbe, cross_predicted, f1_scores, one_hots
from vqtool.api import Data, DataSpec, Embeds, Rows
from vqtool.commands import outputs
from vqtool.console import out
from vqtool.errors import VqtoolError
from vqtool.files import require_parent_dir
from vqtool.model.data import open_data
from vqtool.model.load import capable
from vqtool.model.model import Model
from vqtool.model.runs import checkpoint_path
from vqtool.model.seen import own_features
from vqtool.training.batches import in_order
from vqtool.training.evaluate import held_out
from vqtool.training.runtime import Runtime, runtime


def run(*, checkpoint: Path, data: Path | None, split: str | None, label: str | None, out_dir: Path | None, tsne: bool,
        device: str, precision: str = "fp32", force: bool = False) -> int:  # fmt: skip
    """Read the codes; with `out_dir`, also write a page and its pictures."""
    require_parent_dir(out_dir)
    with runtime(device, precision) as here, torch.no_grad():
        model, task = capable(checkpoint, Embeds, "embed")
        if out_dir is not None:
            pages = [out_dir / name for name in ("codes.html", *CAPTIONS)]
            read = [checkpoint_path(checkpoint), data]
            outputs.check(*pages, inputs=read, force=force, recipe=model.recipe, folder=out_dir)
        opened = open_data(model.recipe, path=data)
        rows = _rows(model, opened, split)
        field, group = _fields(opened.spec, label)
        here.place(model)
        train = _gather(model, task, opened.rows("train"), field, group, here)
        held = _gather(model, task, rows[1], field, group, here)
        reading = _read(model, opened.spec, rows[0], field, group, train, held)
    claims, figures = codes_view.claims(reading, named=codes_view.MOST_NAMED), codes_view.figures(reading)
    out.table(f"codes by {reading.label}, {codes_view.subject(reading)}", claims.head, claims.rows)
    out.table("how much the codes reveal", figures.head, figures.rows)
    files: list[Path] = []
    if out_dir is not None:
        from vqtool.analysis import codes_page

        files = codes_page.write(reading, rows[1], out_dir, layout="tsne" if tsne else "pca")
        out.print(str(files[0]))
    out.document({**document(reading), "checkpoint": str(checkpoint), "files": [str(f) for f in files]})
    return 0


def _rows(model: Model, data: Data, split: str | None) -> tuple[str, Rows]:
    """The last of the held-out splits that evaluation reports, or the one asked for."""
    return list(held_out(data, split, model.recipe.evaluate.splits).items())[-1]


def _fields(spec: DataSpec, wanted: str | None) -> tuple[str, str | None]:
    """The label to read by, of frames before of windows, and the group."""
    labels = {name: field for name, field in spec.named("label").items() if field.names}
    if wanted is not None and wanted not in labels:
        raise VqtoolError(f"the data have no label `{wanted}`", hint="they have " + (", ".join(labels) or "none"))
    if not labels:
        raise VqtoolError(
            "the data have no labels to compare the codes with", hint="vqtool diagnose CKPT reads codes alone"
        )
    name = wanted or max(labels, key=lambda n: len(labels[n].shape))
    return name, next(iter(spec.named("group")), None)


def _gather(model: Model, task: Any, rows: Rows, label: str, group: str | None, here: Runtime) -> Labelled:
    """The labelled tokens of `rows`: codes, features, and context where there is any."""
    gathered = Labelled()
    sizes = model.parts.quantizer.codebook_sizes
    with out.progress(-(-len(rows) // model.recipe.evaluate.batch), "encoding") as bar:
        for batch in in_order(rows, model.recipe.evaluate.batch, here):
            result = task.embed(model.parts, batch)
            windows = len(batch[label])
            groups = batch[group] if group else torch.arange(gathered.rows, gathered.rows + windows)
            gathered.add(batch[label], groups, sizes, codes=result["codes"], features=result["features"],
                         context=result.get("context"))  # fmt: skip
            bar.advance(1)
    return gathered


def _read(model: Model, spec: DataSpec, split: str, label: str, group: str | None, train: Labelled, held: Labelled
          ) -> Reading:  # fmt: skip
    if not len(held["labels"]):
        raise VqtoolError(f"no token of split `{split}` has a `{label}`", hint="another --split, or data with labels")
    names = spec.fields[label].names
    quantizer = model.quantizer
    assert quantizer is not None  # it gave the codes
    books, nothing = [], not len(train["labels"])
    for q, (name, size) in enumerate(zip(quantizer.codebook_names, quantizer.codebook_sizes, strict=True)):
        known = None
        if not nothing:
            known = by_group(train["codes"][:, q], size, train["labels"], len(names), train["groups"]).sum(0)
        codes = held["codes"][:, q]
        books.append(held_against(name, codes, size, held["labels"], len(names), held["groups"], known=known))
    vectors = tuple(own_features(quantizer, v).detach().cpu().numpy() for v in quantizer.vectors() or ())
    return Reading(
        label=label, names=names, group=group or "window", group_names=spec.fields[group].names if group else (),
        split=split, held={n: held[n] for n in ("labels", "groups", "rows", "places", "codes")}, tokens=held.tokens,
        books=tuple(books), vectors=vectors, figures=_figures(train, held, len(names)), rate=spec.sample_rate,
    )  # fmt: skip


def _figures(train: Labelled, held: Labelled, classes: int) -> dict[str, float]:
    """Probes fitted on the training rows, and in folds over the groups of these; agreement with the labels."""
    labels, groups = held["labels"], held["groups"]
    result = {"tokens": float(len(labels)), "groups": float(len(np.unique(groups)))}
    for name, lead in (("codes", "probe"), ("features", "probe.features"), ("context", "probe.context")):
        if name not in held.names():
            continue
        x, known = (one_hots(g[name], g.sizes) if name == "codes" else g[name] for g in (held, train))
        if len(np.unique(train["labels"])) > 1:
            said = LinearProbe().fit(known, train["labels"]).predict(x)
            result[f"{lead}.macro_f1"] = float(np.nanmean(f1_scores(labels, said, classes)))
        said = cross_predicted(x, labels, groups)
        if (said >= 0).all():
            result[f"{lead}.folds.macro_f1"] = float(np.nanmean(f1_scores(labels, said, classes)))
    return result | {f"codes.{name}": value for name, value in agreements(held["codes"], labels, groups).items()}
