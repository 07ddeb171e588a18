"""Draws what commands print on a terminal: `python docs/picture.py docs/images/NAME.svg "vqtool diagnose RUN" ...`.

Several commands make an animation: their lines appear as they came, long waits cut short. Readers who ask their system
for less motion see the last picture at once. The SVG fetches nothing.
"""

from __future__ import annotations

import io
import os
import pty
import re
import subprocess
import sys
import time
from pathlib import Path

WIDTH = 100
LETTER = 0.04  # seconds to type a letter
LONGEST = 1.2  # seconds that a wait is shown, at most
PAUSE, END = 1.0, 5.0  # seconds after a command, and after the last one

Line = tuple[float, str]  # when it appears, in seconds, and its text


def printed(command: str) -> list[Line]:
    """The lines that a command prints on a terminal of that width, colours included."""
    ours, theirs = pty.openpty()
    environment = {**os.environ, "COLUMNS": str(WIDTH), "TERM": "xterm-256color"}
    began = time.perf_counter()
    process = subprocess.Popen(command, shell=True, stdout=theirs, stderr=theirs, env=environment)
    os.close(theirs)
    chunks: list[tuple[float, bytes]] = []
    while True:
        try:
            chunk = os.read(ours, 1 << 16)
        except OSError:  # the other end is closed
            break
        if not chunk:
            break
        chunks.append((time.perf_counter() - began, chunk))
    process.wait()
    lines: list[Line] = []
    for at, chunk in chunks:
        *whole, rest = ((lines.pop()[1] if lines else "") + chunk.decode().replace("\r\n", "\n")).split("\n")
        lines += [(at, line) for line in [*whole, rest]]
    while lines and not lines[-1][1].strip():
        lines.pop()
    return lines


def played(commands: list[str]) -> list[Line]:
    """The lines of all commands one after the other, each with its moment."""
    now, shown = 0.0, []
    for command in commands:
        now += LETTER * len(command)
        shown.append((now, f"$ {command}"))
        before = 0.0
        for at, line in printed(command):
            now, before = now + min(at - before, LONGEST), at
            shown.append((now, line))
        now += PAUSE
        shown.append((now, ""))
    return shown[:-1]


def drawn(lines: list[Line]) -> str:
    """The last picture, as SVG."""
    from rich.console import Console
    from rich.text import Text

    console = Console(record=True, width=WIDTH, file=io.StringIO())
    console.print(Text.from_ansi("\n".join(line for _, line in lines)), no_wrap=True)
    svg = console.export_svg(title="vqtool", unique_id="vqtool")
    svg = re.sub(r"@font-face \{.*?\}\s*", "", svg, flags=re.S).replace("Fira Code, monospace", "monospace")
    svg = re.sub(r"<!--.*?-->\s*", "", svg, flags=re.S)
    return "\n".join(line.rstrip() for line in svg.splitlines()) + "\n"


def animated(svg: str, lines: list[Line]) -> str:
    """The picture with every line appearing at its moment, again and again."""
    total = lines[-1][0] + END
    frames = [f"@keyframes l{n} {{ 0%, {100 * at / total:.2f}% {{ opacity: 0 }} "
              f"{100 * at / total + 0.01:.2f}%, 100% {{ opacity: 1 }} }}"
              for n, (at, line) in enumerate(lines) if line.strip()]  # fmt: skip
    rules = [f".l{n} {{ animation: l{n} {total:.1f}s infinite }}" for n, (_, line) in enumerate(lines) if line.strip()]
    style = "\n".join(["@media (prefers-reduced-motion: no-preference) {", *frames, *rules, "}"])
    svg = re.sub(r'<text class="([^"]*)"([^>]*-line-(\d+)\))', r'<text class="\1 l\3"\2', svg)
    return svg.replace("</style>", f"{style}\n</style>", 1)


if __name__ == "__main__":
    target, *commands = sys.argv[1:]
    lines = played(commands)
    svg = drawn(lines)
    Path(target).write_text(animated(svg, lines) if len(commands) > 1 else svg, encoding="utf-8")
