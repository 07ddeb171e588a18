"""Examples in every help text, `vqtool help`, and what `vqtool` alone suggests."""

from __future__ import annotations

import json
import re
import shlex

import pytest
import typer.main
from typer.testing import CliRunner

from tests.cli.run import vqtool
from vqtool import cli
from vqtool.commands import help
from vqtool.errors import VqtoolError
from vqtool.examples import EXAMPLES, START
from vqtool.recipe import shipped

NAMES = [info.name for info in cli.app.registered_commands if info.name]


def commands(text: str) -> list[str]:
    """The commands of some examples, without what is said of them."""
    joined = re.sub(r"\\\n\s*", " ", text)
    return [line.split("   ")[0] for line in map(str.strip, joined.splitlines()) if line.startswith("vqtool ")]


def test_every_command_has_examples() -> None:
    assert set(EXAMPLES) == set(NAMES)
    for name in NAMES:
        shown = CliRunner().invoke(cli.app, [name, "--help"]).output
        for line in EXAMPLES[name].splitlines():
            assert f"    {line}\n" in shown + "\n"


ALL = [line for text in [*EXAMPLES.values(), START] for line in commands(text.split(" > ")[0])]


@pytest.mark.parametrize("line", ALL)
def test_an_example_is_a_command(line: str) -> None:
    name, *rest = shlex.split(line)[1:]
    group = typer.main.get_command(cli.app)
    group.commands[name].make_context(name, rest)  # type: ignore[attr-defined]  # a group has commands


def test_vqtool_alone_suggests_a_start() -> None:
    done = vqtool()
    assert "vqtool forecast --steps 30 --data FILE.csv" in done.stdout + done.stderr


def test_lines_fit_a_terminal() -> None:
    assert max(len(line) + 4 for text in [*EXAMPLES.values(), START] for line in text.splitlines()) <= 80


def test_pages_are_listed(capsys: pytest.CaptureFixture[str]) -> None:
    assert help.run(topic=None) == 0
    listed = capsys.readouterr().out
    pages = {page.stem for page in shipped.pages().glob("*.md")} - set(help.ONLY_ON_THE_SITE)
    assert len(pages) > 15
    for page in pages:
        assert f"\n{page} " in listed
        text = (shipped.pages() / f"{page}.md").read_text(encoding="utf-8")
        assert not any(line.startswith(("::: ", "--8<--")) for line in text.splitlines()), f"{page} is made by the site"


def test_a_page(capsys: pytest.CaptureFixture[str]) -> None:
    assert help.run(topic="concepts") == 0
    assert capsys.readouterr().out.startswith("# Concepts")


def test_a_command(capsys: pytest.CaptureFixture[str]) -> None:
    assert help.run(topic="bench") == 0
    assert "Usage: vqtool bench" in capsys.readouterr().out


def test_neither_a_page_nor_a_command() -> None:
    with pytest.raises(VqtoolError, match="no page or command `concept`") as raised:
        help.run(topic="concept")
    assert "`concepts`" in str(raised.value.hint)


def test_json() -> None:
    assert json.loads(vqtool("help", "--json").stdout)["topics"]["laws"] == "Laws"


def test_a_page_is_laid_out_for_a_terminal() -> None:
    text = help.rendered("# Title\n\n* **one** `two`\n")
    assert "**" not in text
    assert "\x1b" not in text
    assert "one two" in text
