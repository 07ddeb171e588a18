"""`vqtool help`: a page of the documentation in the terminal, or the help of a command."""

from __future__ import annotations

import re
import shutil
from collections.abc import Mapping
from pathlib import Path

from vqtool.console import out
from vqtool.errors import VqtoolError
from vqtool.recipe import shipped
from vqtool.suggest import did_you_mean

ONLY_ON_THE_SITE = ("index", "python", "changelog")  # pages that the site puts together


def run(*, topic: str | None) -> int:
    """Show a page or a command's help; without a topic, list the pages."""
    pages = {path.stem: path for path in sorted(shipped.pages().glob("*.md"))
             if path.stem not in ONLY_ON_THE_SITE}  # fmt: skip
    if topic is None:
        titles = {name: title(path) for name, path in pages.items()}
        out.result_table("pages", ["topic", "page"], [[name, words] for name, words in titles.items()])
        out.say("vqtool help TOPIC shows one; vqtool COMMAND --help shows the options of a command")
        out.document({"topics": titles})
        return 0
    if topic in pages:
        text = pages[topic].read_text(encoding="utf-8")
        out.print(rendered(text) if out.result_stream.isatty() else text)
    else:
        text = command_help(topic, pages)
        out.print(text)
    out.document({"topic": topic, "text": text})
    return 0


def title(path: Path) -> str:
    """The heading of a page."""
    with path.open(encoding="utf-8") as file:
        return next((line.removeprefix("# ").strip() for line in file if line.startswith("# ")), path.stem)


def command_help(name: str, pages: Mapping[str, Path]) -> str:
    """The help of a command, from the page of the commands.

    Raises:
        VqtoolError: there is neither a command nor a page of this name.
    """
    text = pages["cli"].read_text(encoding="utf-8") if "cli" in pages else ""
    commands = dict(re.findall(r"^## vqtool (\S+)\n\n```\n(.*?)\n```$", text, re.M | re.S))
    if name not in commands:
        raise VqtoolError(
            f"there is no page or command `{name}`",
            hint=did_you_mean(name, [*pages, *commands], otherwise="vqtool help lists the pages"),
        )
    return commands[name]


def rendered(text: str) -> str:
    """Markdown laid out for a terminal, without colours."""
    from rich.console import Console
    from rich.markdown import Markdown

    console = Console(width=min(100, shutil.get_terminal_size().columns), color_system=None)
    with console.capture() as captured:
        console.print(Markdown(text))
    return captured.get()
