"""The report as one HTML page that needs no network: findings, codebooks to explore, history, reconstructions."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import replace
from html import escape
from pathlib import Path
from typing import Any

from vqtool.diagnosis import charts
from vqtool.diagnosis.code_map import Layout
from vqtool.diagnosis.explorer import EXPLORER, explorer_data
from vqtool.diagnosis.png import data_uri
from vqtool.diagnosis.report import SEVERITIES, Codebook, Finding, Report
from vqtool.diagnosis.samples import Samples
from vqtool.diagnosis.terminal import dead_note
from vqtool.files import PAGE_MARK, as_given, write_atomic

HERE = Path(__file__).parent
SHARES = ("perplexity_share", "hottest")  # shown in per cent
COLUMNS = (  # measures of a codebook that are shown in its row, where they are known
    ("used", "used"),
    ("dead", "dead"),
    ("perplexity", "perplexity"),
    ("perplexity_share", "of K"),
    ("entropy_bits", "bits"),
    ("hottest", "hottest code"),
    ("gini", "Gini"),
    ("duplicates", "duplicates"),
    ("effective_rank", "rank"),
)
POLICY = "default-src 'none'; style-src 'unsafe-inline'; script-src 'unsafe-inline'; img-src data:"


def write(report: Report, path: Path, samples: Samples | None = None, *, layout: Layout = "pca") -> None:
    """Write the page; without `samples` no code can be heard of but by its figures.

    Raises:
        VqtoolError: the file cannot be written, or `layout` is "tsne" and scikit-learn is not installed.
    """
    write_atomic(path, page(report, samples, layout).encode())


def page(report: Report, samples: Samples | None, layout: Layout = "pca") -> str:
    """The page's text."""
    worst_first = sorted(report.findings, key=lambda f: -SEVERITIES.index(f.severity))
    report = replace(report, findings=tuple(worst_first))
    title = str(report.recipe.get("title") or report.about.get("title") or report.source.name)
    sections = [
        section("findings", "Findings", findings(report)),
        section("codebooks", "Codebooks", codebook_table(report.codebooks) + EXPLORER),
        section("reconstructions", "Reconstructions", reconstructions(samples)),
        section("history", "Training history", charts.history(report)),
        section("measures", "All measures", measures(report)),
        section("recipe", "Recipe and versions", recipe(report)),
    ]
    data = json.dumps(explorer_data(report, samples, layout), separators=(",", ":"), allow_nan=False)
    return (
        '<!doctype html>\n<html lang="en">\n<head>\n<meta charset="utf-8">\n'
        f"{PAGE_MARK}\n"
        f'<meta http-equiv="Content-Security-Policy" content="{POLICY}">\n'
        '<meta name="viewport" content="width=device-width, initial-scale=1">\n'
        '<meta name="color-scheme" content="light dark">\n<link rel="icon" href="data:,">\n'
        f"<title>{escape(title)}: diagnosis</title>\n<style>\n{own_file('page.css')}</style>\n</head>\n<body>\n"
        f"{header(report, title)}\n<main>\n{''.join(sections)}</main>\n"
        f'<script type="application/json" id="data">{in_script(data)}</script>\n'
        f"<script>\n{own_file('page.js')}</script>\n</body>\n</html>\n"
    )


def own_file(name: str) -> str:
    """The text of a file beside this one."""
    return (HERE / name).read_text(encoding="utf-8")


def in_script(text: str) -> str:
    """JSON that ends no script element, whatever names it holds."""
    return text.replace("<", "\\u003c").replace(">", "\\u003e").replace("&", "\\u0026")


def section(name: str, heading: str, body: str) -> str:
    """A section with its heading."""
    return f'<section id="{name}" aria-labelledby="{name}-h"><h2 id="{name}-h">{escape(heading)}</h2>{body}</section>\n'


def header(report: Report, title: str) -> str:
    """What was looked at, and the verdict in one line."""
    counts = {s: sum(f.severity == s for f in report.findings) for s in reversed(SEVERITIES)}
    verdict = ", ".join(f"{n} {s}" for s, n in counts.items() if n and s != "ok") or "nothing to report"
    state = "healthy" if report.healthy else "unhealthy"
    about = [as_given(report.source)]
    if report.about.get("stage"):
        about.append(f"stage {report.about['stage']}, step {report.about.get('step', '?')}")
    about.append(f"{report.tokens:,} tokens of {report.counted}")
    return (
        f'<header><h1>{escape(title)}</h1><p class="verdict {report.worst()}"><b>{state}</b> {escape(verdict)}</p>'
        f'<p class="quiet">{escape(" · ".join(about))}</p></header>'
    )


def findings(report: Report) -> str:
    """The findings, the worst first; those that are ok in one line at the end."""
    fine = ", ".join(dict.fromkeys(f.id for f in report.findings if f.severity == "ok"))
    cards = "".join(
        card(number, finding) for number, finding in enumerate(report.findings, 1) if finding.severity != "ok"
    )
    rest = f'<p class="quiet">Looked at and found well: {escape(fine)}.</p>' if fine else ""
    return (f'<ol class="findings">{cards}</ol>' if cards else "<p>Nothing to report.</p>") + rest


def card(number: int, finding: Finding) -> str:
    """One finding with its figure, its cause and its mends."""
    limit = "" if finding.threshold is None else f" against {charts.number_text(finding.threshold)}"
    facts = f"{charts.number_text(finding.figure)}{limit}"
    where = f" in {escape(finding.where)}" if finding.where else ""
    told = escape(finding.cause) + "." * (not finding.cause.endswith((".", "!", "?")))
    if finding.step is not None:
        changed = f" ({escape(finding.changed)})" if finding.changed else ""
        told += f" Since step {finding.step:,}{changed}."
    told = re.sub(r"`([^`]+)`", r"<code>\1</code>", told)
    mends = "".join(f"<li><code>{escape(line)}</code></li>" for line in finding.fix)
    return (
        f'<li class="card {finding.severity}" value="{number}">'
        f'<h3><span class="badge">{number} {finding.severity}</span> {escape(finding.id)}{where}'
        f' <span class="figure">{escape(facts)}</span></h3>'
        f"<p>{told}</p>"
        + (f"<p>To mend it:</p><ul>{mends}</ul>" if mends else "")
        + (f'<p class="quiet">Threshold: {escape(finding.source)}.</p>' if finding.source else "")
        + "</li>"
    )


def codebook_table(codebooks: Sequence[Codebook]) -> str:
    """A row per codebook."""
    if not codebooks:
        return "<p>The checkpoint holds no codebook.</p>"
    shown = [(key, label) for key, label in COLUMNS if any(key in c.measures for c in codebooks)]
    head = "".join(f'<th scope="col">{escape(label)}</th>' for label in ["codebook", "K", *(s[1] for s in shown)])
    rows = "".join(
        f'<tr><th scope="row">{escape(c.name)}</th><td>{c.size:,}</td>'
        + "".join(f"<td>{cell(k, c.measures[k]) if k in c.measures else ''}</td>" for k, _ in shown)
        + "</tr>"
        for c in codebooks
    )
    told = dead_note(codebooks)
    return f'<div class="wide" tabindex="0" role="region" aria-label="codebooks in figures"><table><thead><tr>{head}' \
           f"</tr></thead><tbody>{rows}</tbody></table></div>" \
           + (f'<p class="quiet">{escape(told)}.</p>' if told else "")  # fmt: skip


def cell(measure: str, value: float) -> str:
    """A measure in a codebook's row."""
    return f"{value:.1%}" if measure in SHARES else charts.number_text(value)


def reconstructions(samples: Samples | None) -> str:
    """A few windows of the split with what the decoder makes of their codes."""
    if samples is None:
        return "<p>No data were encoded; <code>--data</code> or a run whose data are there shows them here.</p>"
    if samples.originals.ndim == 4:
        return images(samples)
    key = '<span class="key original">original</span>'
    if samples.reconstructions is not None:
        key += ' <span class="key rebuilt">reconstruction</span>'
    told = samples.split + ("; this task rebuilds no signals" if samples.reconstructions is None else "")
    return f"<p>{key} <span class=quiet>{escape(told)}</span></p>" + charts.signals(
        samples.originals, samples.reconstructions, samples.unit
    )


def images(samples: Samples) -> str:
    """Images beside their reconstructions, as PNG."""
    made = []
    for row, original in enumerate(samples.originals):
        both = [original] if samples.reconstructions is None else [original, samples.reconstructions[row]]
        low, high = float(original.min()), float(original.max())
        drawn = "".join(f'<img alt="{what} {row + 1}" src="{data_uri(x, low, high)}">'
                        for x, what in zip(both, ("original", "reconstruction"), strict=False))  # fmt: skip
        made.append(f'<figure class="images">{drawn}<figcaption>window {row + 1}</figcaption></figure>')
    return f'<div class="grid">{"".join(made)}</div>'


def measures(report: Report) -> str:
    """Everything that was measured, by name."""
    rows = [(name, value) for name, value in report.measures.items()]
    rows += [(f"{name}, {book.name}", value) for book in report.codebooks for name, value in book.measures.items()]
    body = "".join(f'<tr><th scope="row">{escape(n)}</th><td>{charts.number_text(v)}</td></tr>' for n, v in rows)
    table = f'<div class="wide"><table><tbody>{body}</tbody></table></div>'
    return f"<details><summary>{len(rows)} figures</summary>{table}</details>"


def recipe(report: Report) -> str:
    """The recipe as it was written, and what made the checkpoint."""
    text = report.about.get("recipe")
    told = f"vqtool {report.about['version']}" if report.about.get("version") else "of an unknown version"
    plugins = ", ".join(f"{name} ({provider})" for name, provider in as_items(report.about.get("plugins")).items())
    told += f"; plugins: {plugins}" if plugins else ""
    shown = text if isinstance(text, str) and text else json.dumps(plain(report.recipe), indent=1)
    return f'<p>{escape(told)}</p><pre tabindex="0" role="region" aria-label="the recipe">{escape(shown)}</pre>'


def as_items(value: Any) -> dict[str, Any]:
    """A mapping as it is, nothing of anything else."""
    return dict(value) if isinstance(value, Mapping) else {}


def plain(value: Any) -> Any:
    """A recipe's values as JSON has them."""
    return json.loads(json.dumps(value, default=str))
