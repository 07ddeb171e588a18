"""What codes stand for, as one HTML page that needs no network, and its pictures as files beside it."""

from __future__ import annotations

import base64
from html import escape
from pathlib import Path

from vqtool.analysis import codes_pictures, codes_view
from vqtool.analysis.code_labels import Reading
from vqtool.api import Rows
from vqtool.diagnosis.code_map import Layout
from vqtool.diagnosis.html_page import document, folded, section, table
from vqtool.files import make_dir, write_atomic

CAPTIONS = {
    "use.png": "How many labelled tokens take each code, the most used first, by label.",
    "raster.png": "Tokens under their signal. A dot is a token, its height the code (sorted by the label it stands "
    "for), its colour that label; the shades behind the signal are the true labels.",
    "map.png": "Code vectors in the plane, in the colour of the label each stands for; the ringed ones are claimed.",
    "examples.png": "Signals around the first tokens of the surest codes of each label, each of another {group}, "
    "with the label it has there.",
}


def write(reading: Reading, rows: Rows, folder: Path, *, layout: Layout = "pca") -> list[Path]:
    """Write `codes.html` and the pictures into `folder`, which is made; returns the files, the page first.

    Raises VqtoolError if matplotlib is not installed or nothing can be written there.
    """
    pictures = codes_pictures.draw(reading, lambda row: rows[row]["x"].numpy(), layout)
    make_dir(folder)
    files = {"codes.html": page(reading, pictures).encode(), **pictures}
    for name, content in files.items():
        write_atomic(folder / name, content)
    return [folder / name for name in files]


def page(reading: Reading, pictures: dict[str, bytes]) -> str:
    """The page's text, with the pictures in it."""
    title = f"codes by {reading.label}"
    claims = f"<p>{escape(codes_view.rule(reading))}</p>" + table(codes_view.claims(reading), "claimed codes")
    shown = "".join(picture(name, content, reading) for name, content in pictures.items())
    sections = [
        section("claims", "Which codes stand for which label", claims),
        section("pictures", "Pictures", shown),
        section("figures", "How much the codes reveal", table(codes_view.figures(reading), "probes and agreement")),
    ]
    for q, book in enumerate(reading.books):
        codes = codes_view.all_codes(book, reading)
        body = folded(f"{len(codes.rows)} of {len(book.counts)} codes were seen", table(codes, f"codes of {book.name}"))
        sections.append(section(f"book{q}", f"All codes of {book.name}", body))
    header = f"<h1>{escape(title)}</h1><p class=quiet>{escape(codes_view.subject(reading))}</p>"
    return document(title, header, sections)


def picture(name: str, content: bytes, reading: Reading) -> str:
    """A picture with its caption."""
    return (
        f'<figure><img alt="{escape(name)}" src="data:image/png;base64,{base64.b64encode(content).decode()}" '
        f'style="max-width:100%;background:white"><figcaption>{escape(CAPTIONS[name].format(group=reading.group))}'
        "</figcaption></figure>"
    )
