"""Every command shown in the README and in docs/ parses, and every recipe it names is sound with what it sets."""

from __future__ import annotations

import re
import shlex
from collections.abc import Iterator
from pathlib import Path

import pytest
import typer.main

from vqtool.cli import app
from vqtool.recipe import load

ROOT = Path(__file__).parents[2]
PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md")), *sorted((ROOT / "plugins").glob("*/README.md"))]
GENERATED = {"cli.md", "parts.md", "laws.md", "hooks.md", "findings.md"}


def shown(path: Path) -> Iterator[str]:
    """The commands in a page's code blocks, joined over line ends."""
    text = path.read_text(encoding="utf-8")
    blocks = [block for language, block in re.findall(r"```([a-z]*)\n(.*?)```", text, re.S) if language != "text"]
    for block in blocks + re.findall(r"(?m)^(?: {4}.*\n)+", text):
        for line in re.sub(r"\\\n\s*", " ", block).splitlines():
            for piece in re.split(r"&&|\|\|?|;", line.split("  #")[0]):
                command = piece.strip().removeprefix("$ ")
                if command.startswith("vqtool "):
                    yield command


def named(path: Path) -> Iterator[str]:
    """The commands in a page's running text and tables, often without what they need: `vqtool train RECIPE`."""
    text = re.sub(r"```.*?```", "", path.read_text(encoding="utf-8"), flags=re.S)
    for words in re.findall(r"`([^`]+)`", text):
        if re.match(r"(.* -m )?vqtool [a-z]", words := " ".join(words.split())):
            yield words[words.index("vqtool ") :]


NAMED = [(page.name, line) for page in PAGES for line in dict.fromkeys(named(page))]
COMMANDS = [(page.name, line) for page in PAGES if page.name not in GENERATED for line in dict.fromkeys(shown(page))]


def test_some_are_shown() -> None:
    assert len(COMMANDS) > 10


@pytest.mark.parametrize(("page", "line"), COMMANDS, ids=[f"{page}: {line[:60]}" for page, line in COMMANDS])
def test_a_command_parses(page: str, line: str) -> None:
    words = shlex.split(re.split(" [<>] ", line)[0])[1:]
    group = typer.main.get_command(app)
    name, rest = words[0], words[1:]
    command = group.commands.get(name)  # type: ignore[attr-defined]  # a group has commands
    assert command is not None, f"{page}: there is no command `{name}`"
    rest = [word.replace("...", "x") for word in rest]
    context = command.make_context(name, rest, resilient_parsing=False)
    recipe = context.params.get("recipe")
    if recipe is not None and str(recipe).startswith("recipes/") and not context.params.get("plugin"):
        load(ROOT / recipe, [o for o in context.params.get("overrides") or [] if "<" not in o])


@pytest.mark.parametrize(("page", "line"), NAMED, ids=[f"{page}: {line[:60]}" for page, line in NAMED])
def test_a_command_that_is_named_exists_with_its_options(page: str, line: str) -> None:
    name, *rest = line.split()[1:]
    command = typer.main.get_command(app).commands.get(name)  # type: ignore[attr-defined]  # a group has commands
    assert command is not None, f"{page}: there is no command `{name}`"
    options = {option for parameter in command.params for option in parameter.opts} | {"--help", "-h"}
    for word in rest:
        if word.startswith("-") and word != "-" and not word.lstrip("-").replace(".", "").isdigit():
            assert word.split("=")[0] in options, f"{page}: `vqtool {name}` has no option `{word}`"


def test_many_are_named() -> None:
    assert len(NAMED) > 40
