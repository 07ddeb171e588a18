"""HTML pages that need no network: one document with its style and script, sections, tables."""

from __future__ import annotations

from collections.abc import Iterable
from html import escape
from pathlib import Path

from vqtool.diagnosis.view import Table
from vqtool.files import PAGE_MARK

POLICY = "default-src 'none'; style-src 'unsafe-inline'; script-src 'unsafe-inline'; img-src data:"


def document(title: str, header: str, sections: Iterable[str], scripts: str = "") -> str:
    """A whole page: `header` and `sections` are HTML, the title is text."""
    return (
        '<!doctype html>\n<html lang="en">\n<head>\n<meta charset="utf-8">\n'
        f"{PAGE_MARK}\n"
        f'<meta http-equiv="Content-Security-Policy" content="{POLICY}">\n'
        '<meta name="viewport" content="width=device-width, initial-scale=1">\n'
        '<meta name="color-scheme" content="light dark">\n<link rel="icon" href="data:,">\n'
        f"<title>{escape(title)}</title>\n<style>\n{own_file('page.css')}</style>\n</head>\n<body>\n"
        f"<header>{header}</header>\n<main>\n{''.join(sections)}</main>\n{scripts}</body>\n</html>\n"
    )


def own_file(name: str) -> str:
    """The text of a file beside this one."""
    return (Path(__file__).parent / name).read_text(encoding="utf-8")


def section(name: str, heading: str, body: str) -> str:
    """A section with its heading."""
    return f'<section id="{name}" aria-labelledby="{name}-h"><h2 id="{name}-h">{escape(heading)}</h2>{body}</section>\n'


def table(content: Table, label: str) -> str:
    """A table that scrolls sideways where it is wide; the first cell of a row is its heading."""
    head = "".join(f'<th scope="col">{escape(cell)}</th>' for cell in content.head)
    rows = "".join(
        f'<tr><th scope="row">{escape(first)}</th>{"".join(f"<td>{escape(cell)}</td>" for cell in cells)}</tr>'
        for first, *cells in content.rows
    )
    return (
        f'<div class="wide" tabindex="0" role="region" aria-label="{escape(label)}"><table>'
        + (f"<thead><tr>{head}</tr></thead>" if head else "")
        + f"<tbody>{rows}</tbody></table></div>"
        + (f'<p class="quiet">{escape(content.note)}.</p>' if content.note else "")
    )


def folded(summary: str, body: str) -> str:
    """A body that opens at a click."""
    return f"<details><summary>{escape(summary)}</summary>{body}</details>"


def figure(name: str, note: str, body: str, css: str = "chart") -> str:
    """A drawing under its name, with a note beside the name."""
    caption = f"<figcaption><b>{escape(name)}</b> <span>{escape(note)}</span></figcaption>"
    return f'<figure class="{css}">{caption}{body}</figure>'


def grid(figures: Iterable[str]) -> str:
    """Figures side by side, as many as fit."""
    return f'<div class="grid">{"".join(figures)}</div>'
