"""`vqtool diagnose`: the health of any model's codebooks; torch is loaded for its own files and to encode data only."""

from __future__ import annotations

import sys
from dataclasses import asdict
from pathlib import Path
from typing import Any, Literal

from vqtool.console import out
from vqtool.diagnosis import comparison, terminal
from vqtool.diagnosis.findings import diagnosed
from vqtool.diagnosis.foreign_report import Reading, is_own, report_of_any
from vqtool.diagnosis.report import Report
from vqtool.diagnosis.view import View
from vqtool.errors import VqtoolError
from vqtool.files import require_parent_dir


def run(
    *,
    checkpoint: Path | None,
    codes: Path | None = None,
    layout: str | None = None,
    sizes: str | None = None,
    vectors: str | None = None,
    usage: str | None = None,
    data: Path | None,
    split: str | None,
    report: Path | None,
    plot: Path | None,
    tsne: bool,
    strict: bool,
    device: str,
    against: Path | None = None,
    force: bool = False,
) -> int:
    """Diagnose, print and draw; returns 3 with `strict` if a finding fails."""
    require_parent_dir(report, plot)
    others = [path for path in (checkpoint, against) if path is not None and not is_own(path)]

    def reported(path: Path | None, codes: Path | None) -> Report:
        names = (None, None) if others and path not in others else (vectors, usage)  # names are not of vqtool's own
        return report_of_any(path, Reading(codes, layout, numbers(sizes), *names))

    before = reported(against, None) if against is not None else None
    found = reported(checkpoint, codes)
    foreign = is_foreign(found)
    if foreign and (data is not None or split is not None):
        raise VqtoolError(f"`{found.source}` holds no recipe, so vqtool cannot encode data with it",
                          hint="--codes FILE counts the codes that the model made itself")  # fmt: skip
    if report is not None or plot is not None:
        from vqtool.commands import outputs
        from vqtool.recipe.portable import files_named

        named = files_named(found.recipe, found.source.parent) if not foreign else []
        outputs.check(report, plot, inputs=[found.source, codes, data, against, *named], force=force)
    samples: Any = None
    if not foreign and (data is not None or split is not None or report is not None):
        from vqtool.commands.diagnose_data import encoded  # torch

        wanted = data is not None or split is not None
        found, samples = encoded(found, data, split or "valid", device, count=wanted, pictures=report is not None)
        if wanted and before is not None and not is_foreign(before):
            before, _ = encoded(before, data, split or "valid", device, count=True, pictures=False)
    found, before = diagnosed(found), diagnosed(before) if before is not None else None
    # before the document: an error must not be a second
    draw(found, samples, report, plot, "tsne" if tsne else "pca", before)
    if out.mode != "json":
        out.print(terminal.text(View(found, before), out.result_stream))
    out.document(document(found) | ({"against": comparison.document(before, found)} if before is not None else {}))
    sys.stdout.flush()
    return 3 if strict and found.worst() == "fail" else 0


def is_foreign(found: Report) -> bool:
    """Whether a report is of a model that vqtool did not train, or of codes."""
    return "foreign" in found.metadata


def numbers(text: str | None) -> tuple[int, ...]:
    """The numbers of `--sizes`: "1024", or one for each codebook, "1024,512"."""
    try:
        found = tuple(int(word) for word in (text or "").split(",") if text)
    except ValueError:
        found = (0,)
    if any(number < 1 for number in found):
        raise VqtoolError(
            f"--sizes should be whole numbers, not `{text}`", hint="--sizes 1024, or --sizes 1024,1024,512"
        )
    return found


def draw(
    found: Report,
    samples: Any,
    report: Path | None,
    plot: Path | None,
    layout: Literal["pca", "tsne"],
    before: Report | None,
) -> None:
    """Write the page and the picture, where asked for."""
    if plot is not None:
        from vqtool.diagnosis import pictures

        pictures.plot(found, plot, layout=layout)
        out.say(f"plot: {plot}")
    if report is not None:
        from vqtool.diagnosis import page

        page.write(found, report, samples, layout=layout, before=before)
        out.say(f"report: {report}")


def document(found: Report) -> dict[str, Any]:
    """The content of --json."""
    return {
        "checkpoint": str(found.source),
        "run": None if found.run is None else str(found.run),
        "family": (found.metadata.get("foreign") or {}).get("family"),
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
