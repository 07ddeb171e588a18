"""The site builds, strictly: a link that leads nowhere, or a docstring that cannot be read, fails it."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parents[2]


def test_the_site_builds_and_every_page_is_in_it(tmp_path: Path) -> None:
    done = subprocess.run(
        [sys.executable, "-m", "mkdocs", "build", "--strict", "--site-dir", str(tmp_path / "site")],
        cwd=ROOT, env=os.environ | {"NO_MKDOCS_2_WARNING": "1"}, capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    built = {path.stem for path in (tmp_path / "site").glob("*.html")}
    assert {path.stem for path in (ROOT / "docs").glob("*.md")} <= built
    assert "not included in the" not in done.stderr  # a page that the navigation leaves out
    notebooks = list((tmp_path / "site/notebooks").glob("*.html"))
    assert len(notebooks) == 4
    for page in notebooks:
        assert "mermaid.esm" not in page.read_text(encoding="utf-8")  # which would be fetched


def test_pages_fetch_nothing() -> None:
    settings = (ROOT / "mkdocs.yml").read_text(encoding="utf-8")
    assert "font: false" in settings
    assert "\n  - offline" in settings
