"""A hook of the site: pages of notebooks fetch nothing. The converter would load a library of diagrams."""

from __future__ import annotations

import re
from typing import Any

DIAGRAMS = re.compile(r'<script type="module">(?:(?!</script>).)*mermaid(?:(?!</script>).)*</script>', re.S)


def on_page_content(html: str, *, page: Any, **_: Any) -> str:
    """The page's HTML without scripts from elsewhere."""
    return DIAGRAMS.sub("", html) if page.file.src_uri.endswith(".ipynb") else html
