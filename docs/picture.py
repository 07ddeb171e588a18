"""Draws what a command prints on a terminal: `python docs/picture.py docs/images/NAME.svg vqtool diagnose RUN`."""

from __future__ import annotations

import io
import os
import pty
import re
import subprocess
import sys
from pathlib import Path

WIDTH = 100


def printed(command: list[str]) -> str:
    """What a command prints on a terminal of that width, colours included."""
    ours, theirs = pty.openpty()
    environment = {**os.environ, "COLUMNS": str(WIDTH), "TERM": "xterm-256color"}
    process = subprocess.Popen(command, stdout=theirs, stderr=theirs, env=environment)
    os.close(theirs)
    chunks = []
    while True:
        try:
            chunk = os.read(ours, 1 << 16)
        except OSError:  # the other end is closed
            break
        if not chunk:
            break
        chunks.append(chunk)
    process.wait()
    return b"".join(chunks).decode().replace("\r\n", "\n")


def drawn(command: str, text: str) -> str:
    """An SVG of the command and what it printed; it fetches no font."""
    from rich.console import Console
    from rich.text import Text

    console = Console(record=True, width=WIDTH, file=io.StringIO())
    console.print(Text(f"$ {command}\n"))
    console.print(Text.from_ansi(text.rstrip()))
    svg = console.export_svg(title="vqtool", unique_id="vqtool")
    svg = re.sub(r"@font-face \{.*?\}\s*", "", svg, flags=re.S).replace("Fira Code, monospace", "monospace")
    svg = re.sub(r"<!--.*?-->\s*", "", svg, flags=re.S)
    return "\n".join(line.rstrip() for line in svg.splitlines()) + "\n"


if __name__ == "__main__":
    target, *words = sys.argv[1:]
    Path(target).write_text(drawn(" ".join(words), printed(words)), encoding="utf-8")
