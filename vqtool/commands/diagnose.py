"""`vqtool diagnose`: the health of a checkpoint's codebooks; torch is loaded only where data are to be encoded."""

from __future__ import annotations

import sys
from dataclasses import asdict
from pathlib import Path
from typing import Any, Literal

from vqtool.console import out
from vqtool.diagnosis import terminal
from vqtool.diagnosis.findings import diagnosed
from vqtool.diagnosis.reading import report_of
from vqtool.diagnosis.report import Report
from vqtool.diagnosis.view import View
from vqtool.files import require_parent_dir
from vqtool.model.runs import checkpoint_path


def run(
    *,
    checkpoint: Path | None,
    data: Path | None,
    split: str | None,
    report: Path | None,
    plot: Path | None,
    tsne: bool,
    strict: bool,
    device: str,
    force: bool = False,
) -> int:
    """Diagnose, print and draw; returns 3 with `strict` if a finding fails."""
    require_parent_dir(report, plot)
    path = checkpoint_path(checkpoint)
    found = report_of(path)
    if report is not None or plot is not None:
        from vqtool.commands import outputs
        from vqtool.recipe.portable import files_named

        read = [path, data, *files_named(found.recipe, path.parent)]
        outputs.check(report, plot, inputs=read, force=force)
    samples: Any = None
    if data is not None or split is not None or report is not None:
        from vqtool.commands.diagnose_data import encoded  # torch

        wanted = data is not None or split is not None
        found, samples = encoded(found, data, split or "valid", device, count=wanted, pictures=report is not None)
    found = diagnosed(found)
    draw(found, samples, report, plot, "tsne" if tsne else "pca")  # before the document: an error must not be a second
    if out.mode != "json":
        out.print(terminal.text(View(found), out.result_stream))
    out.document(document(found))
    sys.stdout.flush()
    return 3 if strict and found.worst() == "fail" else 0


def draw(found: Report, samples: Any, report: Path | None, plot: Path | None, layout: Literal["pca", "tsne"]) -> None:
    """Write the page and the picture, where asked for."""
    if plot is not None:
        from vqtool.diagnosis import pictures

        pictures.plot(found, plot, layout=layout)
        out.say(f"plot: {plot}")
    if report is not None:
        from vqtool.diagnosis import page

        page.write(found, report, samples, layout=layout)
        out.say(f"report: {report}")


def document(found: Report) -> dict[str, Any]:
    """The content of --json."""
    return {
        "checkpoint": str(found.source),
        "run": None if found.run is None else str(found.run),
        "healthy": found.healthy,
        "counted": found.counted,
        "tokens": found.tokens,
        "codebooks": [{"name": b.name, "size": b.size, **whole(b.measures)} for b in found.codebooks],
        "measures": dict(found.measures),
        "findings": [asdict(f) for f in found.findings],
    }


def whole(measures: Any) -> dict[str, float | int]:
    """Measures; numbers of codes as integers."""
    return {name: int(value) if name in ("used", "dead", "duplicates", "lagging_codes") else value
            for name, value in measures.items()}  # fmt: skip
