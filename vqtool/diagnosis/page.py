"""The report as one HTML page that needs no network: findings, codebooks to explore, history, reconstructions."""

from __future__ import annotations

import json
import re
from html import escape
from pathlib import Path

from vqtool.diagnosis import charts
from vqtool.diagnosis.code_map import Layout
from vqtool.diagnosis.explorer import EXPLORER, explorer_data
from vqtool.diagnosis.html_page import document, figure, folded, grid, own_file, section, table
from vqtool.diagnosis.png import data_uri
from vqtool.diagnosis.report import Report
from vqtool.diagnosis.samples import Samples
from vqtool.diagnosis.view import Card, StageHistory, View
from vqtool.files import as_given, write_atomic

MAX_CHARTS = 12  # of one stage; more are folded away


def write(
    report: Report,
    path: Path,
    samples: Samples | None = None,
    *,
    layout: Layout = "pca",
    before: Report | None = None,
) -> None:
    """Write the page; without `samples` the codes are shown by their figures only, with `before` also what changed.

    Raises:
        VqtoolError: the file cannot be written, or `layout` is "tsne" and scikit-learn is not installed.
    """
    write_atomic(path, page(report, samples, layout, before).encode())


def page(report: Report, samples: Samples | None, layout: Layout = "pca", before: Report | None = None) -> str:
    """The page's text."""
    view = View(report, before)
    figures = folded(f"{len(view.measures.rows)} figures", table(view.measures, "all measures"))
    sections = [
        section("findings", "Findings", findings(view)),
        *([section("comparison", "What changed", comparison(view))] if before is not None else []),
        section("codebooks", "Codebooks", codebooks(view)),
        *([section("reconstructions", "Reconstructions", reconstructions(samples)),
           section("history", "Training history", history(view))] if report.recipe else []),
        section("measures", "All measures", figures),
        *([section("recipe", "Recipe and versions", recipe(view))] if report.recipe else []),
    ]  # fmt: skip
    data = json.dumps(explorer_data(report, samples, layout), separators=(",", ":"), allow_nan=False)
    scripts = (f'<script type="application/json" id="data">{in_script(data)}</script>\n'
               f"<script>\n{own_file('page.js')}</script>\n")  # fmt: skip
    header = (
        f'<h1>{escape(view.title)}</h1><p class="verdict {report.worst()}"><b>{view.state}</b> {escape(view.verdict)}'
        f'</p><p class="quiet">{escape(" · ".join([view.file, *view.subject]))}</p>'
    )
    return document(f"{view.title}: diagnosis", header, sections, scripts)


def recipe(view: View) -> str:
    """The recipe as it was written, and the versions that it was trained with."""
    versions, text = view.recipe
    shown = f'<pre tabindex="0" role="region" aria-label="the recipe">{escape(text)}</pre>'
    return f"<p>{escape(versions)}</p>{shown}"


def in_script(text: str) -> str:
    """JSON that ends no script element, whatever names it holds."""
    return text.replace("<", "\\u003c").replace(">", "\\u003e").replace("&", "\\u0026")


def findings(view: View) -> str:
    """The findings, the worst first, and the checks that passed."""
    cards = "".join(map(card_html, view.cards))
    passed = f'<p class="quiet">{escape(view.passed)}</p>' if view.passed else ""
    return (f'<ol class="findings">{cards}</ol>' if cards else "<p>No problems found.</p>") + passed


def comparison(view: View) -> str:
    """What changed since an earlier checkpoint."""
    changed = view.comparison
    assert changed is not None
    assert view.before is not None
    sources = f"{as_given(view.before.source)} -> {view.file}"
    return f"<p>{escape(sources)}</p>" + table(changed, "each codebook before and now")


def card_html(card: Card) -> str:
    """One finding with its figure, its cause and its fixes."""
    found = card.finding
    text = re.sub(r"`([^`]+)`", r"<code>\1</code>", escape(card.text))
    typed = [f"<code>{escape(line)}</code>" if line.startswith("vqtool ") else escape(line) for line in card.fix]
    fixes = "".join(f"<li>{line}</li>" for line in typed)
    return (
        f'<li class="card {found.severity}" value="{card.number}">'
        f'<h3><span class="badge">{card.number} {found.severity}</span> {escape(card.title)} '
        f'<span class="figure">{escape(card.figure)}</span></h3><p>{text}</p>'
        + (f"<p>Fixes, any one of these:</p><ul>{fixes}</ul>" if fixes else "")
        + (f'<p class="quiet">{escape(card.basis)}</p>' if card.basis else "")
        + "</li>"
    )


def codebooks(view: View) -> str:
    """The codebooks in figures, and the explorer of their codes."""
    if not view.codebooks.rows:
        return "<p>The file holds no codebook.</p>"
    summary = "; ".join(f"{meaning} {figure}" for meaning, figure in view.summary)
    together = f'<p class="quiet">all together: {escape(summary)}</p>' if summary else ""
    return table(view.codebooks, "codebooks in figures") + together + EXPLORER


def reconstructions(samples: Samples | None) -> str:
    """A few windows of the split with what the decoder makes of their codes."""
    if samples is None:
        return "<p>No data were encoded; <code>--data</code>, or a run whose data are there, shows them here.</p>"
    originals, rebuilt = samples.originals, samples.reconstructions
    note = samples.split + ("; this task reconstructs no signals" if rebuilt is None else "")
    key = '<span class="key original">original</span>'
    key += ' <span class="key rebuilt">reconstruction</span>' if rebuilt is not None else ""
    drawn = images(samples) if originals.ndim == 4 else charts.signals(originals, rebuilt, samples.unit)
    return f"<p>{key} <span class=quiet>{escape(note)}</span></p>{grid(drawn)}"


def images(samples: Samples) -> list[str]:
    """Images beside their reconstructions, as PNG."""
    figures = []
    for row, original in enumerate(samples.originals):
        both = [original] if samples.reconstructions is None else [original, samples.reconstructions[row]]
        low, high = float(original.min()), float(original.max())
        pair = "".join(f'<img alt="{what} {row + 1}" src="{data_uri(x, low, high)}">'
                       for x, what in zip(both, ("original", "reconstruction"), strict=False))  # fmt: skip
        figures.append(figure(f"window {row + 1}", "", pair, "images"))
    return figures


def history(view: View) -> str:
    """Every stage's measures as small charts; findings that began there are marked."""
    if not view.history:
        return "<p>No training history: the checkpoint is not in a run's folder.</p>"
    key = '<p><span class="key train">training</span><span class="key valid">validation</span></p>'
    return key + "".join(map(stage_history, view.history))


def stage_history(stage: StageHistory) -> str:
    """One stage's heading and charts."""
    drawn = [charts.chart(chart, stage.marks) for chart in stage.charts]
    more = drawn[MAX_CHARTS:]
    rest = folded(f"{len(more)} more", grid(more)) if more else ""
    return f"<h3>Stage {escape(stage.name)}</h3>{grid(drawn[:MAX_CHARTS])}{rest}"
