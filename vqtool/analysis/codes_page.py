"""What codes fire on, as one HTML page that needs no network, and its pictures as files beside it."""

from __future__ import annotations

import base64
from html import escape
from pathlib import Path

import numpy as np

from vqtool.analysis import codes_pictures
from vqtool.analysis.code_labels import INTERVAL, LEAST_GROUPS, CodeLabels, Reading, order
from vqtool.api import Rows
from vqtool.diagnosis.code_map import Layout
from vqtool.diagnosis.page import POLICY, own_file, section
from vqtool.files import PAGE_MARK, make_dir, write_atomic

CAPTIONS = {
    "use.png": "How many labelled tokens take each code, the most used first, by label.",
    "raster.png": "Tokens under their signal. A dot is a token, its height the code (sorted by the label it stands "
    "for), its colour that label; the shades behind the signal are the true labels.",
    "map.png": "Code vectors in the plane, in the colour of the label each stands for; the ringed ones are claimed.",
    "examples.png": "Signals about the first tokens of the surest codes of each label, each of another {group}, "
    "with the label it has there.",
}


def write(reading: Reading, rows: Rows, folder: Path, *, layout: Layout = "pca") -> list[Path]:
    """Write `codes.html` and the pictures into `folder`, which is made; returns the files, the page first.

    Raises VqtoolError where matplotlib is not installed or nothing can be written there.
    """
    pictures = codes_pictures.draw(reading, lambda row: rows[row]["x"].numpy(), layout)
    make_dir(folder)
    write_atomic(folder / "codes.html", page(reading, pictures).encode())
    for name, content in pictures.items():
        write_atomic(folder / name, content)
    return [folder / "codes.html", *(folder / name for name in pictures)]


def page(reading: Reading, pictures: dict[str, bytes]) -> str:
    """The page's text, with the pictures in it."""
    title = f"codes by {reading.label}"
    shown = "".join(
        f'<figure><img alt="{escape(name)}" src="data:image/png;base64,{base64.b64encode(content).decode()}" '
        f'style="max-width:100%;background:white"><figcaption>{escape(CAPTIONS[name].format(group=reading.group))}'
        f"</figcaption></figure>"
        for name, content in pictures.items()
    )
    sections = [
        section("claims", "What may be said", claims(reading)),
        section("pictures", "Pictures", shown),
        section("figures", "How much the codes tell", figures(reading)),
        *(
            section(f"book{q}", f"All codes of {book.name}", table(book, reading))
            for q, book in enumerate(reading.books)
        ),
    ]
    return (
        '<!doctype html>\n<html lang="en">\n<head>\n<meta charset="utf-8">\n'
        f"{PAGE_MARK}\n"
        f'<meta http-equiv="Content-Security-Policy" content="{POLICY}">\n'
        '<meta name="viewport" content="width=device-width, initial-scale=1">\n'
        '<meta name="color-scheme" content="light dark">\n<link rel="icon" href="data:,">\n'
        f"<title>{escape(title)}</title>\n<style>\n{own_file('page.css')}</style>\n</head>\n<body>\n"
        f"<header><h1>{escape(title)}</h1><p class=quiet>{escape(told(reading))}</p></header>\n"
        f"<main>\n{''.join(sections)}</main>\n</body>\n</html>\n"
    )


def told(reading: Reading) -> str:
    """What was looked at, in a line."""
    tokens, groups = int(reading.figures["tokens"]), int(reading.figures["groups"])
    return f"{tokens:,} labelled tokens of {groups} {reading.group}s, split {reading.split}"


def claims(reading: Reading) -> str:
    """The rule, and for each label the codes that keep it."""
    low, high = (f"{100 * p:g}" for p in INTERVAL)
    rule = (
        f"A code is claimed for a {reading.label} where it fires on it in at least {LEAST_GROUPS} {reading.group}s and "
        f"the lower end of its precision's interval ({low} to {high} %, a bootstrap over {reading.group}s) is above "
        f"one half and above the share of that {reading.label} among all tokens."
    )
    lines = []
    for c, name in enumerate(reading.names):
        for book in reading.books:
            sure = [int(k) for k in order(book) if book.claimed[k] and book.label[k] == c]
            codes = ", ".join(f"{k} ({book.precision[k]:.0%}, {book.groups[k]} {reading.group}s)" for k in sure)
            lines.append(f"<tr><td>{escape(name)}</td><td>{escape(book.name)}</td><td>{len(sure)}</td>"
                         f"<td>{escape(codes) or 'none'}</td></tr>")  # fmt: skip
    head = f"<tr><th>{escape(reading.label)}</th><th>codebook</th><th>codes</th><th>which</th></tr>"
    return f"<p>{escape(rule)}</p><div style='overflow-x:auto'><table>{head}{''.join(lines)}</table></div>"


def figures(reading: Reading) -> str:
    """Probes and agreement."""
    lines = "".join(f"<tr><td>{escape(name)}</td><td>{value:.4g}</td></tr>" for name, value in reading.figures.items())
    return f"<table>{lines}</table>"


def table(book: CodeLabels, reading: Reading) -> str:
    """Every code that was seen: counts by label, precision with its interval, lift, groups."""
    counts = "".join(f"<th>{escape(name)}</th>" for name in reading.names)
    head = (f"<tr><th>code</th><th>stands for</th>{counts}<th>precision</th><th>95 % interval</th><th>lift</th>"
            f"<th>{escape(reading.group)}s</th><th>claimed</th></tr>")  # fmt: skip
    lift = book.lift()
    lines = []
    for k in order(book):
        between = f"{book.low[k]:.2f} to {book.high[k]:.2f}" if np.isfinite(book.low[k]) else "too few"
        cells = [str(k), escape(reading.names[book.label[k]]), *(str(n) for n in book.counts[k]),
                 f"{book.precision[k]:.2f}", between,
                 f"{lift[k, book.label[k]]:.2g}", str(book.groups[k]), "yes" if book.claimed[k] else ""]  # fmt: skip
        lines.append("<tr>" + "".join(f"<td>{cell}</td>" for cell in cells) + "</tr>")
    summary = f"{len(lines)} of {len(book.counts)} codes were seen"
    return (f"<details><summary>{summary}</summary><div style='overflow-x:auto'><table>{head}{''.join(lines)}</table>"
            "</div></details>")  # fmt: skip
